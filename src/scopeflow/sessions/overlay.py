"""Colour overlays that show at a glance whether two images match; arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHOWN_PERCENTILES = (1.0, 99.5)


def before_and_after(
    reference: NDArray[Any], before: NDArray[Any], after: NDArray[Any]
) -> NDArray[np.uint8]:
    """Show how an image matches the reference, before and after alignment, side by side.

    The reference is magenta and the other image green, so what agrees is grey. Images are
    ``(H, W)`` or ``(H, W, C)``, mean over channels; the picture is RGB ``(H, 2 W + 4, 3)``, with a
    white line between.
    """
    gap = np.full((reference.shape[0], 4, 3), 255, np.uint8)
    # One intensity range for the moving image, whatever comes in from outside.
    ranges = _ranges(before)
    magenta = _grey(reference, _ranges(reference))
    pictures = [
        np.stack([magenta, _grey(image, ranges), magenta], axis=-1) for image in (before, after)
    ]
    return np.concatenate([pictures[0], gap, pictures[1]], axis=1)


def _channels(image: NDArray[Any]) -> NDArray[np.float64]:
    plane = np.asarray(image, np.float64)
    return plane if plane.ndim == 3 else plane[..., None]


def _ranges(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return black and white level of each channel: a dim one would not be seen otherwise."""
    return np.percentile(_channels(image), _SHOWN_PERCENTILES, axis=(0, 1))


def _grey(image: NDArray[Any], ranges: NDArray[np.float64]) -> NDArray[np.uint8]:
    low, high = ranges
    scaled = (_channels(image) - low) / np.where(high > low, high - low, 1.0)
    return (np.clip(scaled, 0, 1).mean(axis=-1) * 255).astype(np.uint8)
