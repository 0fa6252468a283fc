"""4-connected objects of a mask as runs of pixels, in raster order: numpy in, numpy out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.gateway import (
    inner,
    int64,
    kernel,
    nothing,
    readable,
    uint8,
    uint16,
    writable,
)

__all__ = ["erase_objects", "find_objects", "paint_objects"]


@kernel(int64, readable(2, uint8))
def _count_runs(mask):
    count = 0
    for y in range(mask.shape[0]):
        row = mask[y]
        count += row[0] != 0
        for x in range(1, row.shape[0]):
            count += (row[x] != 0) & (row[x - 1] == 0)
    return count


@inner
def _root(parents, run):
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@kernel(int64, readable(2, uint8), writable(2, int64), writable(1, int64), writable(1, int64))
def _find(mask, runs, parents, areas):
    """Join the runs of each row with those that they touch in the row above."""
    height, width = mask.shape
    n = 0
    above, end_above = 0, 0
    for y in range(height):
        row = mask[y]
        first = n
        x = 0
        while x < width:
            if row[x] == 0:
                x += 1
                continue
            start = x
            while x < width and row[x] != 0:
                x += 1
            runs[n, 0], runs[n, 1], runs[n, 2] = y, start, x
            parents[n] = n
            while above < end_above and runs[above, 2] <= start:
                above += 1
            other = above
            while other < end_above and runs[other, 1] < x:
                # The smaller root is the first in raster order.
                a, b = _root(parents, n), _root(parents, other)
                parents[max(a, b)] = min(a, b)
                other += 1
            n += 1
        above, end_above = first, n
    objects = 0
    for run in range(n):
        area = runs[run, 2] - runs[run, 1]
        root = _root(parents, run)
        if root == run:
            runs[run, 3] = objects
            areas[objects] = area
            objects += 1
        else:
            runs[run, 3] = runs[root, 3]
            areas[runs[root, 3]] += area
    return objects


@kernel(nothing, readable(2, int64), readable(1, uint16), writable(2, uint16))
def _paint(runs, values, image):
    for run in range(runs.shape[0]):
        image[runs[run, 0], runs[run, 1] : runs[run, 2]] = values[runs[run, 3]]


@kernel(nothing, readable(2, int64), readable(1, uint8), writable(2, uint8))
def _erase(runs, keep, mask):
    for run in range(runs.shape[0]):
        if keep[runs[run, 3]] == 0:
            mask[runs[run, 0], runs[run, 1] : runs[run, 2]] = 0


def find_objects(mask: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the 4-connected objects of a mask.

    Returns ``y, start, stop, object`` of horizontal runs of pixels, ``(R, 4)``, and the area of
    each object, px. Objects are numbered from 0 in raster order of their first pixels. Union-find
    over runs; Rosenfeld and Pfaltz, *J. ACM* 13, 1966, doi 10.1145/321356.321357.

    Examples
    --------
    >>> runs, areas = find_objects(np.array([[1, 0, 1], [0, 1, 1]], bool))
    >>> runs.tolist(), areas.tolist()
    ([[0, 0, 1, 0], [0, 2, 3, 1], [1, 1, 3, 1]], [1, 3])
    """
    plain = np.ascontiguousarray(mask).view(np.uint8)
    runs = np.empty((_count_runs(plain) if plain.size else 0, 4), np.int64)
    areas = np.empty(len(runs), np.int64)
    count = _find(plain, runs, np.empty(len(runs), np.int64), areas) if len(runs) else 0
    return runs, areas[:count].copy()


def paint_objects(
    runs: NDArray[np.int64], values: NDArray[np.uint16], shape: tuple[int, int]
) -> NDArray[np.uint16]:
    """Return an image with one value for each object, 0 elsewhere.

    Examples
    --------
    >>> runs, _ = find_objects(np.array([[1, 0, 1]], bool))
    >>> paint_objects(runs, np.array([7, 9], np.uint16), (1, 3)).tolist()
    [[7, 0, 9]]
    """
    image = np.zeros(shape, np.uint16)
    _paint(runs, np.ascontiguousarray(values, np.uint16), image)
    return image


def erase_objects(
    mask: NDArray[np.uint8], runs: NDArray[np.int64], keep: NDArray[np.bool_]
) -> None:
    """Set the objects of a mask to 0, in place, unless they are kept.

    Examples
    --------
    >>> mask = np.array([[1, 0, 1]], np.uint8)
    >>> erase_objects(mask, find_objects(mask)[0], np.array([False, True]))
    >>> mask.tolist()
    [[0, 0, 1]]
    """
    _erase(runs, np.ascontiguousarray(keep).view(np.uint8), mask)
