"""Rigid cross-correlation under its documented module path and arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import OptionsError
from scopeflow.images.xcorr import rigid_shift

__all__ = ["estimate_rigid_xcorr_2d"]


def estimate_rigid_xcorr_2d(
    ref_img: NDArray[Any],
    mov_img: NDArray[Any],
    target_hw: int | tuple[int, int] | None = (256, 256),
    up: int = 1,
    normalization: str | None = "phase",
    disambiguate: bool = True,
    weight: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """Return the shift ``[dx, dy]`` in pixels of a frame against a reference.

    Parameters
    ----------
    ref_img, mov_img : ndarray, shape (H, W) or (H, W, C)
        Reference and moving frame.
    target_hw : int or tuple of int, optional
        Rows and columns that images are reduced to at most; None keeps them.
    up : int
        Shifts are found to ``1 / up`` reduced pixels.
    normalization, disambiguate
        Only the defaults, ``"phase"`` and True.
    weight : ndarray, optional
        Weights of the channels.

    Returns
    -------
    ndarray of float32, shape (2,)
        To the right and down.

    Raises
    ------
    OptionsError
        For another normalization, or `up` below 1.
    """
    if normalization != "phase" or not disambiguate:
        raise OptionsError(
            f"normalization={normalization!r}, disambiguate={disambiguate}: only phase "
            "correlation with disambiguation is there; leave both out"
        )
    images = [np.asarray(image) for image in (ref_img, mov_img)]
    reference, moving = (image[..., None] if image.ndim == 2 else image for image in images)
    target = (target_hw, target_hw) if isinstance(target_hw, int) else target_hw
    return np.array(rigid_shift(reference, moving, target, up, weights=weight), np.float32)
