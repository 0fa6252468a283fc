"""Frames of a block that have no pixels: what stands in the result in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scopeflow.motion.block.values import BlockResult


def with_absent(
    result: BlockResult, n_frames: int, absent: Sequence[int], *, register: bool = True
) -> BlockResult:
    """Return a block with absent frames between those that were computed.

    They are zero, without displacement and nowhere valid; their statistics are NaN. What other
    frames depend on, the tail and the sum, stays as it is.

    `result`: of the frames that are there, in order.
    `n_frames`: frames of the block, with absent ones.
    `absent`: positions of those in the block.
    `register`: False for results without registered frames.

    Examples
    --------
    >>> there = BlockResult(
    ...     np.ones((1, 2, 2, 1)), np.ones((1, 2, 2, 2), np.float32), np.ones((1, 2, 2), bool),
    ...     {"mean_disp": np.ones(1)}, np.ones(1, np.int64),
    ... )
    >>> with_absent(there, 3, [0, 2]).statistics["mean_disp"].tolist()
    [nan, 1.0, nan]
    """
    kept = np.setdiff1d(np.arange(n_frames), absent)
    # Displacements lie in memory one plane after the other, as those of a whole block.
    planes = np.zeros((n_frames, 2, *result.motion.shape[1:3]), np.float32)
    motion = np.moveaxis(planes, 1, -1)
    motion[kept] = result.motion
    registered = result.registered
    if register:
        registered = np.zeros((n_frames, *registered.shape[1:]), registered.dtype)
        registered[kept] = result.registered
    valid = np.zeros((n_frames, *result.valid.shape[1:]), np.bool_)
    valid[kept] = result.valid
    statistics = {name: np.full(n_frames, np.nan) for name in result.statistics}
    for name, values in result.statistics.items():
        statistics[name][kept] = values
    clipped = np.zeros(n_frames, np.int64)
    clipped[kept] = result.clipped
    return replace(
        result,
        registered=registered,
        motion=motion,
        valid=valid,
        statistics=statistics,
        clipped=clipped,
    )
