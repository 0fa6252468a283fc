"""Background of one fluorescence frame from medians of overlapping tiles: numpy in, numpy out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from scopeflow.compiled.gateway import kernel, nothing, readable, writable
from scopeflow.compiled.gateway import types as _types

__all__ = ["Tiles", "fill_tiles", "foreground", "surface", "tile_medians", "tiles_of"]

_LEAST_SHARE = 0.1
_LEAST_PIXELS = 25


@dataclass(frozen=True)
class Tiles:
    """Edges of half tiles on both axes; tile ``i`` spans edges ``i`` to ``i + 2``."""

    y: tuple[int, ...]
    x: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of tiles on each axis."""
        return len(self.y) - 2, len(self.x) - 2


def tiles_of(height: int, width: int, side: int = 100) -> Tiles:
    """Cut a frame into tiles of about `side` px that overlap by half.

    Examples
    --------
    >>> tiles_of(200, 90).shape
    (3, 1)
    """

    def edges(length: int) -> tuple[int, ...]:
        count = max(2, int(np.rint(2 * length / side)))
        return tuple(int(n) for n in np.rint(np.linspace(0, length, count + 1)))

    return Tiles(edges(height), edges(width))


def foreground(labels: NDArray[np.integer], radius: int = 10) -> NDArray[np.bool_]:
    """Return cells grown by `radius` px: all pixels at most so far from one.

    Examples
    --------
    >>> labels = np.zeros((5, 5), int); labels[2, 2] = 1
    >>> int(foreground(labels, 1).sum())
    5
    """
    empty = (labels == 0).astype(np.uint8)
    if empty.all():
        return np.zeros(labels.shape, bool)
    return cv2.distanceTransform(empty, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= radius


@kernel(
    nothing,
    readable(2, _types.float64),
    readable(2, _types.uint8),
    readable(1, _types.int64),
    readable(1, _types.int64),
    writable(2, _types.float64),
)
def _medians(image, mask, y_edges, x_edges, medians):
    largest = 0
    for i in range(medians.shape[0]):
        for j in range(medians.shape[1]):
            area = (y_edges[i + 2] - y_edges[i]) * (x_edges[j + 2] - x_edges[j])
            largest = max(largest, area)
    values = np.empty(largest)
    for i in range(medians.shape[0]):
        for j in range(medians.shape[1]):
            n = 0
            for y in range(y_edges[i], y_edges[i + 2]):
                for x in range(x_edges[j], x_edges[j + 2]):
                    if mask[y, x] == 0:
                        values[n] = image[y, x]
                        n += 1
            area = (y_edges[i + 2] - y_edges[i]) * (x_edges[j + 2] - x_edges[j])
            if n >= _LEAST_PIXELS and n >= _LEAST_SHARE * area:
                medians[i, j] = np.median(values[:n])
            else:
                medians[i, j] = np.nan


@kernel(
    nothing,
    readable(2, _types.uint16),
    readable(2, _types.uint8),
    readable(1, _types.int64),
    readable(1, _types.int64),
    writable(2, _types.float64),
)
def _medians_of_counts(image, mask, y_edges, x_edges, medians):
    """Medians of 16-bit counts: the upper byte by counting, then the lower one."""
    coarse = np.empty(256, np.int64)
    fine = np.empty(256, np.int64)
    for i in range(medians.shape[0]):
        for j in range(medians.shape[1]):
            coarse[:] = 0
            n = 0
            for y in range(y_edges[i], y_edges[i + 2]):
                for x in range(x_edges[j], x_edges[j + 2]):
                    if mask[y, x] == 0:
                        coarse[image[y, x] >> 8] += 1
                        n += 1
            area = (y_edges[i + 2] - y_edges[i]) * (x_edges[j + 2] - x_edges[j])
            if n < _LEAST_PIXELS or n < _LEAST_SHARE * area:
                medians[i, j] = np.nan
                continue
            total = 0.0
            counted = -1
            for rank in ((n - 1) // 2, n // 2):
                upper = 0
                below = 0
                while below + coarse[upper] <= rank:
                    below += coarse[upper]
                    upper += 1
                if upper != counted:
                    counted = upper
                    fine[:] = 0
                    for y in range(y_edges[i], y_edges[i + 2]):
                        for x in range(x_edges[j], x_edges[j + 2]):
                            if mask[y, x] == 0 and image[y, x] >> 8 == upper:
                                fine[image[y, x] & 255] += 1
                lower = 0
                while below + fine[lower] <= rank:
                    below += fine[lower]
                    lower += 1
                total += upper * 256 + lower
            medians[i, j] = total / 2.0


def tile_medians(image: NDArray[Any], mask: NDArray[np.bool_], tiles: Tiles) -> NDArray[np.float64]:
    """Return the median of the background in every tile.

    Of counts `image` ``(H, W)``, without the `mask`; NaN where less than 10 % of a tile, or fewer
    than 25 pixels, are background.

    Examples
    --------
    >>> image = np.arange(400.0).reshape(20, 20)
    >>> tile_medians(image, np.zeros((20, 20), bool), tiles_of(20, 20)).tolist()
    [[199.5]]
    """
    medians = np.empty(tiles.shape)
    counts = image.dtype == np.uint16
    (_medians_of_counts if counts else _medians)(
        np.ascontiguousarray(image, np.uint16 if counts else np.float64),
        np.ascontiguousarray(mask).view(np.uint8),
        np.asarray(tiles.y, np.int64),
        np.asarray(tiles.x, np.int64),
        medians,
    )
    return medians


def fill_tiles(medians: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fill tiles without background from their neighbours, ring by ring.

    A tile that is NaN becomes the mean of the known ones among its eight neighbours; at least one
    has to be known.

    Examples
    --------
    >>> fill_tiles(np.array([[1.0, np.nan, 3.0]])).tolist()
    [[1.0, 2.0, 3.0]]
    """
    filled = medians.copy()
    while np.isnan(filled).any():
        padded = np.pad(filled, 1, constant_values=np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).reshape(*filled.shape, 9)
        known = ~np.isnan(windows)
        counts = known.sum(axis=-1)
        sums = np.where(known, windows, 0.0).sum(axis=-1)
        fill = np.isnan(filled) & (counts > 0)
        filled[fill] = sums[fill] / counts[fill]
    return filled


@lru_cache(maxsize=32)
def _interpolation(edges: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the matrix from tile medians to pixels on one axis.

    Medians stand at the mean of their pixel centres; the outer two are continued linearly to the
    first and last pixel, as a spline does not extrapolate well.
    """
    bounds = np.asarray(edges, np.float64)
    centres = (bounds[:-2] + bounds[2:] - 1.0) / 2.0
    n, length = len(centres), int(bounds[-1])
    pixels = np.arange(length, dtype=np.float64)
    if n == 1:
        return np.ones((length, 1))
    extended = np.zeros((n + 2, n))
    extended[1:-1] = np.eye(n)
    first = centres[0] / (centres[1] - centres[0])
    extended[0, :2] = 1.0 + first, -first
    last = (length - 1 - centres[-1]) / (centres[-1] - centres[-2])
    extended[-1, -2:] = -last, 1.0 + last
    nodes = np.concatenate([[0.0], centres, [length - 1.0]])
    matrix: NDArray[np.float64] = make_interp_spline(nodes, extended, k=min(3, n + 1))(pixels)
    return matrix


def surface(medians: NDArray[np.float64], tiles: Tiles) -> NDArray[np.float32]:
    """Return the smooth surface through tile medians at every pixel.

    A cubic spline on each axis through the medians at the centres of the tiles, after
    Schwarzfischer et al., *Efficient fluorescence image normalization for time lapse movies*, 2011.

    `medians` are without NaN; the surface is in counts, ``(H, W)``, not clipped.

    Examples
    --------
    >>> surface(np.array([[5.0]]), tiles_of(16, 16)).max()
    np.float32(5.0)
    """
    rows, columns = _interpolation(tiles.y), _interpolation(tiles.x)
    return (rows @ medians @ columns.T).astype(np.float32)
