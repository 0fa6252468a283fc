"""Small 8-bit pictures of stacks for viewers: exact percentiles from counts, half resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "halve_mean",
    "halve_sample",
    "needed_bins",
    "percentile_of_counts",
    "sort_keys",
    "to_display",
    "to_display_labels",
]


def sort_keys(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Return integers that are in the order of 32-bit floats; no NaN.

    Examples
    --------
    >>> np.argsort(sort_keys(np.array([0.5, -2.0, 3.0], "float32"))).tolist()
    [1, 0, 2]
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    negative = bits >> 31 != 0
    return np.where(negative, ~bits, bits | np.uint32(0x80000000)).astype(np.uint32)


def needed_bins(bins: NDArray[Any], counts: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the bins in which the extremes and the 1st and 99th percentile lie.

    Parameters
    ----------
    bins : ndarray of int
        Ascending bins of :func:`sort_keys`.
    counts : ndarray of int
        Values in each.

    Examples
    --------
    >>> needed_bins(np.array([3, 4, 7, 9]), np.array([1, 500, 500, 20]))
    (3, 4, 9)
    """
    ends = np.cumsum(counts)
    last = int(ends[-1]) - 1
    ranks = [0, last]
    for percent in (1, 99):
        below = int(np.floor(last * percent / 100.0))
        ranks += [below, min(below + 1, last)]
    return tuple(sorted({int(bins[np.searchsorted(ends, rank, side="right")]) for rank in ranks}))


def percentile_of_counts(values: NDArray[Any], counts: NDArray[np.int64], percent: float) -> float:
    """Return the percentile of ascending values that occur so often, as ``numpy.percentile``.

    Examples
    --------
    >>> percentile_of_counts(np.arange(1000), np.ones(1000, int), 1)
    9.99
    """
    ends = np.cumsum(counts)
    position = (int(ends[-1]) - 1) * percent / 100.0
    below = int(np.floor(position))
    low = float(values[np.searchsorted(ends, below, side="right")])
    high = float(values[np.searchsorted(ends, min(below + 1, int(ends[-1]) - 1), side="right")])
    return low + (high - low) * (position - below)


def to_display(image: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Return intensities on the scale 0 to 255, ``low`` and below black; 0 where it is flat.

    Examples
    --------
    >>> to_display(np.array([0, 10, 500, 989, 999]), 9.99, 989.01).astype("uint8").tolist()
    [0, 0, 127, 254, 255]
    """
    if high <= low:
        return np.zeros(image.shape)
    return np.clip((np.asarray(image, np.float64) - low) / (high - low), 0.0, 1.0) * 255.0


def to_display_labels(labels: NDArray[np.integer], largest: int) -> NDArray[np.uint8]:
    """Return labels on the scale 0 to 255; no label becomes background.

    Examples
    --------
    >>> to_display_labels(np.array([0, 1, 5]), 5).tolist()
    [0, 51, 255]
    """
    scaled = np.asarray(labels, np.int64) * 255 // max(largest, 1)
    return np.where(labels > 0, np.maximum(scaled, 1), 0).astype(np.uint8)


def halve_mean(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return means of 2 × 2 pixels; an odd last row or column is left out.

    Examples
    --------
    >>> halve_mean(np.array([[1, 3, 9], [5, 7, 9]])).tolist()
    [[4.0]]
    """
    height, width = max(1, image.shape[0] // 2), max(1, image.shape[1] // 2)
    rows = np.asarray(image, np.float64)[: 2 * height, : 2 * width]
    tall = rows[0::2] + rows[1::2] if rows.shape[0] > 1 else 2 * rows
    wide = tall[:, 0::2] + tall[:, 1::2] if tall.shape[1] > 1 else 2 * tall
    return wide / 4.0


def halve_sample(labels: NDArray[Any]) -> NDArray[Any]:
    """Return the upper left of 2 × 2 pixels, so that no label is invented.

    Examples
    --------
    >>> halve_sample(np.array([[1, 3, 9], [5, 7, 9]])).tolist()
    [[1]]
    """
    height, width = max(1, labels.shape[0] // 2), max(1, labels.shape[1] // 2)
    return labels[0 : 2 * height : 2, 0 : 2 * width : 2]
