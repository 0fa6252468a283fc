"""Colour overlays that show at a glance whether two images match; arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHOWN_PERCENTILES = (1.0, 99.5)


def overlay(reference: NDArray[Any], moving: NDArray[Any]) -> NDArray[np.uint8]:
    """Show one image in magenta and another in green; grey is where they agree.

    Parameters
    ----------
    reference, moving : ndarray, shape (H, W) or (H, W, C)
        The images, mean over channels.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB.

    Examples
    --------
    >>> image = np.arange(12.0).reshape(3, 4)
    >>> picture = overlay(image, image)
    >>> bool((picture[..., 0] == picture[..., 1]).all())
    True
    """
    magenta, green = _grey(reference), _grey(moving)
    return np.stack([magenta, green, magenta], axis=-1)


def before_and_after(
    reference: NDArray[Any], before: NDArray[Any], after: NDArray[Any]
) -> NDArray[np.uint8]:
    """Put two overlays side by side: before and after alignment.

    Parameters
    ----------
    reference, before, after : ndarray, shape (H, W) or (H, W, C)
        The images.

    Returns
    -------
    ndarray of uint8, shape (H, 2 W + 4, 3)
        RGB, with a white line between.
    """
    gap = np.full((reference.shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([overlay(reference, before), gap, overlay(reference, after)], axis=1)


def _grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    plane = np.asarray(image, np.float64)
    if plane.ndim == 3:
        # Each channel has its own range: a dim one would not be seen otherwise.
        return np.mean([_grey(plane[..., c]) for c in range(plane.shape[2])], axis=0).astype(
            np.uint8
        )
    low, high = np.percentile(plane, _SHOWN_PERCENTILES)
    scaled = (plane - low) / (high - low if high > low else 1.0)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
