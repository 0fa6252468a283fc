"""What happens to a frame before its flow is solved: normalisation and Gaussian filters."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.gateway import (
    float32,
    inner,
    int16,
    int64,
    kernel,
    nothing,
    readable,
    uint8,
    uint16,
    writable,
)
from scopeflow.compiled.intrinsics import disjoint, pointer
from scopeflow.compiled.scratch import scratch
from scopeflow.errors import InputError, OptionsError

_TRUNCATE = 4.0  # standard deviations, as scipy.ndimage.gaussian_filter
_EPSILON = 1e-8  # keeps a constant reference from dividing by zero
_EXACT_IN_FLOAT32 = frozenset(["bool", "int8", "uint8", "int16", "uint16", "float16", "float32"])

Sigma = Sequence[Sequence[float]] | Sequence[float] | NDArray[Any]


def intensity_range(
    reference: NDArray[Any], joint: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest intensity of the reference.

    `reference`: ``(H, W, C)`` raw reference.
    `joint`: one range for all channels, or one for each.
    Returns `lo, hi`: ``(C,)`` float64.
    Raises InputError: when the reference is not ``(H, W, C)`` or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> reference = np.array([[[0.0, 5.0], [1.0, 7.0]]])
    >>> [bound.tolist() for bound in intensity_range(reference, joint=False)]
    [[0.0, 5.0], [1.0, 7.0]]
    """
    reference = np.asarray(reference)
    if reference.ndim != 3:
        raise InputError(
            f"A reference of shape {reference.shape} was given; the shape (H, W, C) is needed."
        )
    lo = reference.min(axis=(0, 1)).astype(np.float64)
    hi = reference.max(axis=(0, 1)).astype(np.float64)
    if not (np.all(np.isfinite(lo)) and np.all(np.isfinite(hi))):
        raise InputError(
            "The reference holds NaN or infinite values; its intensity range is not defined. "
            "Replace or mask them first."
        )
    if joint:
        lo, hi = np.full_like(lo, lo.min()), np.full_like(hi, hi.max())
    return lo, hi


def _scale(lo: Any, hi: Any) -> Any:
    return 1.0 / (hi - lo + _EPSILON)


def normalize(values: NDArray[Any], lo: Any, hi: Any) -> NDArray[np.float32]:
    """Map intensities so that ``lo`` becomes 0 and ``hi`` becomes 1, without clipping.

    `values`: ``(..., C)``, any real dtype.
    `lo`, `hi`: range, one or one for each channel.
    Returns: float32 ``(values - lo) / (hi - lo + 1e-8)``.

    Examples
    --------
    >>> import numpy as np
    >>> normalize(np.array([[[2], [4]]], np.uint16), 2, 6).ravel().tolist()
    [0.0, 0.5]
    """
    values = np.asarray(values)
    lo, hi = np.asarray(lo, np.float64), np.asarray(hi, np.float64)
    scale = _scale(lo, hi)
    if values.dtype.name in _EXACT_IN_FLOAT32:
        shifted = np.subtract(values, lo.astype(np.float32), dtype=np.float32)
        return np.multiply(shifted, scale.astype(np.float32), out=shifted)
    # 32-bit integers and float64 would lose digits before the offset is gone.
    return ((values.astype(np.float64) - lo) * scale).astype(np.float32)


def gaussian_radius(sigma: float) -> int:
    """Half width of the Gaussian in samples; 0 means that the filter does nothing.

    Returns: ``int(4 sigma + 0.5)``, as scipy.

    Examples
    --------
    >>> gaussian_radius(1.0), gaussian_radius(0.1)
    (4, 0)
    """
    return int(_TRUNCATE * float(sigma) + 0.5)


def gaussian_weights(sigma: float) -> NDArray[np.float64]:
    """Normalised samples of a Gaussian, ``2 radius + 1`` of them.

    Parameters
    ----------
    sigma : float
        Standard deviation in samples.

    Returns
    -------
    numpy.ndarray
        float64, sum 1.

    Examples
    --------
    >>> gaussian_weights(0.1).tolist()
    [1.0]
    """
    radius = gaussian_radius(sigma)
    if radius == 0:
        return np.ones(1)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / float(sigma)) ** 2)
    return weights / weights.sum()


def sigma_rows(sigma: Sigma, channels: int) -> NDArray[np.float64]:
    """One row ``(sigma_x, sigma_y, sigma_t)`` for each channel.

    Parameters
    ----------
    sigma : array_like
        ``(3,)`` or ``(n, 3)``; channel ``c`` takes row ``min(c, n - 1)``.
    channels : int
        Number of channels.

    Returns
    -------
    numpy.ndarray
        ``(channels, 3)`` float64.

    Raises
    ------
    OptionsError
        When the shape differs, or values are negative or not finite.

    Examples
    --------
    >>> sigma_rows((1, 2, 0.1), 2).tolist()
    [[1.0, 2.0, 0.1], [1.0, 2.0, 0.1]]
    """
    rows = np.atleast_2d(np.asarray(sigma, np.float64))
    if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] != 3:
        raise OptionsError(
            f"sigma of shape {np.shape(sigma)} was given; rows (sigma_x, sigma_y, sigma_t) are "
            "needed, one or one for each channel."
        )
    if not np.all(np.isfinite(rows)) or np.any(rows < 0):
        raise OptionsError("sigma must be finite and not negative.")
    return rows[np.minimum(np.arange(channels), len(rows) - 1)]


@functools.lru_cache(maxsize=64)
def _rows_of_tuple(sigma: Sigma, channels: int) -> NDArray[np.float64]:
    rows = sigma_rows(sigma, channels)
    rows.flags.writeable = False
    return rows


# --------------------------------------------------------------------------------------- spatial


@inner
def _normalize_row(n, values, step, low, scale, out):
    disjoint()
    for x in range(n):
        out[x] = (np.float32(values[x * step]) - low) * scale


@inner
def _normalize_plane(frame, c, low, scale, out):
    """Normalise a channel in one pass; numpy takes three and copies every value to begin with."""
    h, w, channels = frame.shape
    for y in range(h):
        if channels == 1:  # a constant step: the loop is vectorised
            _normalize_row(w, pointer(frame, y * w), 1, low, scale, pointer(out, y * w))
        else:
            _normalize_row(
                w, pointer(frame, y * w * channels + c), channels, low, scale, pointer(out, y * w)
            )


@kernel(nothing, readable(3, uint8), int64, float32, float32, writable(2))
def _normalize_uint8(frame, c, low, scale, out):
    _normalize_plane(frame, c, low, scale, out)


@kernel(nothing, readable(3, uint16), int64, float32, float32, writable(2))
def _normalize_uint16(frame, c, low, scale, out):
    _normalize_plane(frame, c, low, scale, out)


@kernel(nothing, readable(3, int16), int64, float32, float32, writable(2))
def _normalize_int16(frame, c, low, scale, out):
    _normalize_plane(frame, c, low, scale, out)


@kernel(nothing, readable(3), int64, float32, float32, writable(2))
def _normalize_float32(frame, c, low, scale, out):
    _normalize_plane(frame, c, low, scale, out)


_NORMALIZE = {
    np.dtype(np.uint8): _normalize_uint8,
    np.dtype(np.uint16): _normalize_uint16,
    np.dtype(np.int16): _normalize_int16,
    np.dtype(np.float32): _normalize_float32,
}
"""Compiled normalisation of the usual camera dtypes; others go through `normalize`."""


@inner
def _scale_row(n, out, source, weight):
    disjoint()
    for x in range(n):
        out[x] = weight * source[x]


@inner
def _add_pair(n, out, before, after, weight):
    disjoint()
    for x in range(n):
        out[x] += weight * (before[x] + after[x])


@inner
def _reflect(i, n):
    """Index reflected at the outer edges of the end pixels (``scipy.ndimage`` mode "reflect")."""
    while i < 0 or i >= n:
        i = -1 - i if i < 0 else 2 * n - 1 - i
    return i


@kernel(nothing, writable(2), readable(1), readable(1), writable(2), writable(1))
def _gaussian_plane(plane, along_rows, along_cols, out, line):
    """Filter a plane; the weights are the upper halves, ``line`` is scratch with both margins."""
    h, w = plane.shape
    reach_y, reach_x = along_rows.size - 1, along_cols.size - 1
    for y in range(h):
        middle = pointer(line, reach_x)
        _scale_row(w, middle, pointer(plane, y * w), along_rows[0])
        for k in range(1, reach_y + 1):
            _add_pair(
                w,
                middle,
                pointer(plane, _reflect(y - k, h) * w),
                pointer(plane, _reflect(y + k, h) * w),
                along_rows[k],
            )
        for k in range(reach_x):
            line[reach_x - 1 - k] = line[reach_x + _reflect(-1 - k, w)]
            line[reach_x + w + k] = line[reach_x + _reflect(w + k, w)]
        target = pointer(out, y * w)
        _scale_row(w, target, middle, along_cols[0])
        for k in range(1, reach_x + 1):
            _add_pair(
                w, target, pointer(line, reach_x - k), pointer(line, reach_x + k), along_cols[k]
            )


def gaussian_filter(frame: NDArray[Any], sigma: Sigma) -> NDArray[np.float32]:
    """Spatial Gaussian filter of each channel.

    `frame`: ``(H, W, C)`` real numbers.
    `sigma`: rows ``(sigma_x, sigma_y, sigma_t)``: columns, rows, and frames (not used here).
    Returns: ``(H, W, C)`` float32, borders reflected at the pixel edges, cut at four sigma.

    Examples
    --------
    >>> import numpy as np
    >>> gaussian_filter(np.ones((16, 16, 1)), (1, 1, 0)).shape
    (16, 16, 1)
    """
    frame = np.asarray(frame)
    channels = frame.shape[2]
    planes = [np.require(frame[..., c], np.float32, ["C", "A"]) for c in range(channels)]
    return _filtered_planes(planes, sigma)


@functools.lru_cache(maxsize=64)
def _half_weights(sigma: float) -> NDArray[np.float32]:
    """Weights of a Gaussian from its middle on; the same for every frame."""
    weights = gaussian_weights(sigma)
    half = weights[weights.size // 2 :].astype(np.float32)
    half.flags.writeable = False
    return half


def _filtered_planes(planes: list[NDArray[np.float32]], sigma: Sigma) -> NDArray[np.float32]:
    """Filter planes; the result is ``(H, W, C)`` with one plane after the other in memory.

    That is how the solver wants them: nothing has to be copied on the way.
    """
    height, width = planes[0].shape
    out = np.empty((len(planes), height, width), np.float32)
    # A tuple, as in the options, is looked at only once.
    rows_of: Any = _rows_of_tuple if isinstance(sigma, tuple) else sigma_rows
    for plane, target, (sigma_x, sigma_y, _) in zip(
        planes, out, rows_of(sigma, len(planes)).tolist(), strict=True
    ):
        rows, cols = _half_weights(sigma_y), _half_weights(sigma_x)
        if rows.size == cols.size == 1:
            target[:] = plane
            continue
        line = scratch("gaussian line", (width + 2 * cols.size - 1,))
        _gaussian_plane(plane, rows, cols, target, line)
    return np.moveaxis(out, 0, -1)


def preprocess_frame(frame: NDArray[Any], lo: Any, hi: Any, sigma: Sigma) -> NDArray[np.float32]:
    """Normalise one frame by the range of the reference and filter it in space.

    `frame`: ``(H, W, C)``, any real dtype.
    `lo`, `hi`: range of the reference, one or one for each channel, see `intensity_range`.
    `sigma`: rows ``(sigma_x, sigma_y, sigma_t)`` in pixels, pixels and frames.
    Returns: ``(H, W, C)`` float32.

    Examples
    --------
    >>> import numpy as np
    >>> frame = np.full((16, 16, 1), 30, np.uint8)
    >>> round(float(preprocess_frame(frame, 10, 50, (1, 1, 0.1)).max()), 6)
    0.5
    """
    frame = np.asarray(frame)
    channels = frame.shape[2]
    low, high = np.broadcast_to(lo, (channels,)).tolist(), np.broadcast_to(hi, (channels,)).tolist()
    compiled = _NORMALIZE.get(frame.dtype) if frame.flags.c_contiguous else None
    if compiled is None:
        planes = [normalize(frame[..., c], low[c], high[c]) for c in range(channels)]
    else:
        planes = list(scratch("normalized", (channels, *frame.shape[:2])))
        for c, plane in enumerate(planes):
            compiled(frame, c, np.float32(low[c]), np.float32(_scale(low[c], high[c])), plane)
    return _filtered_planes(planes, sigma)
