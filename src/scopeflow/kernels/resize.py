"""Resampling of images and flow between pyramid levels and to full resolution."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError
from scopeflow.kernels._jit import (
    disjoint,
    inner,
    int64,
    kernel,
    nothing,
    pointer,
    readable,
    writable,
)
from scopeflow.kernels._scratch import scratch

_SIGMA = 0.6  # Gaussian of the pre-filter in output pixels
_CUBIC = -0.75  # parameter of the cubic convolution
_TILE = 16  # square tiles keep a transposition inside the first-level cache


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

    Parameters
    ----------
    n_in, n_out : int
        Lengths of the axis.
    sigma : float
        Gaussian in input samples, 0 for none.

    Returns
    -------
    AxisTable
        With half-sample symmetric reflection at the ends.

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
    """Table of plain cubic interpolation with four taps and replicated ends.

    Parameters
    ----------
    n_in, n_out : int
        Lengths of the axis.

    Returns
    -------
    AxisTable
        Four taps for each output element.
    """
    centre = ((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5).astype(np.float32)
    base = np.floor(centre)
    fraction = (centre - base).astype(np.float64)
    offsets = np.arange(-1, 3)
    weight = cubic_weight(fraction[:, None] - offsets[None])
    weight[:, 3] = 1.0 - weight[:, :3].sum(axis=1)
    index = np.clip(base.astype(np.int64)[:, None] + offsets[None], 0, n_in - 1)
    return _frozen(index, weight)


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
def _combine_two(n, out, first, second, a, b):
    disjoint()
    for x in range(n):
        out[x] = a * first[x] + b * second[x]


@inner
def _add_two(n, out, first, second, a, b):
    disjoint()
    for x in range(n):
        out[x] += a * first[x] + b * second[x]


@kernel(nothing, readable(2), readable(2, int64), readable(2), writable(2))
def _combine_rows(source, index, weight, out):
    """``out[i] = sum_p weight[i, p] * source[index[i, p]]``: the inner loop runs along rows."""
    n = source.shape[1]
    taps = index.shape[1]
    for i in range(index.shape[0]):
        target = pointer(out, i * n)
        _combine_two(
            n,
            target,
            pointer(source, index[i, 0] * n),
            pointer(source, index[i, 1] * n),
            weight[i, 0],
            weight[i, 1],
        )
        for p in range(2, taps, 2):
            _add_two(
                n,
                target,
                pointer(source, index[i, p] * n),
                pointer(source, index[i, p + 1] * n),
                weight[i, p],
                weight[i, p + 1],
            )


@kernel(nothing, readable(2), writable(2))
def _transpose(source, out):
    rows, cols = source.shape
    for y0 in range(0, rows, _TILE):
        y1 = min(y0 + _TILE, rows)
        for x0 in range(0, cols, _TILE):
            x1 = min(x0 + _TILE, cols)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    out[x, y] = source[y, x]


def resize_plane(
    plane: NDArray[np.float32],
    tables: tuple[AxisTable, AxisTable],
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Resample one plane with tables for both axes.

    Parameters
    ----------
    plane : numpy.ndarray
        ``(H, W)`` float32, C-contiguous.
    tables : tuple of AxisTable
        For rows and columns.
    out : numpy.ndarray, optional
        ``(h, w)`` float32, C-contiguous, written and returned.

    Returns
    -------
    numpy.ndarray
        ``(h, w)`` float32.

    Examples
    --------
    >>> import numpy as np
    >>> tables = pyramid_tables((16, 20), (8, 10))
    >>> resize_plane(np.ones((16, 20), np.float32), tables).shape
    (8, 10)
    """
    row_table, col_table = tables
    h, w = row_table.index.shape[0], col_table.index.shape[0]
    width = plane.shape[1]
    narrow = scratch("resize rows", (h, width))
    turned = scratch("resize turned", (width, h))
    both = scratch("resize both", (w, h))
    if out is None:
        out = np.empty((h, w), np.float32)
    _combine_rows(plane, row_table.index, row_table.weight, narrow)
    _transpose(narrow, turned)
    _combine_rows(turned, col_table.index, col_table.weight, both)
    _transpose(both, out)
    return out


def resize_planes(
    planes: NDArray[np.float32],
    tables: tuple[AxisTable, AxisTable] | None,
) -> NDArray[np.float32]:
    """Resample planes ``(C, H, W)`` to ``(C, h, w)``; the same array when `tables` is None.

    Parameters
    ----------
    planes : numpy.ndarray
        ``(C, H, W)`` float32, C-contiguous.
    tables : tuple of AxisTable or None
        For rows and columns.

    Returns
    -------
    numpy.ndarray
        ``(C, h, w)`` float32.
    """
    if tables is None:
        return planes
    shape = (planes.shape[0], tables[0].index.shape[0], tables[1].index.shape[0])
    out = np.empty(shape, np.float32)
    for plane, target in zip(planes, out, strict=True):
        resize_plane(plane, tables, target)
    return out


def resize_image(image: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resize an image as the pyramid does: Gaussian against aliasing, then cubic convolution.

    Parameters
    ----------
    image : numpy.ndarray
        ``(H, W)`` or ``(H, W, C)``, real numbers.
    shape : tuple of int
        Rows and columns of the result.

    Returns
    -------
    numpy.ndarray
        float32, same number of dimensions.

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

    Parameters
    ----------
    motion : numpy.ndarray
        ``(h, w, 2)`` displacements.
    shape : tuple of int
        ``(H, W)`` of the frame.

    Returns
    -------
    numpy.ndarray
        ``(H, W, 2)`` float32; values are unchanged when the sizes are equal.

    Raises
    ------
    InputError
        When `motion` does not have the shape ``(h, w, 2)``.

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
    tables = (cubic_table(motion.shape[0], height), cubic_table(motion.shape[1], width))
    out = np.empty((height, width, 2), np.float32)
    for c in range(2):
        out[..., c] = resize_plane(np.ascontiguousarray(motion[..., c]), tables)
    return out
