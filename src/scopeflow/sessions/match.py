"""How averages of recordings match: displacement between two of them, and how far to trust it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from scopeflow.errors import InputError
from scopeflow.flow.flow import get_displacement
from scopeflow.flow.parameters import DataTerm
from scopeflow.images.warp import valid_mask, warp
from scopeflow.images.xcorr import rigid_shift

_CORRELATED_SHAPE = (256, 256)
_FINE_SIGMA = 1.0  # pixels: noise below this size does not count as structure
_LEAST_BACKGROUND_SIGMA = 4.0
_BACKGROUND_SHARE = 1 / 16  # of the shorter side
_LEAST_OVERLAP = 0.2  # of each side, for rigid shifts
_NO_CORRELATION = -2.0  # below every correlation


@dataclass(frozen=True)
class BetweenParameters:
    """How the displacement between two averages is found; widths in pixels."""

    cc_upsample: int = 4  # rigid shifts to 1 / cc_upsample pixel of images of at most 256 × 256 px
    sigma: float = 6.0  # Gaussian width before the flow
    sigma_refine: float | None = 1.0  # before a second flow that refines the first; None: without
    alpha: float = 25.0  # smoothness weight of the flow
    iterations: int = 100  # on each level
    data_term: DataTerm = "gc"
    # f(fixed, moving, *, alpha, iterations, const_assumption) -> (H, W, 2), else our solver
    flow_function: Callable[..., NDArray[Any]] | None = None


@dataclass(frozen=True)
class Match:
    """Displacement of one average against the reference, and numbers that say how good it is.

    `displacement`: ``(H, W, 2)`` float64, ``moving(y + v, x + u)`` shows what ``reference(y, x)``
        shows; pixels.
    `similarity_before`, `similarity_after`: correlation with the reference without the slow
        background; NaN without contrast.
    `loop_error`: mean distance by which the way there and back misses its start, pixels; NaN
        without overlap.
    `overlap`: share of the reference's pixels that lie inside the moving average.
    """

    displacement: NDArray[np.float64]
    similarity_before: float
    similarity_after: float
    loop_error: float
    overlap: float


def _smoothed(image: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian filter of each channel by itself."""
    return np.asarray(gaussian_filter(image, (sigma, sigma, 0), mode="reflect"))


def detail(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return what is finer than the illumination and coarser than the noise.

    A difference of two Gaussians of an average ``(H, W, C)``, each channel by itself, float64.
    """
    values = np.asarray(image, np.float64)
    background = max(_LEAST_BACKGROUND_SIGMA, min(values.shape[:2]) * _BACKGROUND_SHARE)
    return _smoothed(values, _FINE_SIGMA) - _smoothed(values, background)


def correlation(first: NDArray[Any], second: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """Return the Pearson correlation of two images ``(H, W, C)``, mean over channels.

    Only pixels of the mask ``(H, W)`` count. NaN where no channel has contrast in both.

    Examples
    --------
    >>> image = np.random.default_rng(0).random((8, 9, 2))
    >>> round(correlation(image, 1 - 2 * image, np.ones((8, 9), bool)), 6)
    -1.0
    """
    found = []
    for channel in range(first.shape[2]):
        a = first[..., channel][valid].astype(np.float64)
        b = second[..., channel][valid].astype(np.float64)
        if a.size < 2:
            continue
        a, b = a - a.mean(), b - b.mean()
        # Not as matrix products: the order of their sums depends on the threads of the machine.
        scale = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
        if scale > 0:
            found.append(float(np.sum(a * b)) / scale)
    return float(np.mean(found)) if found else float("nan")


def _overlap(shape: tuple[int, int], dx: int, dy: int) -> tuple[Any, Any]:
    """Return the slices of reference and moving image that show the same, for a whole shift."""
    height, width = shape
    ours = slice(max(0, -dy), min(height, height - dy)), slice(max(0, -dx), min(width, width - dx))
    theirs = (
        slice(ours[0].start + dy, ours[0].stop + dy),
        slice(ours[1].start + dx, ours[1].stop + dx),
    )
    return ours, theirs


def _shifted_correlation(
    reference: NDArray[np.float64], moving: NDArray[np.float64], dx: float, dy: float
) -> float:
    shape = reference.shape[:2]
    whole = round(dx), round(dy)
    if abs(whole[0]) > (1 - _LEAST_OVERLAP) * shape[1]:
        return _NO_CORRELATION
    if abs(whole[1]) > (1 - _LEAST_OVERLAP) * shape[0]:
        return _NO_CORRELATION
    ours, theirs = _overlap((shape[0], shape[1]), *whole)
    a, b = reference[ours], moving[theirs]
    value = correlation(a, b, np.ones(a.shape[:2], bool))
    return value if np.isfinite(value) else _NO_CORRELATION


def rigid_between(
    reference: NDArray[np.float64], moving: NDArray[np.float64], upsample_factor: int
) -> tuple[float, float]:
    """Find the rigid shift between two averages, also where it is a large part of the frame.

    Phase correlation (`scopeflow.images.xcorr.rigid_shift`) of the images and of their detail
    gives first shifts. Its window favours the middle of the frame, so each is found again on the
    part that both images show. Of all shifts, none included, the one with the highest correlation
    of what overlaps is taken.

    Each channel ``(H, W, C)`` is scaled to the range of the reference. Shifts ``(dx, dy)`` of the
    moving image's content, pixels, are found to ``1 / upsample_factor`` of a correlated pixel.

    Examples
    --------
    >>> image = gaussian_filter(np.random.default_rng(0).random((90, 110, 1)), (2, 2, 0))
    >>> rigid_between(image[10:74, 10:90], image[24:88, 2:82], 1)
    (8.0, -14.0)
    """
    shape = reference.shape[:2]
    fine = detail(reference), detail(moving)
    found = [(0.0, 0.0)]
    for a, b in ((reference, moving), fine):
        dx, dy = (float(d) for d in rigid_shift(a, b, _CORRELATED_SHAPE, upsample_factor))
        found.append((dx, dy))
        whole = round(dx), round(dy)
        if whole == (0, 0):
            continue
        ours, theirs = _overlap((shape[0], shape[1]), *whole)
        if min(a[ours].shape[:2]) < max(16, _LEAST_OVERLAP * min(shape)):
            continue
        rest = rigid_shift(a[ours], b[theirs], _CORRELATED_SHAPE, upsample_factor)
        found.append((whole[0] + float(rest[0]), whole[1] + float(rest[1])))
    # Whole-pixel correlation cannot tell shifts apart that round alike: the later one, found on
    # the common part, wins a tie.
    scores = [_shifted_correlation(*fine, dx, dy) for dx, dy in found]
    best = max(range(len(found)), key=lambda n: (round(scores[n], 6), n))
    return found[best]


def _scaled(
    reference: NDArray[Any], moving: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale each channel of both images to the range that it has in the reference."""
    low = reference.min(axis=(0, 1))
    span = reference.max(axis=(0, 1)) - low
    span = np.where(span > 0, span, 1.0)
    return (reference - low) / span, (moving - low) / span


def displacement_between(
    reference: NDArray[Any], moving: NDArray[Any], parameters: BetweenParameters
) -> NDArray[np.float64]:
    """Find the displacement of one average against another: rigid shift, then optical flow.

    The first flow sees smoothed images, which makes it robust; what is finer than the smoothing
    stays out of it, so a second flow of less smoothed images starts from there. For the reference
    see :func:`scopeflow.run_stage2`.

    Averages are ``(H, W, C)``; the displacement is ``(H, W, 2)``, float64, in pixels, and zero for
    averages without contrast.

    Raises InputError: if shapes differ, values are not finite, or the solver returns something else
        than a displacement.

    Examples
    --------
    >>> image = gaussian_filter(np.random.default_rng(0).random((70, 70, 1)), (2, 2, 0))
    >>> w = displacement_between(image[3:67, 3:67], image[1:65, 6:70], BetweenParameters(sigma=1))
    >>> np.median(w, axis=(0, 1)).round(1).tolist()
    [-3.0, 2.0]
    """
    if reference.shape != moving.shape or reference.ndim != 3:
        raise InputError(
            f"averages of shape {reference.shape} and {moving.shape} cannot be aligned; both need "
            "the same shape (H, W, C)"
        )
    if not (np.isfinite(reference).all() and np.isfinite(moving).all()):
        raise InputError("an average holds NaN or infinite values; run stage 1 again")
    reference, moving = np.asarray(reference, np.float64), np.asarray(moving, np.float64)
    shift = rigid_between(*_scaled(reference, moving), parameters.cc_upsample)
    total = np.broadcast_to(np.array(shift), (*reference.shape[:2], 2))
    for sigma in (parameters.sigma, parameters.sigma_refine):
        if sigma is not None:
            residual = _residual(reference, moving, total, sigma, parameters)
            # The residual is of the image that `total` has moved: its end is where that begins.
            start = total.astype(np.float32)
            total = residual + warp(start, residual.astype(np.float32), start, "linear")
    return total


def _residual(
    reference: NDArray[np.float64],
    moving: NDArray[np.float64],
    start: NDArray[np.float64],
    sigma: float,
    parameters: BetweenParameters,
) -> NDArray[np.float64]:
    """Return the flow of smoothed averages that remains after a displacement."""
    if sigma > 0:
        reference, moving = _smoothed(reference, sigma), _smoothed(moving, sigma)
    first, second = _scaled(reference, moving)
    aligned = warp(second, start.astype(np.float32), first)
    function = parameters.flow_function or get_displacement
    residual = np.asarray(
        function(
            first,
            np.asarray(aligned, np.float64),
            alpha=(parameters.alpha, parameters.alpha),
            iterations=parameters.iterations,
            const_assumption=parameters.data_term,
        ),
        np.float64,
    )
    if residual.shape != (*first.shape[:2], 2) or not np.isfinite(residual).all():
        raise InputError(
            f"the flow backend returned shape {residual.shape}, needed are finite displacements of "
            f"shape {(*first.shape[:2], 2)}"
        )
    return residual


def match(reference: NDArray[Any], moving: NDArray[Any], parameters: BetweenParameters) -> Match:
    """Find the displacement of one average against the reference and measure how good it is."""
    forward = displacement_between(reference, moving, parameters)
    return assess(reference, moving, forward, displacement_between(moving, reference, parameters))


def assess(
    reference: NDArray[Any],
    moving: NDArray[Any],
    forward: NDArray[np.float64],
    backward: NDArray[np.float64],
) -> Match:
    """Measure how good a displacement ``(H, W, 2)`` between two averages ``(H, W, C)`` is.

    `forward` is that of `moving` against `reference`, `backward` the other way round, float64.
    """
    height, width = reference.shape[:2]
    everywhere = np.ones((height, width), bool)
    fine = detail(reference), detail(moving)
    inside = valid_mask(forward)
    warped = warp(fine[1], forward.astype(np.float32), fine[0], "linear")
    nowhere = np.full((height, width, 2), np.nan, np.float32)
    way_back = warp(backward, forward.astype(np.float32), nowhere, "linear")
    loop = np.hypot(*np.moveaxis(forward + way_back, -1, 0))
    loop = loop[np.isfinite(loop)]
    return Match(
        forward,
        correlation(*fine, everywhere),
        correlation(fine[0], warped, inside),
        float(loop.mean()) if loop.size else float("nan"),
        float(inside.mean()),
    )


def pair_similarity(first: NDArray[Any], second: NDArray[Any], upsample_factor: int) -> float:
    """Return how similar two averages are after a rigid shift: in content and in extent.

    The correlation of their detail where they overlap, times the share of the frame that overlaps:
    -1 to 1, 0 without contrast. For `upsample_factor` see :func:`rigid_between`.

    Examples
    --------
    >>> image = np.random.default_rng(0).random((40, 50, 1))
    >>> round(pair_similarity(image, image, 1), 6)
    1.0
    """
    scaled = _scaled(np.asarray(first, np.float64), np.asarray(second, np.float64))
    dx, dy = rigid_between(*scaled, upsample_factor)
    value = _shifted_correlation(detail(scaled[0]), detail(scaled[1]), dx, dy)
    if value <= _NO_CORRELATION:
        return 0.0
    height, width = first.shape[:2]
    return value * (1 - abs(round(dx)) / width) * (1 - abs(round(dy)) / height)
