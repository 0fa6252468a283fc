"""Shape and intensity features of one cell, as scikit-image measures them; names, no registry.

Lengths are in pixels, angles in radians, intensities in camera counts; those of fluorescence are
freed of the weighted background, pixel by pixel, before they are measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["INTENSITY_FEATURES", "SHAPE_FEATURES"]

Function = Callable[[NDArray[Any], NDArray[np.bool_], Any], float]

_SHAPES = (
    "perimeter",
    "eccentricity",
    "solidity",
    "extent",
    "orientation",
    "axis_major_length",
    "axis_minor_length",
    "area_convex",
    "area_filled",
    "equivalent_diameter_area",
    "euler_number",
    "feret_diameter_max",
)


def _shape(name: str) -> Function:
    def measure(image: NDArray[Any], mask: NDArray[np.bool_], context: Any) -> float:  # noqa: ARG001
        # Imported here: half a second that most runs do not need.
        from skimage.measure import regionprops

        (region,) = regionprops(mask.astype(np.uint8))
        return float(region[name])

    measure.__doc__ = f"``{name}`` of ``skimage.measure.regionprops``."
    measure.__qualname__ = f"shape_{name}"
    return measure


def _corrected(image: NDArray[Any], context: Any) -> NDArray[np.float64]:
    counts = np.asarray(image, np.float64)
    if context.background is None:
        return counts
    return counts - context.background_weight * np.asarray(context.background, np.float64)


def _intensity(name: str, of: Callable[[NDArray[np.float64]], Any]) -> Function:
    def measure(image: NDArray[Any], mask: NDArray[np.bool_], context: Any) -> float:
        return float(of(_corrected(image, context)[mask]))

    measure.__doc__ = f"``{name}`` of the counts inside the cell."
    measure.__qualname__ = f"intensity_{name}"
    return measure


def _weighted_centroid(axis: int) -> Function:
    def measure(image: NDArray[Any], mask: NDArray[np.bool_], context: Any) -> float:
        weights = _corrected(image, context)[mask]
        total = weights.sum()
        # Counts around zero have no centre.
        if not total > 0:
            return float("nan")
        return float((np.nonzero(mask)[axis] * weights).sum() / total) + context.bbox[axis]

    measure.__qualname__ = f"centroid_weighted_{'yx'[axis]}"
    return measure


SHAPE_FEATURES: dict[str, Function] = {name: _shape(name) for name in _SHAPES}
"""Features of masks."""

INTENSITY_FEATURES: dict[str, Function] = {
    "intensity_min": _intensity("min", np.min),
    "intensity_max": _intensity("max", np.max),
    "intensity_median": _intensity("median", np.median),
    "intensity_std": _intensity("std", np.std),
    "centroid_weighted_y": _weighted_centroid(0),
    "centroid_weighted_x": _weighted_centroid(1),
}
"""Features of counts inside masks; centroids in pixels of the frame."""
