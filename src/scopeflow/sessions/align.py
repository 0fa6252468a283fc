"""Frames of a session as arrays: sums, pixels that are always valid, alignment to the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow._shapes import VideoTYXC
from scopeflow.errors import InputError
from scopeflow.images.interpolation import Interpolation
from scopeflow.images.register import FrameRegistration


def sum_frames(frames: VideoTYXC) -> NDArray[Any]:
    """Sum frames ``(n, H, W, C)``: whole numbers exactly, others in double precision.

    Raises InputError: if a value is NaN or infinite.

    Examples
    --------
    >>> sum_frames(np.full((3, 1, 2, 1), 250, np.uint8)).ravel().tolist()
    [750, 750]
    """
    if frames.dtype.kind in "biu":
        return np.asarray(frames.sum(axis=0, dtype=np.int64))
    total = np.asarray(frames.sum(axis=0, dtype=np.float64))
    if not np.isfinite(total).all():
        raise InputError(
            f"{int((~np.isfinite(total)).sum())} pixels of the corrected frames are NaN or "
            "infinite at some time; an average needs finite values"
        )
    return total


def always_valid(masks: VideoTYXC) -> NDArray[np.bool_]:
    """Tell which pixels ``(H, W)`` are valid, above zero, in all frames ``(n, H, W, 1)``."""
    return np.asarray((masks > 0).all(axis=(0, 3)))


def align_raw_frames(
    raw: VideoTYXC,
    motion: NDArray[np.float32],
    between: NDArray[Any],
    fill: NDArray[Any],
    dtype: Any,
    interpolation: Interpolation = "cubic",
) -> tuple[VideoTYXC, int]:
    """Bring raw frames to the reference of the session, interpolating each once.

    `raw`: ``(n, H, W, C)``, frames as recorded. Values that are not finite are replaced by `fill`.
    `motion`: ``(n, h, w, 2)`` float32, displacements within the recording, on any grid, pixels of
        the frame.
    `between`: ``(H, W, 2)``, displacement of the recording against the session's reference, pixels.
        The motion within the recording is chained behind it.
    `fill`: ``(H, W, C)``, values of pixels that come from outside: the session's reference average.
    `dtype`: of the result; values are rounded half to even and clipped.
    Returns `frames`: ``(n, H, W, C)``, aligned frames.
    """
    aligned = np.empty(raw.shape, dtype)
    clipped = 0
    registration = FrameRegistration(fill, interpolation, then=between)
    for n, frame in enumerate(raw):
        if frame.dtype.kind == "f" and not np.isfinite(frame).all():
            frame = np.where(np.isfinite(frame), frame, fill).astype(frame.dtype)
        clipped += registration.apply(motion[n], frame, aligned[n])
    return aligned, clipped


def align_corrected_frames(
    corrected: VideoTYXC,
    between: NDArray[Any],
    fill: NDArray[Any],
    dtype: Any,
    interpolation: Interpolation = "cubic",
) -> tuple[VideoTYXC, int]:
    """Bring corrected frames to the reference of the session: a second interpolation.

    Arguments and results as of :func:`align_raw_frames`.
    """
    aligned = np.empty(corrected.shape, dtype)
    registration = FrameRegistration(fill, interpolation)
    registration.set_motion(np.asarray(between, np.float32))
    clipped = sum(
        registration.register(frame, out) for frame, out in zip(corrected, aligned, strict=True)
    )
    return aligned, clipped
