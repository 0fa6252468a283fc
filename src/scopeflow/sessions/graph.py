"""The dask graphs of a session: trees of sums and of masks.

Never computes, knows no file format. All tasks are pieces of work, so a leaf that fails fails the
tree, and with it the product of its recording alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from dask.delayed import Delayed
from numpy.typing import NDArray

from scopeflow.engine.pieces import Outcome, Piece, Result, task_of
from scopeflow.io.lazy import LazyVideo, load_frames
from scopeflow.sessions.align import always_valid, sum_frames

FAN_IN = 8
_LEAF_BYTES = 32 * 2**20


def temporal_mean(video: LazyVideo) -> Delayed:
    """Return a task whose outcome has the mean over frames ``(T, H, W, C)``: float64 ``(H, W, C)``.

    The frames of one leaf, and so the order of floating-point sums, depend on the size of the
    frames alone: the mean has the same bits wherever it is computed.
    """
    total = _tree("session-sum", _sum, _add, video)
    return _task("session-average", _divide, total, arguments=(video.shape[0],))


def valid_everywhere(video: LazyVideo) -> Delayed:
    """Return a task whose outcome has the pixels that are valid in all frames: bool ``(H, W)``.

    The video holds masks ``(T, H, W, 1)``, above zero where a pixel is valid.
    """
    return _tree("session-mask", _always, _intersect, video)


def _tree(
    label: str,
    leaf: Callable[[Any], Result],
    combine: Callable[[list[Outcome]], Result],
    video: LazyVideo,
) -> Delayed:
    """Combine blocks of frames in a tree whose shape depends on the size of the video alone."""
    frames = video.shape[0]
    length = max(1, _LEAF_BYTES // (int(np.prod(video.shape[1:])) * video.dtype.itemsize))
    level: Sequence[Delayed] = [
        _task(label, leaf, video.frames(start, min(start + length, frames)))
        for start in range(0, frames, length)
    ]
    while len(level) > 1:
        level = [
            _task(f"{label}-tree", combine, [*level[start : start + FAN_IN]])
            for start in range(0, len(level), FAN_IN)
        ]
    return level[0]


def _task(
    label: str, function: Callable[..., Result], *needed: Any, arguments: tuple[Any, ...] = ()
) -> Delayed:
    return task_of(
        Piece(label, function, arguments), *needed, key=f"{label}-{uuid.uuid4().hex[:12]}"
    )


def _sum(frames: Any) -> Result:
    return Result(content=sum_frames(load_frames(frames)))


def _always(frames: Any) -> Result:
    return Result(content=always_valid(load_frames(frames)))


def _add(sums: list[Outcome]) -> Result:
    first, *others = (one.content for one in sums)
    return Result(content=np.asarray(sum(others, start=first)))


def _divide(count: int, total: Outcome) -> Result:
    mean: NDArray[np.float64] = np.asarray(total.content / count, np.float64)
    return Result(content=mean)


def _intersect(masks: list[Outcome]) -> Result:
    return Result(content=np.logical_and.reduce([one.content for one in masks]))
