"""The dask graphs of a session: trees of sums and of masks, and one task for each other product.

Never computes, knows no file format. A recording that fails must not stop the others, so a task
that raises returns a :class:`Failure`, and whatever depends on it returns the same.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask.delayed import Delayed, delayed
from numpy.typing import NDArray

from scopeflow.io.lazy import LazyVideo, load_frames
from scopeflow.sessions.align import always_valid, sum_frames

logger = logging.getLogger(__name__)

FAN_IN = 8
_LEAF_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Failure:
    """Why a product of one recording could not be made.

    Attributes
    ----------
    reason : str
        One line for people.
    """

    reason: str


def reason_of(error: BaseException) -> str:
    """Return an error as one line."""
    text = " ".join(str(error).split())
    return text or type(error).__name__


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the value of a function, or why there is none; runs inside a task."""
    for argument in arguments:
        for value in argument if isinstance(argument, list) else [argument]:
            if isinstance(value, Failure):
                return value
    try:
        return function(*arguments)
    except Exception as error:
        logger.debug("What led to the failure:", exc_info=True)
        return Failure(reason_of(error))


def product(label: str, function: Callable[..., Any], *arguments: Any) -> Delayed:
    """Return a task that gives ``function(*arguments)`` or a :class:`Failure`.

    Parameters
    ----------
    label : str
        Start of the task's key, shown on dashboards.
    function : callable
        Picklable.
    *arguments
        Values, or tasks whose values are needed.
    """
    key = f"{label}-{uuid.uuid4().hex[:12]}"
    return delayed(attempt, pure=False)(function, *arguments, dask_key_name=key)


def reduce_tree(
    label: str, leaves: Sequence[Delayed], combine: Callable[[list[Any]], Any]
) -> Delayed:
    """Combine tasks in a tree that depends on their number alone.

    Parameters
    ----------
    label : str
        Start of the keys.
    leaves : sequence of Delayed
        At least one.
    combine : callable
        Combines a list of values into one.

    Returns
    -------
    Delayed
        The combined value.
    """
    level = list(leaves)
    while len(level) > 1:
        level = [
            product(label, combine, level[start : start + FAN_IN])
            for start in range(0, len(level), FAN_IN)
        ]
    return level[0]


def temporal_mean(video: LazyVideo) -> Delayed:
    """Return a task that gives the mean over frames.

    The frames of one leaf, and so the order of floating-point sums, depend on the size of the
    frames alone: the mean has the same bits wherever it is computed.

    Parameters
    ----------
    video : LazyVideo
        Corrected frames, ``(T, H, W, C)``.

    Returns
    -------
    Delayed
        float64 ``(H, W, C)``, or a :class:`Failure`.
    """
    sums = _leaves("session-sum", _sum_of, video)
    total = reduce_tree("session-sum-tree", sums, _add)
    return product("session-average", _divide, total, video.shape[0])


def valid_everywhere(video: LazyVideo) -> Delayed:
    """Return a task that gives the pixels that are valid in all frames.

    Parameters
    ----------
    video : LazyVideo
        Masks ``(T, H, W, 1)``, above zero where valid.

    Returns
    -------
    Delayed
        bool ``(H, W)``, or a :class:`Failure`.
    """
    masks = _leaves("session-mask", _valid_of, video)
    return reduce_tree("session-mask-tree", masks, _intersect)


def _leaves(label: str, function: Callable[[Any], Any], video: LazyVideo) -> list[Delayed]:
    frames = video.shape[0]
    frame_bytes = int(np.prod(video.shape[1:])) * video.dtype.itemsize
    length = max(1, _LEAF_BYTES // frame_bytes)
    return [
        product(label, function, video.frames(start, min(start + length, frames)))
        for start in range(0, frames, length)
    ]


def _sum_of(frames: Any) -> NDArray[Any]:
    return sum_frames(load_frames(frames))


def _valid_of(frames: Any) -> NDArray[np.bool_]:
    return always_valid(load_frames(frames))


def _add(sums: list[NDArray[Any]]) -> NDArray[Any]:
    return np.asarray(sum(sums[1:], start=sums[0]))


def _divide(total: NDArray[Any], count: int) -> NDArray[np.float64]:
    return np.asarray(total / count, np.float64)


def _intersect(masks: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    return np.logical_and.reduce(masks)
