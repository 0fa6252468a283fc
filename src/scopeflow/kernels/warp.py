"""Backward warp of one frame, its valid mask, and the cast of results to the output dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.config.specs import Interpolation
from scopeflow.errors import InputError, nearest_name
from scopeflow.kernels._jit import (
    disjoint,
    float32,
    inner,
    int64,
    kernel,
    nothing,
    pointer,
    readable,
    round_down,
    round_half_even,
    writable,
)
from scopeflow.kernels._scratch import scratch
from scopeflow.kernels.borders import pad_replicate, replicate_edges

INTERPOLATION_CODES: dict[str, int] = {"nearest": 0, "linear": 1, "cubic": 2}

# Border of the padded source: taps reach one pixel before and two after the clipped position.
_BEFORE, _AROUND = 1, 3

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_POSITION_STEPS = np.float32(32.0)  # per pixel, when positions are rounded as OpenCV 4 does
_A = np.float32(-0.75)  # parameter of the cubic convolution (Keys 1981)
_A2 = np.float32(-0.75 + 2)
_A3 = np.float32(-(-0.75 + 3))
_5A = np.float32(-5 * -0.75)
_8A = np.float32(8 * -0.75)
_4A = np.float32(-4 * -0.75)


@inner
def _cubic_row(n, fraction, w0, w1, w2, w3):
    """Weights of four neighbours for each fraction in ``[0, 1)``."""
    disjoint()
    for x in range(n):
        t = fraction[x]
        far, back = t + _ONE, _ONE - t
        a = ((_A * far + _5A) * far + _8A) * far + _4A
        b = (_A2 * t + _A3) * t * t + _ONE
        c = (_A2 * back + _A3) * back * back + _ONE
        w0[x] = a
        w1[x] = b
        w2[x] = c
        w3[x] = _ONE - a - b - c


@inner
def _positions_row(
    n, y, u, v, to_cols, to_rows, h, w, code, rounded, base_x, frac_x, base_y, frac_y, inside
):  # fmt: skip
    """Split positions of one row into whole pixels and fractions; ``inside`` is 1 or 0."""
    disjoint()
    last_x, last_y = w - _ONE, h - _ONE
    for x in range(n):
        px = np.float32(x) + u[x] * to_cols
        py = y + v[x] * to_rows
        # Written so that NaN is outside, and is clipped to 0 rather than used as an address.
        inside[x] = _ONE if (px >= _ZERO) & (px < w) & (py >= _ZERO) & (py < h) else _ZERO
        px = max(_ZERO, px)
        py = max(_ZERO, py)
        px = min(last_x, px)
        py = min(last_y, py)
        if rounded != 0:
            px = round_half_even(px * _POSITION_STEPS) / _POSITION_STEPS
            py = round_half_even(py * _POSITION_STEPS) / _POSITION_STEPS
        whole_x = round_half_even(px) if code == 0 else round_down(px)
        whole_y = round_half_even(py) if code == 0 else round_down(py)
        base_x[x] = whole_x
        base_y[x] = whole_y
        frac_x[x] = px - whole_x
        frac_y[x] = py - whole_y


@kernel(
    nothing,
    readable(3),  # padded: source planes (C, h + 3, w + 3), replicated edges, block at (1, 1)
    readable(3),  # flow: planes (2, h, w) or a larger block of which the interior is used
    int64,  # flow_top: rows above the used block of flow
    int64,  # flow_left: columns left of it
    float32,  # to_cols: level pixels per unit of u
    float32,  # to_rows: level pixels per unit of v
    readable(3),  # fill: planes (C, h, w), or with the border of out
    int64,  # code of the interpolation
    int64,  # rounded: 1 rounds positions to 1/32 px
    int64,  # top: rows of replicated edge above and below the result in out and fill
    int64,  # left: columns of replicated edge on either side
    writable(3),  # out: planes (C, h + 2 top, w + 2 left)
    writable(2),  # rows: scratch (13, w)
)
def _warp_planes(
    padded, flow, flow_top, flow_left, to_cols, to_rows, fill, code, rounded, top, left, out, rows
):  # fmt: skip
    channels = padded.shape[0]
    h, w = padded.shape[1] - _AROUND, padded.shape[2] - _AROUND
    stride = padded.shape[2]
    flow_rows, flow_cols = flow.shape[1], flow.shape[2]
    for y in range(h):
        start = (y + flow_top) * flow_cols + flow_left
        _positions_row(
            w,
            np.float32(y),
            pointer(flow, start),
            pointer(flow, start + flow_rows * flow_cols),
            to_cols,
            to_rows,
            np.float32(h),
            np.float32(w),
            code,
            rounded,
            pointer(rows, 0),
            pointer(rows, w),
            pointer(rows, 2 * w),
            pointer(rows, 3 * w),
            pointer(rows, 4 * w),
        )
        if code == 2:
            for axis in range(2):
                _cubic_row(
                    w,
                    pointer(rows, (1 + 2 * axis) * w),
                    pointer(rows, (5 + 4 * axis) * w),
                    pointer(rows, (6 + 4 * axis) * w),
                    pointer(rows, (7 + 4 * axis) * w),
                    pointer(rows, (8 + 4 * axis) * w),
                )
        for c in range(channels):
            source = pointer(padded, c * padded.shape[1] * stride)
            given = pointer(fill, (c * fill.shape[1] + y + top) * fill.shape[2] + left)
            target = pointer(out, (c * out.shape[1] + y + top) * out.shape[2] + left)
            for x in range(w):
                if rows[4, x] == _ZERO:
                    target[x] = given[x]
                    continue
                # One pixel above and left of the whole position, in the padded source.
                q = int(rows[2, x]) * stride + int(rows[0, x])
                if code == 2:
                    a0, a1, a2, a3 = rows[5, x], rows[6, x], rows[7, x], rows[8, x]
                    value = _ZERO
                    for k in range(4):
                        value += rows[9 + k, x] * (
                            (a0 * source[q] + a1 * source[q + 1])
                            + (a2 * source[q + 2] + a3 * source[q + 3])
                        )
                        q += stride
                    target[x] = value
                elif code == 1:
                    q += stride + 1
                    fx, fy = rows[1, x], rows[3, x]
                    upper = (_ONE - fx) * source[q] + fx * source[q + 1]
                    lower = (_ONE - fx) * source[q + stride] + fx * source[q + stride + 1]
                    target[x] = (_ONE - fy) * upper + fy * lower
                else:
                    target[x] = source[q + stride + 1]
    if top + left > 0:
        for c in range(channels):
            replicate_edges(out[c], top, left, h, w)


def warp_planes(
    planes: NDArray[np.float32],
    flow: NDArray[np.float32],
    fill: NDArray[np.float32],
    *,
    h_row: float = 1.0,
    h_col: float = 1.0,
    flow_border: tuple[int, int] = (0, 0),
    border: tuple[int, int] = (0, 0),
    interpolation: Interpolation = "cubic",
    round_positions: bool = False,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Warp channel planes; the form that the solver uses on its levels.

    Parameters
    ----------
    planes : numpy.ndarray
        ``(C, h, w)`` float32, the moving image.
    flow : numpy.ndarray
        ``(2, h + 2 flow_border[0], w + 2 flow_border[1])`` float32 planes of u and v in
        full-resolution pixels.
    fill : numpy.ndarray
        ``(C, h + 2 border[0], w + 2 border[1])`` float32, used where the position is outside.
    h_row, h_col : float
        Full-resolution pixels per pixel of `planes`.
    flow_border, border : tuple of int
        Rows and columns on either side of the used block of `flow`, and of `fill` and the result.
    interpolation : {"cubic", "linear", "nearest"}
        Interpolation.
    round_positions : bool
        Round positions to 1/32 px, for comparison with OpenCV 4 only.
    out : numpy.ndarray, optional
        Array of the shape of `fill`, written and returned.

    Returns
    -------
    numpy.ndarray
        Shape of `fill`, float32; the border repeats the edges.
    """
    channels, h, w = planes.shape
    padded = scratch("warp source", (channels, h + _AROUND, w + _AROUND))
    pad_replicate(planes, _BEFORE, _BEFORE, padded)
    if out is None:
        out = np.empty(fill.shape, np.float32)
    _warp_planes(
        padded,
        flow,
        *flow_border,
        np.float32(1.0 / h_col),
        np.float32(1.0 / h_row),
        fill,
        INTERPOLATION_CODES[interpolation],
        int(round_positions),
        *border,
        out,
        scratch("warp rows", (13, w)),
    )
    return out


def _planes(image: NDArray[Any]) -> NDArray[np.float32]:
    """``(H, W, C)`` of any dtype as C-contiguous float32 planes ``(C, H, W)``."""
    return np.require(np.moveaxis(image, -1, 0), np.float32, ["C", "A"])


def check_interpolation(interpolation: str) -> None:
    """Raise an `InputError` when the name of an interpolation is not known."""
    if interpolation not in INTERPOLATION_CODES:
        known = ", ".join(sorted(INTERPOLATION_CODES))
        raise InputError(
            f"Interpolation '{interpolation}' is not known; use one of {known}."
            + nearest_name(interpolation, INTERPOLATION_CODES)
        )


def warp(
    moving: NDArray[Any],
    flow: NDArray[Any],
    fill: NDArray[Any],
    interpolation: Interpolation = "cubic",
    *,
    round_positions: bool = False,
) -> NDArray[np.float32]:
    """Resample a frame at displaced positions: ``out(y, x) = moving(y + v, x + u)``.

    Positions are exact float32. Cubic convolution uses ``a = -0.75`` on 4 × 4 pixels, nearest
    rounds half to even; borders are replicated. Where the position is left of the first or beyond
    the last pixel (``x < 0`` or ``x >= W``, rows alike), the value of `fill` is taken.

    Parameters
    ----------
    moving : numpy.ndarray
        ``(H, W, C)``, any real dtype; computed in float32, so integers above 2**24 are rounded.
    flow : numpy.ndarray
        ``(H, W, 2)`` displacement in pixels; non-finite values count as outside.
    fill : numpy.ndarray
        ``(H, W, C)`` values for positions outside, usually the reference.
    interpolation : {"cubic", "linear", "nearest"}
        Interpolation.
    round_positions : bool
        Round positions to 1/32 px as OpenCV 4 does. For tests of equivalence only.

    Returns
    -------
    numpy.ndarray
        ``(H, W, C)`` float32.

    Raises
    ------
    InputError
        When the shapes do not agree or the interpolation is not known.

    Examples
    --------
    >>> import numpy as np
    >>> frame = np.arange(12.0).reshape(3, 4, 1)
    >>> flow = np.zeros((3, 4, 2), np.float32)
    >>> flow[..., 0] = 1
    >>> warp(frame, flow, np.full_like(frame, -1))[0, :, 0].tolist()
    [1.0, 2.0, 3.0, -1.0]
    """
    moving, flow, fill = np.asarray(moving), np.asarray(flow), np.asarray(fill)
    check_interpolation(interpolation)
    if moving.ndim != 3 or fill.shape != moving.shape or flow.shape != (*moving.shape[:2], 2):
        raise InputError(
            f"A frame {moving.shape}, displacements {flow.shape} and fill values {fill.shape} were "
            "given; the shapes (H, W, C), (H, W, 2) and (H, W, C) are needed."
        )
    result = warp_planes(
        _planes(moving),
        _planes(flow),
        _planes(fill),
        interpolation=interpolation,
        round_positions=round_positions,
    )
    return np.ascontiguousarray(np.moveaxis(result, 0, -1))


def valid_mask(flow: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which registered pixels come from inside the moving frame.

    Parameters
    ----------
    flow : numpy.ndarray
        ``(H, W, 2)`` displacement in pixels, floating point.

    Returns
    -------
    numpy.ndarray
        ``(H, W)`` bool; False where a displacement is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> valid_mask(np.full((1, 3, 2), [1.0, 0.0], np.float32)).tolist()
    [[True, True, False]]
    """
    flow = np.asarray(flow)
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=flow.dtype)[None, :] + flow[..., 0]
    y = np.arange(height, dtype=flow.dtype)[:, None] + flow[..., 1]
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


def warp_mask(mask: NDArray[np.bool_], flow: NDArray[Any]) -> NDArray[np.bool_]:
    """Resample a mask to the nearest pixel; False where the position is outside.

    Parameters
    ----------
    mask : numpy.ndarray
        ``(H, W)`` bool.
    flow : numpy.ndarray
        ``(H, W, 2)`` displacement in pixels.

    Returns
    -------
    numpy.ndarray
        ``(H, W)`` bool.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.array([[True, False, True]])
    >>> warp_mask(mask, np.full((1, 3, 2), [1.0, 0.0], np.float32)).tolist()
    [[False, True, False]]
    """
    values = np.asarray(mask, bool)[..., None]
    moved = warp(values, flow, np.zeros(values.shape, np.float32), "nearest")
    return moved[..., 0] > 0.5


def cast_frames(values: NDArray[Any], dtype: Any) -> tuple[NDArray[Any], int]:
    """Convert computed values to the dtype of the recording without wrap-around.

    Integers are rounded half to even and clipped to the range of the dtype; bool is true above
    0.5; values too large for a floating dtype are clipped to its largest. NaN cannot be an integer
    and becomes 0; it is counted as clipped.

    Parameters
    ----------
    values : numpy.ndarray
        Floating point, any shape.
    dtype : dtype
        bool, any integer or any floating dtype.

    Returns
    -------
    array : numpy.ndarray
        Same shape, the given dtype.
    clipped : int
        Number of values that were outside the range of the dtype.

    Examples
    --------
    >>> import numpy as np
    >>> cast_frames(np.array([-3.0, 0.5, 1.5, 300.0]), np.uint8)
    (array([  0,   0,   2, 255], dtype=uint8), 2)
    """
    target = np.dtype(dtype)
    values = np.asarray(values)
    if target.kind == "b":
        return values > 0.5, 0
    if target.kind == "f":
        if target.itemsize >= values.dtype.itemsize:
            return values.astype(target, copy=False), 0
        limits = np.finfo(target)
        too_large = np.isfinite(values) & (np.abs(values) > float(limits.max))
        clipped = int(np.count_nonzero(too_large))
        if clipped:
            values = np.where(too_large, np.copysign(values.dtype.type(limits.max), values), values)
        return values.astype(target), clipped
    if target.kind not in "iu":
        raise InputError(
            f"Frames cannot be written as '{target}'; use bool, an integer or a floating dtype."
        )
    bounds = np.iinfo(target)
    rounded = np.rint(values)
    low, high = float(bounds.min), float(bounds.max)
    # Floats next to the largest 32- and 64-bit integers may round beyond them: compare as float64
    # and set the bound as an integer.
    too_low = rounded < low
    too_high = rounded > high if target.itemsize < 4 else rounded.astype(np.float64) > high
    undefined = np.isnan(rounded)
    at_top = rounded.astype(np.float64) >= high if target.itemsize >= 4 else too_high
    clipped = int(np.count_nonzero(too_low) + np.count_nonzero(too_high))
    clipped += int(np.count_nonzero(undefined))
    inside = np.where(too_low | at_top | undefined, 0, rounded)
    result = inside.astype(target)
    result[too_low] = bounds.min
    result[at_top] = bounds.max
    return result, clipped
