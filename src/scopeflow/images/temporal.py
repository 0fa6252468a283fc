"""The temporal filter: a frame as the weighted mean of its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.gateway import inner, kernel, nothing, readable, writable
from scopeflow.compiled.intrinsics import disjoint, pointer
from scopeflow.errors import InputError
from scopeflow.images.borders import as_planes
from scopeflow.images.filters import Sigma, gaussian_radius, gaussian_weights, sigma_rows


def temporal_radius(sigma: Sigma) -> int:
    """Frames needed before and after a frame by the temporal filter.

    `sigma`: ``(3,)`` or rows ``(sigma_x, sigma_y, sigma_t)``.
    Returns: largest radius of all rows; 0 means no temporal filter.

    Examples
    --------
    >>> temporal_radius((1, 1, 0.1)), temporal_radius((1, 1, 0.5))
    (0, 2)
    """
    return max(gaussian_radius(row[2]) for row in np.atleast_2d(np.asarray(sigma, float)))


def temporal_weights(sigma_t: float) -> NDArray[np.float64]:
    """Weights of neighbouring frames.

    Returns: ``(2 radius + 1,)`` float64, sum 1.

    Examples
    --------
    >>> temporal_weights(0.5).size
    5
    """
    return gaussian_weights(sigma_t)


def temporal_weight_table(sigma: Sigma, channels: int) -> NDArray[np.float64]:
    """Weights of neighbouring frames for each channel, all of the same length.

    `sigma`: ``(3,)`` or rows ``(sigma_x, sigma_y, sigma_t)``.
    Returns: ``(2 temporal_radius + 1, channels)`` float64, columns sum to 1.

    Examples
    --------
    >>> temporal_weight_table([(1, 1, 0.5), (1, 1, 0)], 2)[:, 1].tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    rows = sigma_rows(sigma, channels)
    radius = temporal_radius(sigma)
    table = np.zeros((2 * radius + 1, channels))
    for c, row in enumerate(rows):
        weights = gaussian_weights(row[2])
        reach = weights.size // 2
        table[radius - reach : radius + reach + 1, c] = weights
    return table


@inner
def _add_row(n, out, frame, weight):
    disjoint()
    for x in range(n):
        out[x] += weight * frame[x]


@kernel(nothing, readable(3), readable(1), writable(3))
def _add_weighted(frame, weights, out):
    """Add the planes of a frame, each times its weight."""
    planes, h, w = out.shape
    for c in range(planes):
        _add_row(h * w, pointer(out, c * h * w), pointer(frame, c * h * w), weights[c])


def filter_in_time(frames: Sequence[NDArray[Any]], weights: NDArray[Any]) -> NDArray[np.float32]:
    """Weighted mean of neighbouring frames: the temporal filter at the centre frame.

    `frames`: ``(H, W, C)`` each, already mirrored at the ends of the recording by the caller.
    `weights`: ``(n,)`` or ``(n, C)``, see `temporal_weights` and `temporal_weight_table`.
    Returns: ``(H, W, C)`` float32, one plane after the other in memory.
    Raises InputError: when frames differ in shape, or there is not one weight for each frame.

    Examples
    --------
    >>> import numpy as np
    >>> filter_in_time(np.ones((5, 4, 4, 1), np.float32), temporal_weights(0.5)).shape
    (4, 4, 1)
    """
    weights = np.asarray(weights, np.float32)
    shapes = {np.shape(frame) for frame in frames}
    if (
        [len(shape) for shape in shapes] != [3]
        or weights.ndim not in (1, 2)
        or len(weights) != len(frames)
    ):
        raise InputError(
            f"{len(frames)} frames of shape {sorted(shapes)} and weights of shape {weights.shape} "
            "were given; frames of one shape (H, W, C) and one weight for each, (n,) or (n, C), "
            "are needed."
        )
    height, width, channels = shapes.pop()
    rows = np.broadcast_to(weights.reshape(len(weights), -1), (len(weights), channels))
    out = np.zeros((channels, height, width), np.float32)
    for frame, row in zip(frames, np.ascontiguousarray(rows), strict=True):
        if row.any():
            _add_weighted(as_planes(frame), row, out)
    return np.moveaxis(out, 0, -1)
