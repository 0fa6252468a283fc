"""Tasks that look at every frame first, so that bad data stop a run before anything is written."""

from __future__ import annotations

from typing import Any

from dask.delayed import Delayed, delayed

from scopeflow.io.lazy import LazyVideo, load_frames
from scopeflow.motion.block.preprocess import non_finite_pixels


def finite_checks(video: LazyVideo, block_length: int) -> list[Delayed]:
    """Return tasks that raise if a frame has NaN or infinite pixels; none for integer videos."""
    if video.dtype.kind != "f":
        return []
    check = delayed(_check, pure=False)
    n_frames = video.shape[0]
    return [
        check(video.frames(start, min(start + block_length, n_frames)), start)
        for start in range(0, n_frames, block_length)
    ]


def _check(frames: Any, first_frame: int) -> None:
    non_finite_pixels(load_frames(frames), first_frame, "error")
