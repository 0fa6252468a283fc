"""Resampling of images and flow between pyramid levels and to full resolution."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.gateway import inner, int64, kernel, nothing, readable, writable
from scopeflow.compiled.intrinsics import pointer
from scopeflow.compiled.scratch import scratch
from scopeflow.compiled.simd import (
    LANES,
    WIDE,
    load,
    load_wide,
    store,
    store_wide,
    transpose_tile,
)
from scopeflow.errors import InputError
from scopeflow.images.borders import pad_replicate, replicate_edges

_SIGMA = 0.6  # Gaussian of the pre-filter in output pixels
_CUBIC = -0.75  # parameter of the cubic convolution


@dataclass(frozen=True)
class AxisTable:
    """Which input elements, with which weights, make each output element along one axis.

    Attributes
    ----------
    index : numpy.ndarray
        ``(n_out, taps)`` int64, inside the input, an even number of taps.
    weight : numpy.ndarray
        ``(n_out, taps)`` float32, rows sum to 1.
    """

    index: NDArray[np.int64]
    weight: NDArray[np.float32]


def cubic_weight(distance: NDArray[Any]) -> NDArray[np.float64]:
    """Cubic convolution weight with ``a = -0.75`` (Keys 1981) at a distance in samples."""
    x = np.abs(distance)
    near = (_CUBIC + 2) * x**3 - (_CUBIC + 3) * x**2 + 1
    far = _CUBIC * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _frozen(index: NDArray[Any], weight: NDArray[Any]) -> AxisTable:
    table = AxisTable(
        np.ascontiguousarray(index, np.int64), np.ascontiguousarray(weight, np.float32)
    )
    table.index.flags.writeable = False
    table.weight.flags.writeable = False
    return table


@functools.lru_cache(maxsize=512)
def pyramid_table(n_in: int, n_out: int, sigma: float) -> AxisTable:
    """Table of the fused Gaussian and cubic kernel between pyramid levels.

    `sigma`: Gaussian in input samples, 0 for none.

    Notes
    -----
    The taps start at ``floor(c - 2) - R`` for a centre ``c``, which leaves out the last one for
    fractional centres. This is kept on purpose: correcting it gives 2-5 % more endpoint error.
    """
    scale = n_out / n_in
    radius = math.ceil(2 * sigma) if sigma > 0 else 0
    if sigma > 0:
        gauss = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
        gauss = gauss / gauss.sum(dtype=np.float32)
    else:
        gauss = np.ones(1, np.float32)
    centre = (np.arange(n_out) + 0.5) / scale - 0.5
    first = np.floor(centre - 2).astype(np.int64) - radius
    taps = first[:, None] + np.arange(2 * radius + 4)[None]
    weight = np.zeros(taps.shape)
    for k in range(-radius, radius + 1):
        weight += float(gauss[k + radius]) * cubic_weight(centre[:, None] - taps - k)
    total = weight.sum(axis=1, keepdims=True)
    weight = (weight.astype(np.float32) * (1.0 / total)).astype(np.float32)
    folded = np.mod(taps, 2 * n_in)
    return _frozen(np.where(folded >= n_in, 2 * n_in - 1 - folded, folded), weight)


@functools.lru_cache(maxsize=64)
def cubic_table(n_in: int, n_out: int) -> AxisTable:
    """Table of plain cubic interpolation with four taps and replicated ends."""
    centre = ((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5).astype(np.float32)
    base = np.floor(centre)
    fraction = (centre - base).astype(np.float64)
    offsets = np.arange(-1, 3)
    weight = cubic_weight(fraction[:, None] - offsets[None])
    weight[:, 3] = 1.0 - weight[:, :3].sum(axis=1)
    index = np.clip(base.astype(np.int64)[:, None] + offsets[None], 0, n_in - 1)
    return _frozen(index, weight)


def full_resolution_tables(
    shape_in: tuple[int, int], shape_out: tuple[int, int]
) -> tuple[AxisTable, AxisTable] | None:
    """Tables of `cubic_table` for both axes, None when the sizes are equal.

    Parameters
    ----------
    shape_in, shape_out : tuple of int
        Rows and columns.

    Returns
    -------
    tuple of AxisTable or None
        ``(rows, columns)``.
    """
    if tuple(shape_in) == tuple(shape_out):
        return None
    return cubic_table(shape_in[0], shape_out[0]), cubic_table(shape_in[1], shape_out[1])


def pyramid_tables(
    shape_in: tuple[int, int], shape_out: tuple[int, int]
) -> tuple[AxisTable, AxisTable] | None:
    """Tables for both axes between two pyramid sizes, None when the sizes are equal.

    Parameters
    ----------
    shape_in, shape_out : tuple of int
        Rows and columns.

    Returns
    -------
    tuple of AxisTable or None
        ``(rows, columns)``; both use the Gaussian of the more reduced axis.
    """
    if tuple(shape_in) == tuple(shape_out):
        return None
    scale = min(shape_out[0] / shape_in[0], shape_out[1] / shape_in[1])
    sigma = _SIGMA / scale if scale < 1 else 0.0
    return (
        pyramid_table(shape_in[0], shape_out[0], sigma),
        pyramid_table(shape_in[1], shape_out[1], sigma),
    )


@inner
def _combine_rows(source, n, index, weight, out, stride):
    """``out[i] = sum_p weight[i, p] * source[index[i, p]]`` for rows of ``n`` elements.

    Sums stay in registers over all taps, several vectors at a time. What is left of a row is one
    more vector that ends with it, so nothing is read beyond the source.
    """
    block = WIDE * LANES
    taps = index.shape[1]
    for i in range(index.shape[0]):
        target = i * stride
        x = 0
        while x + block <= n:
            total = weight[i, 0] * load_wide(source, index[i, 0] * n + x, LANES)
            for p in range(1, taps):
                total = total + weight[i, p] * load_wide(source, index[i, p] * n + x, LANES)
            store_wide(out, target + x, LANES, total)
            x += block
        while x < n and n >= LANES:
            x = min(x, n - LANES)
            part = weight[i, 0] * load(source, index[i, 0] * n + x)
            for p in range(1, taps):
                part = part + weight[i, p] * load(source, index[i, p] * n + x)
            store(out, target + x, part)
            x += LANES
        while x < n:
            single = weight[i, 0] * source[index[i, 0] * n + x]
            for p in range(1, taps):
                single += weight[i, p] * source[index[i, p] * n + x]
            out[target + x] = single
            x += 1


@inner
def _transpose(source, rows, columns, source_stride, out, out_stride):
    """Transpose ``rows`` by ``columns`` elements; tiles go through registers."""
    whole_rows, whole_columns = rows // LANES * LANES, columns // LANES * LANES
    for y in range(0, whole_rows, LANES):
        for x in range(0, whole_columns, LANES):
            transpose_tile(
                source, y * source_stride + x, source_stride, out, x * out_stride + y, out_stride
            )
        for i in range(y, y + LANES):
            for x in range(whole_columns, columns):
                out[x * out_stride + i] = source[i * source_stride + x]
    for y in range(whole_rows, rows):
        for x in range(columns):
            out[x * out_stride + y] = source[y * source_stride + x]


@kernel(
    nothing,
    readable(3),  # planes (C, H, W)
    readable(2, int64),  # row_index (h, taps)
    readable(2),  # row_weight
    readable(2, int64),  # column_index (w, taps)
    readable(2),  # column_weight
    int64,  # top: rows of replicated edge in out
    int64,  # left: columns of replicated edge in out
    writable(3),  # out (C, h + 2 top, w + 2 left)
    writable(1),  # narrow: scratch of h W elements
    writable(1),  # turned: W h
    writable(1),  # both: w h
)
def _resize_planes(
    planes, row_index, row_weight, column_index, column_weight, top, left, out, narrow, turned, both
):  # fmt: skip
    channels, height, width = planes.shape
    h, w = row_index.shape[0], column_index.shape[0]
    stride = out.shape[2]
    for c in range(channels):
        _combine_rows(
            pointer(planes, c * height * width), width, row_index, row_weight,
            pointer(narrow, 0), width,
        )  # fmt: skip
        _transpose(pointer(narrow, 0), h, width, width, pointer(turned, 0), h)
        _combine_rows(pointer(turned, 0), h, column_index, column_weight, pointer(both, 0), h)
        first = (c * out.shape[1] + top) * stride + left
        _transpose(pointer(both, 0), w, h, h, pointer(out, first), stride)
        if top + left > 0:
            replicate_edges(out[c], top, left, h, w)


def resize_planes(
    planes: NDArray[np.float32],
    tables: tuple[AxisTable, AxisTable] | None,
    *,
    border: tuple[int, int] = (0, 0),
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Resample planes ``(C, H, W)`` to ``(C, h, w)``.

    `planes`: ``(C, H, W)`` float32, C-contiguous.
    `tables`: for rows and columns; None keeps the size.
    `border`: rows and columns of repeated edge to add on each side.
    `out`: ``(C, h + 2 border[0], w + 2 border[1])`` float32, C-contiguous, written and returned.
    Returns: float32; `planes` itself when nothing is to be done.

    Examples
    --------
    >>> import numpy as np
    >>> tables = pyramid_tables((16, 20), (8, 10))
    >>> resize_planes(np.ones((1, 16, 20), np.float32), tables, border=(1, 2)).shape
    (1, 10, 14)
    """
    if tables is None and out is None and border == (0, 0):
        return planes
    channels, height, width = planes.shape
    h, w = (height, width) if tables is None else (len(table.index) for table in tables)
    if out is None:
        out = np.empty((channels, h + 2 * border[0], w + 2 * border[1]), np.float32)
    if tables is None:
        pad_replicate(planes, *border, out)
    else:
        rows, columns = tables
        _resize_planes(
            planes,
            rows.index,
            rows.weight,
            columns.index,
            columns.weight,
            *border,
            out,
            scratch("resize rows", (h * width,)),
            scratch("resize turned", (h * width,)),
            scratch("resize both", (h * w,)),
        )
    return out


def resize_image(image: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resize an image as the pyramid does: Gaussian against aliasing, then cubic convolution.

    `image`: ``(H, W)`` or ``(H, W, C)``, real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> resize_image(np.ones((16, 20, 2)), (8, 10)).shape
    (8, 10, 2)
    """
    flat = np.asarray(image, np.float32)
    planes = np.ascontiguousarray(np.moveaxis(flat[..., None] if flat.ndim == 2 else flat, -1, 0))
    small = resize_planes(planes, pyramid_tables(planes.shape[1:], shape))
    return small[0].copy() if flat.ndim == 2 else np.ascontiguousarray(np.moveaxis(small, 0, -1))


def upsample_flow(motion: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Bring displacements from the solver's finest grid to full resolution.

    Four-tap cubic interpolation (``a = -0.75``) with replicated borders, the recipe of OpenCV's
    ``INTER_CUBIC``. Displacements are in full-resolution pixels on both grids.

    `motion`: ``(h, w, 2)`` displacements.
    `shape`: ``(H, W)`` of the frame.
    Returns: ``(H, W, 2)`` float32; values are unchanged when the sizes are equal.
    Raises InputError: when `motion` does not have the shape ``(h, w, 2)``.

    Examples
    --------
    >>> import numpy as np
    >>> upsample_flow(np.zeros((8, 10, 2), np.float32), (16, 20)).shape
    (16, 20, 2)
    """
    motion = np.asarray(motion, np.float32)
    if motion.ndim != 3 or motion.shape[2] != 2:
        raise InputError(
            f"Displacements of shape {motion.shape} were given; the shape (h, w, 2) is needed."
        )
    height, width = int(shape[0]), int(shape[1])
    if motion.shape[:2] == (height, width):
        return np.ascontiguousarray(motion)
    planes = np.ascontiguousarray(np.moveaxis(motion, -1, 0))
    full = resize_planes(planes, full_resolution_tables(motion.shape[:2], (height, width)))
    return np.ascontiguousarray(np.moveaxis(full, 0, -1))
