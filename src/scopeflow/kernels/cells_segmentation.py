"""Cells in one frame by the logarithm of the local standard deviation: numpy in, labels out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from scopeflow.errors import InputError

__all__ = ["LogStdOptions", "clean_mask", "find_threshold", "label_cells", "log_std", "segment"]

N_BINS = 200
SMOOTHING_BINS = 3.0
# A mode right of the main one has to stand out, or every ripple of the tail would be one.
_LEAST_MODE = 0.002
_LEAST_PROMINENCE = 0.1
_LARGEST_LABEL = 65535

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


def log_std(image: NDArray[Any], window: int = 3) -> NDArray[np.float64]:
    """Return the logarithm of the standard deviation around each pixel.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        Any real type.
    window : int
        Side of the window, px, odd. Beyond the edge the frame is mirrored.

    Returns
    -------
    ndarray, shape (H, W), float64
        ``0.5 · ln(variance)``; ``-inf`` where the window is flat.

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

    Parameters
    ----------
    values : ndarray
        As of :func:`log_std`; infinite values are left out.
    method : {"valley", "mode_3sigma"}
        The deepest valley between the main mode of the histogram (200 bins, smoothed) and the last
        mode to its right, or the mode plus three standard deviations of what lies left of it. The
        latter is also used where there is one mode only.

    Returns
    -------
    float
        Cells are above it; ``inf`` where the frame is constant.

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
    counts = np.bincount(bins, minlength=N_BINS).astype(np.float64)
    centres = low + width * (np.arange(N_BINS) + 0.5)
    if method == "valley":
        smooth = gaussian_filter1d(counts, SMOOTHING_BINS, mode="constant")
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
    mode = float(centres[int(np.argmax(counts))])
    return mode + 3.0 * float(np.std(finite[finite <= mode]))


def _footprint(size: int, shape: str) -> NDArray[np.uint8]:
    if shape == "square":
        return np.ones((size, size), np.uint8)
    radius = size // 2
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return (y * y + x * x <= radius * radius).astype(np.uint8)


def clean_mask(mask: NDArray[np.bool_], options: LogStdOptions) -> NDArray[np.bool_]:
    """Close, drop small objects, fill holes, open; the frame is continued beyond its edge.

    Parameters
    ----------
    mask : ndarray of bool, shape (H, W)
        Where the log-STD is above its threshold.
    options : LogStdOptions
        ``morph_*`` and ``min_object_size``.

    Returns
    -------
    ndarray of bool, shape (H, W)
        Cells.
    """
    steps = options.morph_iterations
    pad = (options.morph_size // 2) * steps
    footprint = _footprint(options.morph_size, options.morph_shape)
    work = np.ascontiguousarray(mask, np.uint8)
    work = cv2.copyMakeBorder(work, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    if steps:
        work = cv2.erode(cv2.dilate(work, footprint, iterations=steps), footprint, iterations=steps)
    work = _drop_small(work, options.min_object_size)
    work = _fill_holes(work)
    if steps:
        work = cv2.dilate(cv2.erode(work, footprint, iterations=steps), footprint, iterations=steps)
    height, width = mask.shape
    return work[pad : pad + height, pad : pad + width].astype(bool)


def _drop_small(mask: NDArray[np.uint8], least: int) -> NDArray[np.uint8]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] >= least
    keep[0] = False
    return keep.astype(np.uint8)[labels]


def _fill_holes(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # The flood comes from outside of the frame, as in scipy.ndimage.binary_fill_holes.
    flooded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(flooded, None, (0, 0), 2, flags=4)
    return (flooded[1:-1, 1:-1] != 2).astype(np.uint8)


def label_cells(
    mask: NDArray[np.bool_], min_size: int = 1, max_size: int | None = None
) -> tuple[NDArray[np.uint16], int, int]:
    """Give 4-connected objects numbers in raster order, after a filter of their size.

    Parameters
    ----------
    mask : ndarray of bool, shape (H, W)
        Objects.
    min_size, max_size : int
        Inclusive bounds of their area, px.

    Returns
    -------
    labels : ndarray, shape (H, W), uint16
        0 is background, objects are 1 to N.
    too_small, too_large : int
        Objects that were removed.

    Raises
    ------
    InputError
        For more than 65535 objects.

    Examples
    --------
    >>> label_cells(np.array([[1, 0, 1], [0, 1, 1]], bool))[0].tolist()
    [[1, 0, 2], [0, 2, 2]]
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask, np.uint8), connectivity=4
    )
    areas = stats[:, cv2.CC_STAT_AREA]
    small = areas < min_size
    large = np.zeros(count, bool) if max_size is None else areas > max_size
    keep = ~(small | large)
    keep[0] = False
    if int(keep.sum()) > _LARGEST_LABEL:
        raise InputError(
            f"the frame holds {int(keep.sum())} objects, and labels are 16-bit numbers (at most "
            f"{_LARGEST_LABEL}). Raise min_object_size or morph_size; most are noise"
        )
    numbers = np.where(keep, np.cumsum(keep), 0).astype(np.uint16)
    return numbers[labels], int(small[1:].sum()), int(large[1:].sum())


def segment(
    image: NDArray[Any], options: LogStdOptions | None = None
) -> tuple[NDArray[np.uint16], int, int]:
    """Find the cells of a phase-contrast frame.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        Any real type.
    options : LogStdOptions, optional
        Parameters.

    Returns
    -------
    labels : ndarray, shape (H, W), uint16
        0 is background, cells are 1 to N in raster order.
    too_small, too_large : int
        Objects that the size filter removed.

    Notes
    -----
    The valley between the modes as threshold: Prewitt and Mendelsohn, *Ann. N. Y. Acad. Sci.* 128,
    1966, doi 10.1111/j.1749-6632.1965.tb11715.x.

    Examples
    --------
    >>> segment(np.full((40, 40), 7))[0].max()
    np.uint16(0)
    """
    options = options or LogStdOptions()
    values = log_std(image, options.window_size)
    mask = clean_mask(values > find_threshold(values, options.threshold_method), options)
    return label_cells(mask, options.min_object_size, options.max_object_size)
