"""Images as planes, and planes with a border: extra rows and columns around an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.gateway import float32, inner, int64, kernel, nothing, readable, writable


def as_planes(image: NDArray[Any]) -> NDArray[np.float32]:
    """Channels of an image one after the other, as the kernels want them.

    `image`: ``(H, W, C)``, any real dtype.
    Returns: ``(C, H, W)`` float32, C-contiguous and aligned; a view where the image lies so in
        memory.

    Examples
    --------
    >>> import numpy as np
    >>> as_planes(np.zeros((4, 5, 2))).shape
    (2, 4, 5)
    """
    return np.require(np.moveaxis(image, -1, 0), np.float32, ["C", "A"])


@inner
def replicate_edges(out, top, left, h, w):
    """Fill everything around the block ``out[top:top+h, left:left+w]`` from its edges."""
    rows, cols = out.shape
    for y in range(top, top + h):
        for x in range(left):
            out[y, x] = out[y, left]
        for x in range(left + w, cols):
            out[y, x] = out[y, left + w - 1]
    for y in range(top):
        for x in range(cols):
            out[y, x] = out[top, x]
    for y in range(top + h, rows):
        for x in range(cols):
            out[y, x] = out[top + h - 1, x]


@kernel(nothing, readable(3), int64, int64, writable(3))
def pad_replicate(planes, top, left, out):
    """Copy ``(C, h, w)`` into ``out`` at ``(top, left)`` and replicate the edges around it."""
    channels, h, w = planes.shape
    for c in range(channels):
        for y in range(h):
            for x in range(w):
                out[c, top + y, left + x] = planes[c, y, x]
        replicate_edges(out[c], top, left, h, w)


@kernel(nothing, writable(3), int64, int64)
def replicate_border(planes, top, left):
    """Fill the border of planes, ``top`` rows and ``left`` columns on each side, from the edges."""
    for c in range(planes.shape[0]):
        h, w = planes.shape[1] - 2 * top, planes.shape[2] - 2 * left
        replicate_edges(planes[c], top, left, h, w)


@kernel(nothing, writable(3), float32)
def fill_planes(planes, value):
    """Set all elements."""
    planes[:] = value


@kernel(nothing, readable(3), int64, writable(3))
def crop_rows(planes, rows, out):
    """Copy planes without their first and last rows."""
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                out[c, y, x] = planes[c, rows + y, x]


@kernel(nothing, readable(3), readable(3), int64, int64, writable(3))
def add_pixels(first, second, top, left, out):
    """Sum of two arrays of planes without their borders of ``top`` rows and ``left`` columns."""
    for c in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                out[c, y, x] = first[c, top + y, left + x] + second[c, top + y, left + x]
