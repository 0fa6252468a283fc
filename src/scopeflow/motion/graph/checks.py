"""Tasks that look at every frame first, so that bad data stop a run before anything is written."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from dask.delayed import Delayed, delayed

from scopeflow.io.lazy import LazyVideo, load_frames
from scopeflow.motion.block.preprocess import non_finite_pixels


def finite_checks(
    video: LazyVideo, block_length: int, absent: tuple[int, ...] = ()
) -> list[Delayed]:
    """Return tasks that raise if a frame has NaN or infinite pixels; none for integer videos.

    `absent`: frames without pixels, which are not looked at.
    """
    if video.dtype.kind != "f":
        return []
    check = delayed(_check, pure=False)
    return [
        check(video.frames(start, min(start + block_length, last)), start)
        for first, last in _runs(video.shape[0], absent)
        for start in range(first, last, block_length)
    ]


def _runs(n_frames: int, absent: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the ranges of frames between absent ones."""
    borders = pairwise((-1, *absent, n_frames))
    return [(before + 1, after) for before, after in borders if before + 1 < after]


def _check(frames: Any, first_frame: int) -> None:
    non_finite_pixels(load_frames(frames), first_frame, "error")
