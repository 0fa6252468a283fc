"""Cells in one frame by the logarithm of the local standard deviation: numpy in, labels out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from scopeflow.cells.methods.components import erase_objects, find_objects, paint_objects
from scopeflow.cells.methods.logstd import LARGEST_EXACT_WINDOW, count_logarithms, scaled_variances
from scopeflow.cells.methods.splitting import landscape, split_objects
from scopeflow.errors import InputError

__all__ = [
    "LogStdOptions",
    "clean_mask",
    "find_threshold",
    "label_cells",
    "log_std",
    "segment",
    "texture_mask",
]

N_BINS = 200
SMOOTHING_BINS = 3.0
# A mode right of the main one has to stand out, or every ripple of the tail would be one.
_LEAST_MODE = 0.002
_LEAST_PROMINENCE = 0.1
_LARGEST_LABEL = 65535
SPLIT_DEPTHS = {"distance": 0.5, "bright": 0.04, "dark": 0.04}
"""Least depth of the valley between two cells where none is given."""

# dask owns the threads.
cv2.setNumThreads(1)


@dataclass(frozen=True)
class LogStdOptions:
    """Parameters of :func:`segment`; see ``ProcessingParams`` for their meaning and bounds."""

    window_size: int = 3
    threshold_method: str = "valley"
    morph_size: int = 7
    morph_shape: str = "disk"
    morph_iterations: int = 3
    min_object_size: int = 50
    max_object_size: int = 10000
    threshold_offset: float = 0.0
    object_erosion: int = 0
    split: str = "none"
    split_smoothing: float = 1.5
    split_depth: float | None = None


def log_std(image: NDArray[Any], window: int = 3) -> NDArray[np.float64]:
    """Return the logarithm of the standard deviation around each pixel.

    It is ``0.5 · ln(variance)`` in an odd window of so many px, ``-inf`` where that is flat. Beyond
    the edge the frame is mirrored.

    Examples
    --------
    >>> image = np.zeros((5, 5)); image[2, 2] = 9.0
    >>> bool(np.isclose(log_std(image)[2, 2], 0.5 * np.log(8.0)))
    True
    """
    centred = np.asarray(image, np.float64)
    # A whole number, so that sums over integers stay exact and flat windows are found.
    centred = centred - np.round(centred.mean())
    size = (window, window)
    border: dict[str, Any] = {"normalize": False, "borderType": cv2.BORDER_REFLECT}
    sums = cv2.boxFilter(centred, cv2.CV_64F, size, **border)
    squares = cv2.boxFilter(centred * centred, cv2.CV_64F, size, **border)
    area = float(window * window)
    variance = (area * squares - sums * sums) / (area * area)
    floor = 1e-12 * float(np.mean(centred * centred))
    logarithm = np.full(variance.shape, -np.inf)
    np.log(variance, out=logarithm, where=variance > floor)
    logarithm *= 0.5
    return logarithm


def find_threshold(values: NDArray[np.float64], method: str = "valley") -> float:
    """Return what separates background from cells in log-STD values.

    ``valley`` is the deepest valley between the main mode of the histogram (200 bins, smoothed) and
    the last mode to its right; ``mode_3sigma`` the mode plus three standard deviations of what lies
    left of it, which is also used where there is one mode only; ``otsu`` is where two classes have
    the least variance. Infinite values are left out; ``inf`` where the frame is constant.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> two = np.concatenate([rng.normal(0, 0.3, 90000), rng.normal(4, 0.3, 10000)])
    >>> 1.2 < find_threshold(two) < 2.8
    True
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return float("inf")
    low, high = float(finite.min()), float(finite.max())
    if high <= low:
        return float("inf")
    width = (high - low) / N_BINS
    bins = np.minimum(((finite - low) / width).astype(np.int64), N_BINS - 1)
    counts = np.bincount(bins, minlength=N_BINS)
    return _threshold_of(
        counts, low, width, method, lambda mode: float(np.std(finite[finite <= mode]))
    )


def _threshold_of(
    counts: NDArray[np.int64],
    low: float,
    width: float,
    method: str,
    spread_below: Callable[[float], float],
) -> float:
    centres = low + width * (np.arange(N_BINS) + 0.5)
    if method == "valley":
        smooth = gaussian_filter1d(counts.astype(np.float64), SMOOTHING_BINS, mode="constant")
        main = int(np.argmax(smooth))
        # Padded, so that a mode at the end of the range counts.
        peaks, facts = find_peaks(np.append(smooth, 0.0), prominence=0.0)
        heights = np.append(smooth, 0.0)[peaks]
        real = heights >= _LEAST_MODE * smooth[main]
        real &= facts["prominences"] >= _LEAST_PROMINENCE * heights
        right = peaks[real & (peaks > main)]
        if right.size:
            last = int(right[-1])
            return float(centres[main + int(np.argmin(smooth[main : last + 1]))])
    if method == "otsu":
        below = np.cumsum(counts).astype(np.float64)[:-1]
        sums = np.cumsum(counts * centres)
        above = counts.sum() - below
        apart = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
        return float(centres[int(np.argmax(below * above * apart * apart))])
    mode = float(centres[int(np.argmax(counts))])
    return mode + 3.0 * spread_below(mode)


def texture_mask(image: NDArray[Any], options: LogStdOptions) -> NDArray[np.bool_]:
    """Return where the log-STD is above its threshold.

    For 8- and 16-bit counts thresholds are found and applied on the variance, which ascends with
    its logarithm, so that no logarithm of a pixel is needed.

    That is ``log_std(image) > find_threshold(log_std(image)) + threshold_offset``.

    Examples
    --------
    >>> texture_mask(np.full((20, 20), 7), LogStdOptions()).any()
    np.False_
    """
    window, method, offset = options.window_size, options.threshold_method, options.threshold_offset
    if image.dtype not in (np.uint8, np.uint16) or window > LARGEST_EXACT_WINDOW:
        values = log_std(image, window)
        return np.asarray(values > find_threshold(values, method) + offset)
    variances, floor, least, largest = scaled_variances(image, window)
    if largest <= least:
        return np.zeros(image.shape, bool)
    scale = float(window**4)
    low, high = 0.5 * math.log(least / scale), 0.5 * math.log(largest / scale)
    width = (high - low) / N_BINS
    edges = scale * np.exp(2.0 * (low + width * np.arange(1, N_BINS)))
    counts = count_logarithms(variances, floor, edges, least, largest)

    def spread_below(mode: float) -> float:
        left = variances[(variances > floor) & (variances <= scale * math.exp(2.0 * mode))]
        return float(np.std(0.5 * np.log(left / scale)))

    threshold = _threshold_of(counts, low, width, method, spread_below) + offset
    cut = max(scale * math.exp(2.0 * threshold), floor)
    return np.asarray(variances > cut)


def _footprint(size: int, shape: str) -> NDArray[np.uint8]:
    if shape == "square":
        return np.ones((size, size), np.uint8)
    radius = size // 2
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return (y * y + x * x <= radius * radius).astype(np.uint8)


def clean_mask(mask: NDArray[np.bool_], options: LogStdOptions) -> NDArray[np.bool_]:
    """Close, drop small objects, fill holes, open; the frame is continued beyond its edge."""
    steps = options.morph_iterations
    pad = (options.morph_size // 2) * steps
    footprint = _footprint(options.morph_size, options.morph_shape)
    work = np.ascontiguousarray(mask, np.uint8)
    work = cv2.copyMakeBorder(work, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    if steps:
        work = cv2.erode(cv2.dilate(work, footprint, iterations=steps), footprint, iterations=steps)
    runs, areas = find_objects(work)
    erase_objects(work, runs, areas >= options.min_object_size)
    work = _fill_holes(work)
    if steps:
        work = cv2.dilate(cv2.erode(work, footprint, iterations=steps), footprint, iterations=steps)
    height, width = mask.shape
    return work[pad : pad + height, pad : pad + width].astype(bool)


def _fill_holes(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # The flood comes from outside of the frame, as in scipy.ndimage.binary_fill_holes.
    flooded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(flooded, None, (0, 0), 2, flags=4)
    return (flooded[1:-1, 1:-1] != 2).astype(np.uint8)


def label_cells(
    mask: NDArray[np.bool_], min_size: int = 1, max_size: int | None = None
) -> tuple[NDArray[np.uint16], int, int]:
    """Give 4-connected objects numbers in raster order, after a filter of their size.

    The bounds of their area, px, are inclusive. Returns labels, 0 is background, and how many
    objects were too small and too large.

    Raises InputError: for more than 65535 objects.

    Examples
    --------
    >>> label_cells(np.array([[1, 0, 1], [0, 1, 1]], bool))[0].tolist()
    [[1, 0, 2], [0, 2, 2]]
    """
    runs, areas = find_objects(mask)
    numbers, small, large = _kept(areas, min_size, max_size)
    return paint_objects(runs, numbers, mask.shape), small, large


def segment(
    image: NDArray[Any], options: LogStdOptions | None = None
) -> tuple[NDArray[np.uint16], int, int]:
    """Find the cells of a phase-contrast frame.

    Returns labels, 1 to N in raster order, and how many objects were too small and too large.

    The valley between the modes as threshold: Prewitt and Mendelsohn, *Ann. N. Y. Acad. Sci.* 128,
    1966, doi 10.1111/j.1749-6632.1965.tb11715.x. Otsu, *IEEE Trans. SMC* 9, 1979, doi
    10.1109/TSMC.1979.4310076.

    Examples
    --------
    >>> segment(np.full((40, 40), 7))[0].max()
    np.uint16(0)
    """
    options = options or LogStdOptions()
    mask = clean_mask(texture_mask(image, options), options)
    if options.object_erosion:
        cross = _footprint(3, "disk")
        eroded = cv2.erode(mask.view(np.uint8), cross, iterations=options.object_erosion)
        mask = eroded.view(bool)
    if options.split == "none":
        return label_cells(mask, options.min_object_size, options.max_object_size)
    heights = landscape(image, mask, options.split, options.split_smoothing)
    depth = options.split_depth or SPLIT_DEPTHS[options.split]
    parts = split_objects(mask, heights, depth)
    return _number(parts, options.min_object_size, options.max_object_size)


def _number(
    parts: NDArray[np.int64], min_size: int, max_size: int
) -> tuple[NDArray[np.uint16], int, int]:
    areas = np.bincount(parts.ravel())[1:]
    numbers, small, large = _kept(areas, min_size, max_size)
    return np.concatenate([[0], numbers]).astype(np.uint16)[parts], small, large


def _kept(
    areas: NDArray[np.int64], min_size: int, max_size: int | None
) -> tuple[NDArray[np.uint16], int, int]:
    """Return the label of each object, 0 for those that are left out, and how many those are."""
    small = areas < min_size
    large = np.zeros(len(areas), bool) if max_size is None else areas > max_size
    keep = ~(small | large)
    if int(keep.sum()) > _LARGEST_LABEL:
        raise InputError(
            f"the frame holds {int(keep.sum())} objects, and labels are 16-bit numbers (at most "
            f"{_LARGEST_LABEL}). Raise min_object_size or morph_size; most are noise"
        )
    numbers = np.where(keep, np.cumsum(keep), 0).astype(np.uint16)
    return numbers, int(small.sum()), int(large.sum())
