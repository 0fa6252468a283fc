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


def threshold(values: np.ndarray, method: str) -> float:
    """Valley of the smoothed histogram left of its last mode, else the mode and three sigma."""
    finite = sorted(values[np.isfinite(values)])
    low, high = finite[0], finite[-1]
    width = (high - low) / 200
    counts = np.zeros(200)
    for value in finite:
        counts[min(int((value - low) / width), 199)] += 1
    centres = [low + width * (n + 0.5) for n in range(200)]
    if method == "valley":
        taps = [np.exp(-0.5 * (k / 3.0) ** 2) for k in range(-12, 13)]
        padded = np.pad(counts, 12)
        smooth = np.array([np.dot(padded[n : n + 25], taps) for n in range(200)]) / sum(taps)
        main = int(np.argmax(smooth))
        last = None
        around = np.concatenate([[-1.0], smooth, [0.0, -1.0]])
        for n in range(main + 1, 200):
            here = smooth[n]
            if not (around[n] < here > around[n + 2]):
                continue
            # Prominence: how far one has to go down to get higher.
            sides = []
            for step in (-1, 1):
                least, k = here, n
                while 0 <= k <= 200 and (smooth[k] if k < 200 else 0.0) <= here:
                    least = min(least, smooth[k] if k < 200 else 0.0)
                    k += step
                sides.append(least)
            if here >= 0.002 * smooth[main] and here - max(sides) >= 0.1 * here:
                last = n
        if last is not None:
            return centres[main + int(np.argmin(smooth[main : last + 1]))]
    mode = centres[int(np.argmax(counts))]
    return mode + 3 * float(np.std([value for value in finite if value <= mode]))


def segment(
    image: np.ndarray, window: int, method: str, size: int, steps: int, bounds
) -> np.ndarray:
    """All of LOG-STD segmentation with a disk."""
    values = log_std(image, window)
    mask = clean(values > threshold(values, method), disk(size // 2), steps, bounds[0])
    found, count = ndimage.label(mask)
    labels, number = np.zeros(image.shape, int), 0
    for n in range(1, count + 1):
        if bounds[0] <= (found == n).sum() <= bounds[1]:
            number += 1
            labels[found == n] = number
    return labels


def split(mask: np.ndarray, heights: np.ndarray, depth: float) -> np.ndarray:
    """Parts of a mask around peaks, as lists of pixels that grow and join."""
    order = sorted(zip(*np.nonzero(mask), strict=True), key=lambda p: (-heights[p], p))
    parts: list[list[tuple[int, int]]] = []  # the first pixel of each is its peak
    for y, x in order:
        near = [(y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)]
        near = [p for p in near if any(p in part for part in parts)]
        if not near:
            parts.append([(y, x)])
            continue
        highest = max(near, key=lambda p: heights[p])  # the first of equals
        mine = next(part for part in parts if highest in part)
        mine.append((y, x))
        for p in near:
            other = next(part for part in parts if p in part)
            mine = next(part for part in parts if (y, x) in part)
            if other is mine:
                continue
            upper, lower = sorted([mine, other], key=lambda part: (-heights[part[0]], part[0]))
            if heights[lower[0]] - heights[y, x] < depth:
                upper.extend(lower)
                parts.remove(lower)
    labels = np.zeros(mask.shape, int)
    for n, part in enumerate(sorted(parts, key=min), start=1):
        for p in part:
            labels[p] = n
    return labels


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
