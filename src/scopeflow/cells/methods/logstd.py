"""Threshold of the log-STD of a frame of integer counts, without its logarithms: a fused kernel."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.gateway import float64, int64, kernel, nothing, readable, uint16, writable

__all__ = ["LARGEST_EXACT_WINDOW", "count_logarithms", "scaled_variances"]

LARGEST_EXACT_WINDOW = 37
"""Up to here all sums of 16-bit counts are exact in float64: 37⁴ · 65535² < 2⁵³."""

_TABLE_SHIFT = 45  # keeps sign, exponent and 7 bits of the mantissa of a float64


@kernel(
    nothing,
    readable(2, uint16),
    int64,
    writable(1, float64),
    writable(1, float64),
    writable(2, float64),
    writable(1, float64),
    finite=True,
)
def _variances(padded, window, sums, squares, variances, extremes):
    """Move sums over columns down by a row at a time, and take those over windows from them."""
    height, width = variances.shape
    area = np.float64(window * window)
    least, largest = np.inf, 0.0
    for y in range(window - 1):
        for x in range(sums.shape[0]):
            value = np.float64(padded[y, x])
            sums[x] += value
            squares[x] += value * value
    for y in range(height):
        for x in range(sums.shape[0]):
            value = np.float64(padded[y + window - 1, x])
            sums[x] += value
            squares[x] += value * value
        row = variances[y]
        for x in range(width):
            s, q = 0.0, 0.0
            for k in range(window):
                s += sums[x + k]
                q += squares[x + k]
            row[x] = area * q - s * s
        for x in range(sums.shape[0]):
            value = np.float64(padded[y, x])
            sums[x] -= value
            squares[x] -= value * value
        for x in range(width):
            value = row[x]
            largest = max(largest, value)
            least = min(least, value if value > 0.0 else np.inf)
    extremes[0], extremes[1] = least, largest


@kernel(
    nothing,
    readable(1, float64),
    readable(1, int64),
    float64,
    readable(1, float64),
    readable(1, int64),
    writable(2, int64),
)
def _count(values, bits, floor, edges, table, counts):
    """Count values between edges; the table says where to look from the leading bits."""
    origin = table[0]
    for n in range(values.shape[0]):
        value = values[n]
        if value > floor:
            k = table[1 + (bits[n] >> _TABLE_SHIFT) - origin]
            while k < edges.shape[0] and value >= edges[k]:
                k += 1
            # Four counters, as one would wait for itself where neighbours fall into one bin.
            counts[n & 3, k] += 1


def scaled_variances(
    image: NDArray[Any], window: int
) -> tuple[NDArray[np.float64], float, float, float]:
    """Return the variance around each pixel times the squared area of the window, exactly.

    For 8- and 16-bit counts, and an odd window of at most `LARGEST_EXACT_WINDOW` px; the frame is
    mirrored. Returns the variances, whole numbers, 0 where the window is flat; the value up to
    which they count as flat; and the extremes of those above it, ``inf`` and 0 without any.

    Examples
    --------
    >>> image = np.zeros((5, 5), np.uint16); image[2, 2] = 9
    >>> scaled_variances(image, 3)[0][2, 2] / 81
    np.float64(8.0)
    """
    radius = window // 2
    counts = np.ascontiguousarray(image, np.uint16)
    padded = cv2.copyMakeBorder(counts, radius, radius, radius, radius, cv2.BORDER_REFLECT)
    variances = np.empty(counts.shape)
    extremes = np.empty(2)
    columns = padded.shape[1]
    _variances(padded, window, np.zeros(columns), np.zeros(columns), variances, extremes)
    mean, spread = (float(one[0, 0]) for one in cv2.meanStdDev(counts))
    square = spread * spread + (mean - round(mean)) ** 2
    floor = 1e-12 * square * window**4
    least, largest = float(extremes[0]), float(extremes[1])
    if least <= floor:
        textured = variances[variances > floor]
        least = float(textured.min()) if textured.size else np.inf
        largest = float(textured.max()) if textured.size else 0.0
    return variances, floor, least, largest


def count_logarithms(
    variances: NDArray[np.float64],
    floor: float,
    edges: NDArray[np.float64],
    least: float,
    largest: float,
) -> NDArray[np.int64]:
    """Count the values above `floor` that lie below, between and above ascending edges.

    `edges` are the least value of each of the N + 1 bins but the first, `least` and `largest` the
    extremes of the values above `floor`, which are positive.

    Examples
    --------
    >>> values = np.array([0.0, 1.0, 2.0, 4.0, 5.0])
    >>> count_logarithms(values, 0.5, np.array([2.0, 5.0]), 1.0, 5.0).tolist()
    [1, 2, 1]
    """
    values = np.ascontiguousarray(variances).ravel()
    first, last = (int(np.float64(v).view(np.int64)) >> _TABLE_SHIFT for v in (least, largest))
    table = np.empty(last - first + 2, np.int64)
    table[0] = first
    starts = (np.arange(first, last + 1, dtype=np.int64) << _TABLE_SHIFT).view(np.float64)
    table[1:] = np.searchsorted(edges, starts, side="right")
    counts = np.zeros((4, len(edges) + 1), np.int64)
    _count(values, values.view(np.int64), floor, edges, table, counts)
    summed: NDArray[np.int64] = counts.sum(axis=0)
    return summed
