"""Motion of a whole field of view from one frame to the next: pixels in, displacements out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from scopeflow.flow.flow import get_displacement
from scopeflow.images.xcorr import rigid_shift

__all__ = ["displacement", "moved_labels", "region_offsets"]

_SHIFT_SIDE = 512
_UPSAMPLING = 10
_FLOW_SIDE = 256
_SMOOTHING = 1.5
_ETA = 0.8


def displacement(
    previous: NDArray[Any], current: NDArray[Any], mode: str = "rigid"
) -> NDArray[np.float64]:
    """Return where the content of a frame has moved since the one before.

    ``rigid`` is one shift by phase correlation, ``(2,)``; ``flow`` a variational optical flow that
    starts from it, ``(H, W, 2)``. Both are ``dx, dy`` in pixels: `current` at ``(y + dy, x + dx)``
    shows what `previous` shows at ``(y, x)``.

    Examples
    --------
    >>> frame = np.random.default_rng(0).random((64, 96))
    >>> displacement(frame, np.roll(frame, (3, -5), (0, 1))).tolist()
    [-5.0, 3.0]
    """
    dx, dy = rigid_shift(
        previous[..., None], current[..., None], (_SHIFT_SIDE, _SHIFT_SIDE), _UPSAMPLING
    )
    shift = np.array([dx, dy], np.float64)
    if mode == "rigid":
        return np.round(shift, 3)
    low, high = np.percentile(previous, (1, 99))
    fixed, moving = (
        gaussian_filter((np.asarray(one, np.float64) - low) / max(high - low, 1e-9), _SMOOTHING)
        for one in (previous, current)
    )
    start = np.broadcast_to(shift, (*fixed.shape, 2)).copy()
    # Cells are larger than pixels: the finest levels would cost most and tell nothing more.
    finest = int(max(0.0, np.ceil(np.log(max(fixed.shape) / _FLOW_SIDE) / -np.log(_ETA))))
    return get_displacement(
        fixed, moving, alpha=(3, 3), iterations=40, min_level=finest, eta=_ETA, uv=start
    )


def region_offsets(
    labels: NDArray[np.integer], table: NDArray[np.int64], moved: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return by how much regions of a frame have moved since the frame before.

    `moved` is that of :func:`displacement`, `table` a
    :func:`~scopeflow.cells.methods.tracking.region_table`; the result has ``dy, dx`` in its order:
    the mean where the region came from.

    Examples
    --------
    >>> labels = np.array([[1, 1], [0, 2]])
    >>> table = np.array([[1, 2, 0, 0, 1, 2], [2, 1, 1, 1, 2, 2]])
    >>> region_offsets(labels, table, np.array([2.0, -1.0])).tolist()
    [[-1.0, 2.0], [-1.0, 2.0]]
    """
    if moved.ndim == 1:
        return np.repeat(moved[None, ::-1], len(table), axis=0)
    seen = moved_labels(labels, moved)
    size = int(max(table[:, 0].max(initial=0), seen.max(initial=0))) + 1
    pixels = np.bincount(seen.ravel(), minlength=size)
    sums = np.stack(
        [np.bincount(seen.ravel(), moved[..., n].ravel(), size) for n in (1, 0)], axis=1
    )
    offsets = sums[table[:, 0]] / np.maximum(pixels[table[:, 0], None], 1)
    # A region that nothing of the frame before leads to came in over the edge.
    lost = pixels[table[:, 0]] == 0
    offsets[lost] = np.median(moved.reshape(-1, 2), axis=0)[::-1]
    return np.asarray(offsets, np.float64)


def moved_labels(labels: NDArray[Any], moved: NDArray[np.float64]) -> NDArray[Any]:
    """Return the labels of a frame where they were in the frame before, 0 outside.

    Examples
    --------
    >>> moved_labels(np.array([[0, 0, 7]]), np.array([2.0, 0.0])).tolist()
    [[7, 0, 0]]
    """
    height, width = labels.shape
    y, x = np.mgrid[:height, :width]
    rows = np.rint(y + moved[..., 1]).astype(np.int64)
    columns = np.rint(x + moved[..., 0]).astype(np.int64)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return np.where(
        inside, labels[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)], 0
    ).astype(labels.dtype)
