"""Slow twins of the numerics of the cell workflow, from their definitions, pixel by pixel."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline


def log_std(image: np.ndarray, window: int) -> np.ndarray:
    """From the two-pass variance of each mirrored window."""
    radius = window // 2
    padded = np.pad(image.astype(np.longdouble), radius, mode="symmetric")
    result = np.full(image.shape, -np.inf)
    for y, x in np.ndindex(image.shape):
        values = padded[y : y + window, x : x + window]
        variance = np.mean((values - values.mean()) ** 2)
        if variance > 0:
            result[y, x] = 0.5 * float(np.log(variance))
    return result


def disk(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return y**2 + x**2 <= radius**2


def clean(mask: np.ndarray, footprint: np.ndarray, iterations: int, least: int) -> np.ndarray:
    pad = (len(footprint) // 2) * iterations
    work = np.pad(mask, pad, mode="edge")

    def grow(m: np.ndarray) -> np.ndarray:
        return ndimage.binary_dilation(m, footprint, iterations) if iterations else m

    def shrink(m: np.ndarray) -> np.ndarray:
        return ndimage.binary_erosion(m, footprint, iterations, border_value=1) if iterations else m

    work = shrink(grow(work))
    labels, count = ndimage.label(work)
    for n in range(1, count + 1):
        if (labels == n).sum() < least:
            work[labels == n] = False
    work = grow(shrink(ndimage.binary_fill_holes(work)))
    height, width = mask.shape
    return work[pad : pad + height, pad : pad + width]


def best_links(iou: np.ndarray, min_iou: float) -> float:
    """Largest sum of IoU over one-to-one links of pairs that are allowed, by trying all."""
    rows, columns = iou.shape
    best = 0.0
    if rows > columns:
        iou, rows, columns = iou.T, columns, rows
    for chosen in itertools.permutations(range(columns), rows):
        pairs = [iou[r, c] for r, c in enumerate(chosen)]
        best = max(best, sum(value for value in pairs if value >= min_iou))
    return best


def background(medians: np.ndarray, y_edges, x_edges) -> np.ndarray:
    """Spline through tile medians that were continued linearly to the edge, by FITPACK."""

    def axis(edges):
        centres = [(a + b - 1) / 2 for a, b in zip(edges[:-2], edges[2:], strict=True)]
        return np.array(centres), edges[-1]

    def extend(values, centres, length):
        slope_first = (values[1] - values[0]) / (centres[1] - centres[0])
        slope_last = (values[-1] - values[-2]) / (centres[-1] - centres[-2])
        first = values[0] - slope_first * centres[0]
        last = values[-1] + slope_last * (length - 1 - centres[-1])
        return np.concatenate([[first], values, [last]])

    (y, height), (x, width) = axis(y_edges), axis(x_edges)
    grid = extend(medians, y, height)
    grid = extend(grid.T, x, width).T
    y, x = np.r_[0, y, height - 1], np.r_[0, x, width - 1]
    spline = RectBivariateSpline(y, x, grid, kx=min(3, len(y) - 1), ky=min(3, len(x) - 1))
    return spline(np.arange(height), np.arange(width))
