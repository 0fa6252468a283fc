"""Rigid shift between two frames by phase correlation: a start for the flow of large motions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, OptionsError
from scopeflow.images.resize import resize_image


def _one_plane(image: NDArray[Any], weights: Any) -> NDArray[np.float32]:
    """Weighted sum of the channels."""
    image = np.asarray(image, np.float32)
    channels = image.shape[-1]
    if channels == 1:
        return image[..., 0]
    if weights is None:
        return image.mean(axis=-1, dtype=np.float32)
    weights = np.asarray(weights, np.float32)
    if weights.shape == (channels,):
        total = float(weights.sum())
        return image @ (weights / (total or 1.0))
    if weights.shape == image.shape[:2]:
        weights = np.broadcast_to(weights[..., None], image.shape)
    if weights.shape != image.shape:
        raise InputError(
            f"Weights of shape {weights.shape} were given for frames of shape {image.shape}; use "
            "(C,), (H, W) or (H, W, C)."
        )
    return np.einsum("yxc,yxc->yx", image, weights)


def rigid_shift(
    reference: NDArray[Any],
    moving: NDArray[Any],
    target_shape: tuple[int, int] | None = (256, 256),
    upsample_factor: int = 1,
    weights: Any = None,
) -> tuple[np.float32, np.float32]:
    """Displacement of the content of a frame relative to the reference.

    Both images are reduced to at most `target_shape`, freed of their mean, multiplied by a Hann
    window and compared by phase correlation (Guizar-Sicairos et al. 2008, as implemented in
    scikit-image).

    `reference`, `moving`: ``(H, W, C)`` preprocessed images.
    `target_shape`: rows and columns to reduce to at most; None keeps full resolution.
    `upsample_factor`: shifts are found to ``1 / upsample_factor`` reduced pixels.
    `weights`: ``(C,)``, ``(H, W)`` or ``(H, W, C)`` weights of the channels; equal when None.
    Returns `dx, dy`: along columns and rows, full-resolution pixels; adding them to a zero flow
        aligns `moving`. Both are zero when one image is constant.
    Raises InputError: when shapes differ or values are not finite.
    Raises OptionsError: when the upsampling factor is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> frame = np.random.default_rng(0).random((64, 96, 1))
    >>> dx, dy = rigid_shift(frame, np.roll(frame, (3, -5), (0, 1)))
    >>> float(dx), float(dy)
    (-5.0, 3.0)
    """
    # Imported here: few runs need it, and it would be a tenth of the start of all others.
    from skimage.registration import phase_cross_correlation

    reference, moving = np.asarray(reference), np.asarray(moving)
    if reference.shape != moving.shape or reference.ndim != 3:
        raise InputError(
            f"A reference of shape {reference.shape} and a frame of shape {moving.shape} were "
            "given; both need the same shape (H, W, C)."
        )
    if upsample_factor < 1:
        raise OptionsError(f"upsample_factor = {upsample_factor} was given; 1 or more is needed.")
    height, width = reference.shape[:2]
    rows, cols = (height, width) if target_shape is None else target_shape
    rows, cols = min(height, int(rows)), min(width, int(cols))
    window = np.outer(np.hanning(rows), np.hanning(cols)).astype(np.float32)
    planes = []
    for name, image in (("reference", reference), ("frame", moving)):
        plane = _one_plane(image, weights)
        if not np.all(np.isfinite(plane)):
            raise InputError(
                f"The {name} holds NaN or infinite values; replace or mask them first."
            )
        if plane.shape != (rows, cols):
            plane = resize_image(plane, (rows, cols))
        plane = (plane - plane.mean(dtype=np.float64)).astype(np.float32) * window
        if not np.any(plane):
            return np.float32(0), np.float32(0)
        planes.append(plane)
    # What scikit-image does against warnings of empty overlaps holds for all threads or for none.
    with np.errstate(invalid="ignore", divide="ignore"):
        shift, _, _ = phase_cross_correlation(
            planes[0],
            planes[1],
            upsample_factor=int(upsample_factor),
            normalization="phase",
            disambiguate=True,
        )
    return np.float32(-shift[1] * width / cols), np.float32(-shift[0] * height / rows)
