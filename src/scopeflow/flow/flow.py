"""Variational optical flow of one frame against a reference, coarse to fine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.bands import COLUMN_BORDER, ROW_BORDER, padded_shape
from scopeflow.compiled.scratch import scratch
from scopeflow.compiled.sequence import repeated
from scopeflow.errors import InputError
from scopeflow.flow.arguments import check_finite
from scopeflow.flow.median import median_5x5
from scopeflow.flow.parameters import FLOW_RULES, FlowParameters
from scopeflow.flow.pyramid import Level
from scopeflow.flow.reference import FlowReference, prepare_reference
from scopeflow.flow.solver import LevelLayout, solve_level
from scopeflow.flow.tensor import motion_tensor
from scopeflow.images.borders import add_pixels, as_planes, crop_rows, fill_planes, pad_replicate
from scopeflow.images.resize import pyramid_tables, resize_planes, upsample_flow
from scopeflow.images.warp import SOURCE_COLUMNS, SOURCE_ROWS, warp_planes
from scopeflow.strict.values import check_fields

logger = logging.getLogger(__name__)

# Callers know the data term by another name.
_ARGUMENT_RULES = {
    "const_assumption" if name == "data_term" else name: rule for name, rule in FLOW_RULES.items()
}

DEFAULT_WARPING_STEPS = 10
SMALLEST_FILTERED = 6  # levels of fewer pixels along an axis are not median filtered


def _resized_flow(
    flow: NDArray[np.float32] | None, shape_in: tuple[int, int], level: Level
) -> NDArray[np.float32]:
    """Flow planes resampled to a level, with a border of repeated edges; zeros for None."""
    padded = scratch("flow", (2, *padded_shape(level.rows, level.cols)))
    if flow is None:
        fill_planes(padded, np.float32(0.0))
    else:
        tables = pyramid_tables(shape_in, (level.rows, level.cols))
        resize_planes(flow, tables, border=(ROW_BORDER, COLUMN_BORDER), out=padded)
    return padded


def _refine(
    prepared: FlowReference,
    position: int,
    moving: NDArray[np.float32],
    flow: NDArray[np.float32],
    share: float,
) -> NDArray[np.float32]:
    """Increment of one level for a moving image (padded planes) that is already warped."""
    params, level = prepared.params, prepared.levels[position]
    maps = prepared.maps[position]
    alpha = (params.alpha[0] * level.alpha_scale, params.alpha[1] * level.alpha_scale)
    layout = LevelLayout(
        level.rows,
        level.cols,
        moving.shape[0],
        mapped=maps is not None,
        with_edges=params.a_smooth != 1.0 or alpha[0] == 0.0,
    )
    system = scratch("system", (layout.size,))
    motion_tensor(
        prepared.images[position],
        moving,
        level.h_row,
        level.h_col,
        params.data_term,
        layout,
        system,
    )
    return solve_level(
        layout,
        system,
        prepared.weights,
        maps,
        flow,
        alpha=alpha,
        h_row=level.h_row,
        h_col=level.h_col,
        iterations=params.iterations,
        update_lag=params.update_lag,
        a_data=prepared.a_data,
        a_smooth=params.a_smooth,
        robust_share=share,
        out=scratch("increment", flow.shape),
    )


def prepare_start(prepared: FlowReference, initial: NDArray[Any]) -> NDArray[np.float32]:
    """Bring an initial displacement to the coarsest level, once for all frames that start from it.

    `initial`: ``(H, W, 2)`` displacement, pixels.
    Returns: planes ``(2, h, w)`` float32 for `solve_prepared`.
    Raises InputError: when the shape does not fit the reference, or values are not finite.
    """
    initial = np.asarray(initial)
    if initial.shape != (*prepared.shape[:2], 2):
        raise InputError(
            f"An initial displacement of shape {initial.shape} was given for frames of shape "
            f"{prepared.shape}; the shape (H, W, 2) is needed."
        )
    check_finite(initial, "The initial displacement")
    coarsest = prepared.levels[0]
    planes = as_planes(initial)
    tables = pyramid_tables(prepared.shape[:2], (coarsest.rows, coarsest.cols))
    return resize_planes(planes, tables)


def _pyramid_pass(
    prepared: FlowReference,
    moving: NDArray[np.float32],
    initial: NDArray[np.float32] | None,
    share: float | None,
    round_positions: bool,
) -> NDArray[np.float32]:
    """One coarse-to-fine pass from a flow on the coarsest level.

    ``share`` is the stage of graduated non-convexity or None. Kernels do all the work, so that
    the pass can be repeated as one call. The result is scratch memory.
    """
    params = prepared.params
    size = (prepared.levels[0].rows, prepared.levels[0].cols)
    flow = initial
    steps = 1 if share is None else (params.warping_steps or DEFAULT_WARPING_STEPS)
    border = (ROW_BORDER, COLUMN_BORDER)
    for position, level in enumerate(prepared.levels):
        filtered = min(level.rows, level.cols) >= SMALLEST_FILTERED
        h, w = level.rows, level.cols
        image = resize_planes(
            moving,
            pyramid_tables(prepared.shape[:2], (h, w)),
            border=(SOURCE_ROWS, SOURCE_COLUMNS),
            out=scratch("image", (moving.shape[0], h + 2 * SOURCE_ROWS, w + 2 * SOURCE_COLUMNS)),
        )
        padded = _resized_flow(flow, size, level)
        for _ in range(steps):
            fixed = prepared.images[position]
            warped = scratch("warped", fixed.shape)
            if share is None and position == 0:
                # The coarsest level is compared as it is, even when an initial flow is given.
                crop_rows(image, SOURCE_ROWS - ROW_BORDER, warped)
            else:
                warp_planes(
                    image,
                    padded,
                    fixed,
                    h_row=level.h_row,
                    h_col=level.h_col,
                    flow_border=border,
                    border=border,
                    round_positions=round_positions,
                    out=warped,
                )
            increment = _refine(prepared, position, warped, padded, 1.0 if share is None else share)
            flow = scratch("motion", (2, h, w))
            if share is None and filtered:
                median_5x5(increment, border=border, base=padded, out=flow)
                continue
            total = scratch("moved", (2, h, w)) if filtered else flow
            add_pixels(padded, increment, *border, total)
            if filtered:
                median_5x5(total, out=flow)
            pad_replicate(flow, *border, padded)
        size = (level.rows, level.cols)
    assert flow is not None
    return flow


def _repeated_pass(
    prepared: FlowReference,
    moving: NDArray[np.float32],
    start: NDArray[np.float32] | None,
    share: float | None,
    round_positions: bool,
) -> NDArray[np.float32]:
    """`_pyramid_pass`, which is the same sequence of kernel calls for every frame."""

    def run(
        moving: NDArray[np.float32], start: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        return _pyramid_pass(prepared, moving, start, share, round_positions)

    inputs = [moving] if start is None else [moving, start]
    flow: NDArray[np.float32]
    flow = repeated(prepared, (share, round_positions, start is None), run, inputs)
    return flow


def solve_flow(
    prepared: FlowReference,
    moving: NDArray[Any],
    initial: NDArray[Any] | None = None,
    *,
    round_positions: bool = False,
) -> NDArray[np.float32]:
    """Displacement of a frame against the prepared reference, on the solver's finest grid.

    May be called from several threads at once with one `FlowReference`.

    `moving`: ``(H, W, C)`` frame, normalised and filtered as the reference.
    `initial`: ``(H, W, 2)`` displacement to start from, pixels.
    `round_positions`: round warp positions to 1/32 px as OpenCV 4 does. For tests of equivalence
        only.
    Returns: ``(h, w, 2)`` float32 displacement in full-resolution pixels; `upsample_flow` brings it
        to ``(H, W, 2)``.
    Raises InputError: when shapes differ from the reference, or values are not finite.

    Notes
    -----
    Gradient, brightness or census constancy with robust penalties, solved coarse to fine by
    successive over-relaxation; Flotho et al. 2022, *Software for non-parametric image
    registration of 2-photon imaging data* (J Biophotonics), after Brox et al. 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from scopeflow.flow.parameters import FlowParameters
    >>> from scopeflow.flow.reference import prepare_reference
    >>> frame = np.random.default_rng(0).random((32, 40, 1))
    >>> prepared = prepare_reference(frame, None, FlowParameters(min_level=2))
    >>> solve_flow(prepared, frame).shape
    (20, 26, 2)
    """
    moving = np.asarray(moving)
    if moving.shape != prepared.shape:
        raise InputError(
            f"A frame of shape {moving.shape} was given for a reference of shape {prepared.shape}; "
            "both need the same shape (H, W, C)."
        )
    check_finite(moving, "The frame")
    start = None if initial is None else prepare_start(prepared, initial)
    return solve_prepared(prepared, moving, start, round_positions=round_positions)


def solve_prepared(
    prepared: FlowReference,
    moving: NDArray[Any],
    start: NDArray[np.float32] | None = None,
    *,
    round_positions: bool = False,
) -> NDArray[np.float32]:
    """`solve_flow` for arguments that are known to fit, which saves looking at every pixel.

    `moving`: ``(H, W, C)`` finite frame.
    Returns: ``(h, w, 2)`` float32.
    """
    planes = as_planes(moving)
    shares = prepared.params.gnc_schedule or (None,)
    flow = _repeated_pass(prepared, planes, start, shares[0], round_positions)
    for share in shares[1:]:  # the stage before ends at full resolution
        full = upsample_flow(np.moveaxis(flow, 0, -1), prepared.shape[:2])
        start = prepare_start(prepared, full)
        flow = _repeated_pass(prepared, planes, start, share, round_positions)
    # A copy, because the planes are scratch memory; seen as (h, w, 2) without interleaving them.
    return np.moveaxis(np.array(flow), 0, -1)


def get_displacement(
    fixed: NDArray[Any],
    moving: NDArray[Any],
    alpha: float | Sequence[float] = (2, 2),
    update_lag: int = 5,
    iterations: int = 50,
    min_level: int = 0,
    levels: int = 50,
    eta: float = 0.8,
    a_smooth: float = 1.0,
    a_data: float | Sequence[float] | NDArray[Any] = 0.45,
    const_assumption: Any = "gc",
    uv: NDArray[Any] | None = None,
    weight: Any = None,
    gnc_schedule: Sequence[float] | None = None,
    warping_steps: int | None = None,
) -> NDArray[np.float64]:
    """Displacement field between a reference and a moving frame.

    Parameters
    ----------
    fixed : numpy.ndarray
        Reference, ``(H, W)`` or ``(H, W, C)``, intensities of about [0, 1].
    moving : numpy.ndarray
        Frame of the same shape.
    alpha : float or sequence of float
        Smoothness weights ``(alpha_x, alpha_y)``, one number for both; larger is smoother.
    update_lag : int
        Iterations between updates of the nonlinear weights.
    iterations : int
        Sweeps per level.
    min_level : int
        Finest pyramid level that is solved, 0 is full resolution.
    levels : int
        Upper limit of pyramid steps.
    eta : float
        Scale factor between levels, ``0 < eta <= 1``.
    a_smooth : float
        Exponent of the smoothness penalty, 0 to 1.25 (from 0.01 for gray); 1 is quadratic.
    a_data : float or sequence of float
        Exponent of the data penalty in (0, 1], one or one per channel.
    const_assumption : str or enum
        ``"gc"``/``"gradient"``, ``"gray"``/``"brightness"`` or ``"cs"``/``"census"``.
    uv : numpy.ndarray, optional
        ``(H, W, 2)`` initial displacement, pixels.
    weight : array_like, optional
        Weights of channels or pixels, see `channel_weights`.
    gnc_schedule : sequence of float, optional
        Stages of graduated non-convexity from 0 to 1.
    warping_steps : int, optional
        Warps per level with a `gnc_schedule`, 10 when None.

    Returns
    -------
    numpy.ndarray
        ``(H, W, 2)`` float64 displacement in pixels, ``[..., 0]`` along columns, ``[..., 1]`` along
        rows; ``moving`` at ``(y + v, x + u)`` shows what ``fixed`` shows at ``(y, x)``.

    Raises
    ------
    InputError
        Shapes that differ, frames below 10 px, or values that are not finite.
    OptionsError
        Options that are not known or out of range, and weights that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> frame = np.random.default_rng(0).random((24, 32))
    >>> bool(np.abs(get_displacement(frame, frame)).max() < 0.01)
    True
    """
    fixed, moving = np.asarray(fixed), np.asarray(moving)
    if fixed.shape != moving.shape or fixed.ndim not in (2, 3):
        raise InputError(
            f"A reference of shape {fixed.shape} and a frame of shape {moving.shape} were given; "
            "both need the same shape, (H, W) or (H, W, C)."
        )
    if fixed.ndim == 2:
        fixed, moving = fixed[..., None], moving[..., None]
    parameters = flow_parameters(
        alpha, update_lag, iterations, min_level, levels, eta, a_smooth, a_data, const_assumption,
        gnc_schedule, warping_steps,
    )  # fmt: skip
    prepared = prepare_reference(fixed, weight, parameters)
    motion = solve_flow(prepared, moving, uv)
    return upsample_flow(motion, prepared.shape[:2]).astype(np.float64)


def flow_parameters(
    alpha: float | Sequence[float] = (2, 2),
    update_lag: int = 5,
    iterations: int = 50,
    min_level: int = 0,
    levels: int = 50,
    eta: float = 0.8,
    a_smooth: float = 1.0,
    a_data: Any = 0.45,
    const_assumption: Any = "gc",
    gnc_schedule: Sequence[float] | None = None,
    warping_steps: int | None = None,
) -> FlowParameters:
    """Check the arguments of `get_displacement` and freeze them."""
    values = check_fields(
        _ARGUMENT_RULES,
        {
            "alpha": alpha,
            "levels": levels,
            "min_level": min_level,
            "eta": eta,
            "update_lag": update_lag,
            "iterations": iterations,
            "a_smooth": a_smooth,
            "a_data": a_data,
            "const_assumption": const_assumption,
            "gnc_schedule": gnc_schedule,
            "warping_steps": warping_steps,
        },
    )
    if warping_steps is not None and gnc_schedule is None:
        logger.warning("warping_steps=%d acts with gnc_schedule only", warping_steps)
    return FlowParameters(data_term=values.pop("const_assumption"), **values)
