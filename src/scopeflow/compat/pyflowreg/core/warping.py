"""Warps with separate ``u`` and ``v``, as PyFlowReg calls them; each calls one kernel of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scopeflow.images.interpolation import Interpolation
from scopeflow.images.warp import valid_mask, warp, warp_mask
from scopeflow.motion.options.enums import InterpolationMethod
from scopeflow.sessions.align import align_corrected_frames

__all__ = [
    "align_sequence",
    "backward_valid_mask",
    "compute_batch_valid_masks",
    "imregister_binary",
    "imregister_wrapper",
]


def _flow(u: ArrayLike, v: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.stack(
        [np.broadcast_to(np.asarray(part, np.float32), shape[:2]) for part in (u, v)], axis=-1
    )


def _interpolation(name: str) -> Interpolation:
    how: Interpolation = InterpolationMethod(name).value
    return how


def backward_valid_mask(u: ArrayLike, v: ArrayLike) -> NDArray[np.bool_]:
    """Tell which pixels are taken from inside the frame.

    Parameters
    ----------
    u, v : array_like, shape (H, W)
        Displacement to the right and down, pixels.

    Returns
    -------
    ndarray of bool, shape (H, W)
        True inside.

    Examples
    --------
    >>> backward_valid_mask(np.full((2, 3), 1.0), np.zeros((2, 3))).tolist()
    [[True, True, False], [True, True, False]]
    """
    return valid_mask(_flow(u, v, np.shape(u)))


def imregister_binary(mask: NDArray[Any], u: ArrayLike, v: ArrayLike) -> NDArray[np.bool_]:
    """Move a mask ``(H, W)``, nearest pixel; False where nothing is known."""
    return warp_mask(np.asarray(mask) > 0, _flow(u, v, np.shape(mask)))


def compute_batch_valid_masks(w: NDArray[Any]) -> NDArray[np.uint8]:
    """Return masks ``(T, H, W)`` of displacements ``(T, H, W, 2)``: 255 inside, else 0."""
    return np.stack(
        [valid_mask(np.asarray(flow, np.float32)).astype(np.uint8) * np.uint8(255) for flow in w]
    )


def imregister_wrapper(
    f2_level: NDArray[Any],
    u: ArrayLike,
    v: ArrayLike,
    f1_level: NDArray[Any],
    interpolation_method: str = "cubic",
) -> NDArray[np.float32]:
    """Resample a frame along a displacement.

    Parameters
    ----------
    f2_level : ndarray, shape (H, W) or (H, W, C)
        Moving frame.
    u, v : array_like
        Displacement, pixels; broadcast to ``(H, W)``.
    f1_level : ndarray, same shape
        Values of pixels from outside.
    interpolation_method : {"cubic", "linear", "nearest"}
        Interpolation.

    Returns
    -------
    ndarray of float32
        ``(H, W)`` for one channel, else ``(H, W, C)``.
    """
    moving, fill = np.asarray(f2_level), np.asarray(f1_level)
    moving = moving[..., None] if moving.ndim == 2 else moving
    fill = fill[..., None] if fill.ndim == 2 else fill
    how = _interpolation(interpolation_method)
    moved = warp(moving, _flow(u, v, moving.shape), fill.astype(np.float32), how)
    return moved[..., 0] if moved.shape[2] == 1 else moved


def align_sequence(
    batch: NDArray[Any],
    displacement: NDArray[Any],
    reference: NDArray[Any],
    interpolation_method: str = "cubic",
    n_workers: int = 1,  # noqa: ARG001 - the result does not depend on it
) -> NDArray[Any]:
    """Move all frames along one displacement.

    Parameters
    ----------
    batch : ndarray, shape (T, H, W) or (T, H, W, C)
        Frames.
    displacement : ndarray, shape (H, W, 2)
        Pixels.
    reference : ndarray, shape (H, W) or (H, W, C)
        Values of pixels from outside.
    interpolation_method : {"cubic", "linear", "nearest"}
        Interpolation.
    n_workers : int
        Accepted for old scripts.

    Returns
    -------
    ndarray
        Shape and dtype of `batch`; rounded half to even and clipped.
    """
    frames, fill = np.asarray(batch), np.asarray(reference)
    frames = frames[..., None] if frames.ndim == 3 else frames
    fill = fill[..., None] if fill.ndim == 2 else fill
    how = _interpolation(interpolation_method)
    aligned, _ = align_corrected_frames(frames, displacement, fill, frames.dtype, how)
    return aligned[..., 0] if np.ndim(batch) == 3 else aligned
