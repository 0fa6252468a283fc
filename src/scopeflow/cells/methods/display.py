"""Small 8-bit pictures of stacks for viewers: exact percentiles from counts, half resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.gateway import (
    float32,
    float64,
    inner,
    int64,
    kernel,
    nothing,
    readable,
    uint8,
    uint16,
    uint32,
    writable,
)

__all__ = [
    "ValueCounts",
    "count_values",
    "count_within_bins",
    "halve_mean",
    "halve_sample",
    "needed_bins",
    "percentile_of_counts",
    "percentile_range",
    "small_display",
    "sort_keys",
    "to_display",
    "to_display_labels",
    "values_of_keys",
]

_BINS = 65536


@kernel(nothing, readable(1, uint16), writable(1, int64))
def _count_integers(values, counts):
    for i in range(values.shape[0]):
        counts[values[i]] += 1


@inner
def _key(bits):
    # As sort_keys.
    if bits >> 31:
        return bits ^ uint32(0xFFFFFFFF)
    return bits | uint32(0x80000000)


@kernel(nothing, readable(1, uint32), writable(1, int64))
def _count_floats(bits, counts):
    for i in range(bits.shape[0]):
        counts[_key(bits[i]) >> 16] += 1


@kernel(nothing, readable(1, uint32), readable(1, int64), writable(2, int64))
def _count_within(bits, rows, counts):
    for i in range(bits.shape[0]):
        key = _key(bits[i])
        row = rows[key >> 16]
        if row >= 0:
            counts[row, key & uint32(0xFFFF)] += 1


def count_values(frames: NDArray[Any]) -> NDArray[np.int64]:
    """Count how often each value of uint16, or each bin of float32, occurs.

    Bins of floats are the upper halves of :func:`sort_keys`; there are 65536 of either.

    Examples
    --------
    >>> np.flatnonzero(count_values(np.array([[7, 0], [7, 9]], "uint16"))).tolist()
    [0, 7, 9]
    """
    counts = np.zeros(_BINS, np.int64)
    flat = np.ascontiguousarray(frames).ravel()
    if flat.dtype == np.uint16:
        _count_integers(flat, counts)
    else:
        _count_floats(flat.astype(np.float32, copy=False).view(np.uint32), counts)
    return counts


def count_within_bins(frames: NDArray[Any], bins: Sequence[int]) -> NDArray[np.int64]:
    """Count how often each value of float32 occurs that lies in some bins of :func:`count_values`.

    Has a row for each of the ascending `bins`, by the lower halves of :func:`sort_keys`.

    Examples
    --------
    >>> values = np.array([[1.0, 2.0], [2.001, 2.0]], "float32")
    >>> bins = np.flatnonzero(count_values(values[1]))
    >>> rows, lower = np.nonzero(count_within_bins(values, bins))
    >>> values_of_keys(bins[rows] * 65536 + lower).tolist()
    [2.0, 2.000999927520752]
    """
    rows = np.full(_BINS, -1, np.int64)
    rows[list(bins)] = np.arange(len(bins))
    counts = np.zeros((len(bins), _BINS), np.int64)
    bits = np.ascontiguousarray(frames, np.float32).ravel().view(np.uint32)
    _count_within(bits, rows, counts)
    return counts


COUNTED = {"values": 1, "counts": 1}
"""Dimensions of the arrays of :meth:`ValueCounts.of`."""


class ValueCounts:
    """How often each value of uint16, or each bin of float32, occurs in a stack.

    Its size does not depend on that of the stack. Counts of floats have to be refined in the bins
    that percentiles need, before there is a range.

    Examples
    --------
    >>> counts = ValueCounts()
    >>> counts.add(ValueCounts.of(np.array([0] * 1000 + [7], "uint16")))
    >>> counts.range()
    (0.0, 7.0)
    """

    def __init__(self) -> None:
        self.complete = True
        self._total = np.zeros(_BINS, np.int64)
        self._exact: list[Mapping[str, NDArray[Any]]] = []

    @staticmethod
    def of(frames: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return ``values`` that occur, ascending, and their ``counts``, below 2³²."""
        found = _sparse(count_values(frames))
        return {**found, "counts": found["counts"].astype(np.uint32)}

    def add(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add what :meth:`of` counted; without arrays the counts are not complete any more."""
        self.complete &= "values" in arrays
        if "values" in arrays:
            self._total[arrays["values"]] += arrays["counts"]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the sum in the form of :meth:`of`."""
        return _sparse(self._total)

    def needed(self) -> tuple[int, ...]:
        """Return the bins of :func:`needed_bins`."""
        return needed_bins(*self.arrays().values())

    def refine(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add the sort keys, as ``values``, and ``counts`` of the floats in the needed bins."""
        self._exact.append(dict(arrays))

    def range(self) -> tuple[float, float]:
        """Return the 1st and 99th percentile, or the extremes where those are equal."""
        values, counts = self.arrays().values()
        if self._exact:
            # Exact values in the place of some bins; the others only take up ranks.
            keys, index = np.unique(
                np.concatenate([one["values"] for one in self._exact]), return_inverse=True
            )
            exact = np.bincount(index, np.concatenate([one["counts"] for one in self._exact]))
            rest = ~np.isin(values, self.needed())
            places = np.concatenate([keys, values[rest].astype(np.int64) * _BINS])
            order = np.argsort(places, kind="stable")
            values = values_of_keys(places[order])
            counts = np.concatenate([exact.astype(np.int64), counts[rest]])[order]
        low, high = (percentile_of_counts(values, counts, percent) for percent in (1, 99))
        return (low, high) if high > low else (float(values[0]), float(values[-1]))


def _sparse(counts: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    found = np.flatnonzero(counts)
    return {"values": found.astype(np.uint16), "counts": counts[found]}


def values_of_keys(keys: NDArray[Any]) -> NDArray[np.float32]:
    """Return the floats whose :func:`sort_keys` are given.

    Examples
    --------
    >>> values_of_keys(sort_keys(np.array([0.5, -2.0], "float32"))).tolist()
    [0.5, -2.0]
    """
    given = np.asarray(keys, np.uint32)
    positive = given >> 31 != 0
    bits = np.where(positive, given & np.uint32(0x7FFFFFFF), ~given).astype(np.uint32)
    return bits.view(np.float32)


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

    `bins`, ascending, are those of :func:`sort_keys`, `counts` the values in each.

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


def percentile_range(values: NDArray[Any]) -> tuple[float, float]:
    """Return the 1st and 99th percentile of an array, or its extremes where those are equal.

    The same numbers as :func:`percentile_of_counts` gives for all values, without sorting them.

    Examples
    --------
    >>> percentile_range(np.arange(1000)), percentile_range(np.array([0] * 999 + [7]))
    ((9.99, 989.01), (0.0, 7.0))
    """
    flat = np.ravel(values)
    last = flat.size - 1
    below = [int(np.floor(last * percent / 100.0)) for percent in (1, 99)]
    ranks = sorted({0, last, *below, *(min(one + 1, last) for one in below)})
    chosen = np.partition(flat, ranks)[ranks]
    ends = []
    for percent in (1, 99):
        position = last * percent / 100.0
        one = int(np.floor(position))
        low = float(chosen[ranks.index(one)])
        high = float(chosen[ranks.index(min(one + 1, last))])
        ends.append(low + (high - low) * (position - one))
    return (ends[0], ends[1]) if ends[1] > ends[0] else (float(chosen[0]), float(chosen[-1]))


@kernel(nothing, readable(3, uint16), readable(1, uint8), writable(3, uint8))
def _shrink_integers(frames, greys, small):
    """Look up grey values and take means of 2 × 2 pixels; a side of one pixel counts twice."""
    height, width = frames.shape[1], frames.shape[2]
    for t in range(small.shape[0]):
        for y in range(small.shape[1]):
            upper, lower = frames[t, 2 * y], frames[t, min(2 * y + 1, height - 1)]
            for x in range(small.shape[2]):
                left, right = 2 * x, min(2 * x + 1, width - 1)
                total = int64(greys[upper[left]]) + int64(greys[upper[right]])
                total += int64(greys[lower[left]]) + int64(greys[lower[right]])
                small[t, y, x] = total >> 2


@inner
def _grey(value, low, span):
    scaled = (float64(value) - low) / span
    return int64(min(max(scaled, 0.0), 1.0) * 255.0)


@kernel(nothing, readable(3, float32), float64, float64, writable(3, uint8))
def _shrink_floats(frames, low, span, small):
    """Do the same with grey values as :func:`to_display` defines them."""
    height, width = frames.shape[1], frames.shape[2]
    for t in range(small.shape[0]):
        for y in range(small.shape[1]):
            upper, lower = frames[t, 2 * y], frames[t, min(2 * y + 1, height - 1)]
            for x in range(small.shape[2]):
                left, right = 2 * x, min(2 * x + 1, width - 1)
                total = _grey(upper[left], low, span) + _grey(upper[right], low, span)
                total += _grey(lower[left], low, span) + _grey(lower[right], low, span)
                small[t, y, x] = total >> 2


def small_display(frames: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return frames in 8 bits and half the size: :func:`to_display`, then :func:`halve_mean`.

    `low` and `high` become black and white; all is black where `high` is not above `low`. ``(T, H,
    W)`` becomes ``(T, max(1, H // 2), max(1, W // 2))``; both steps cut off fractions.

    Examples
    --------
    >>> small_display(np.array([[[0, 10, 9], [500, 999, 9]]], "uint16"), 9.99, 989.01).tolist()
    [[[95]]]
    """
    frames = np.ascontiguousarray(frames)
    count, height, width = frames.shape
    small = np.zeros((count, max(1, height // 2), max(1, width // 2)), np.uint8)
    if high > low and frames.dtype == np.uint16:
        greys = to_display(np.arange(_BINS), low, high).astype(np.uint8)
        _shrink_integers(frames, greys, small)
    elif high > low:
        _shrink_floats(frames, low, high - low, small)
    return small


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
    height, width = max(1, labels.shape[-2] // 2), max(1, labels.shape[-1] // 2)
    return labels[..., 0 : 2 * height : 2, 0 : 2 * width : 2]
