"""What runs on a worker for one block: look into the ledger, read, compute, write, record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scopeflow.io.lazy import load_frames
from scopeflow.motion.block.correct import correct_block
from scopeflow.motion.block.values import (
    STATISTICS,
    BatchStart,
    BlockRequest,
    BlockResult,
    Reference,
)
from scopeflow.motion.graph.shared_reference import SharedReference, load_reference
from scopeflow.motion.grid import Block


class BlockSink(Protocol):
    """Where the arrays of a block go, and how a finished block is found again."""

    def find(self, block: Block) -> BlockOutcome | None:
        """Return the outcome of a block that was finished before, else None."""

    def save(self, block: Block, result: BlockResult) -> BlockOutcome:
        """Keep the arrays of a block and record its completion."""


@dataclass
class BlockOutcome:
    """What a block task returns: small, whatever the size of the frames.

    Attributes
    ----------
    index : int
        The block.
    statistics : dict of str to ndarray
        Statistics of its frames and the number of clipped values.
    tail : dict of str to ndarray
        What the next batch depends on; empty outside the tail.
    result : BlockResult or None
        The arrays themselves, where no sink on the worker keeps them.
    reused : bool
        Whether an earlier run had finished the block.
    """

    index: int
    statistics: dict[str, NDArray[Any]]
    tail: dict[str, NDArray[np.int64]]
    result: BlockResult | None = None
    reused: bool = False

    def without_tail(self) -> BlockOutcome:
        """Return the outcome without what only the next batch needs."""
        return BlockOutcome(self.index, self.statistics, {}, self.result, self.reused)


def outcome_of(block: Block, result: BlockResult, *, keep_arrays: bool = False) -> BlockOutcome:
    """Return the small outcome of a block result.

    Parameters
    ----------
    block : Block
        Which block.
    result : BlockResult
        Its arrays and statistics.
    keep_arrays : bool, optional
        Whether the arrays travel with the outcome.
    """
    statistics: dict[str, NDArray[Any]] = {name: result.statistics[name] for name in STATISTICS}
    statistics["clipped"] = result.clipped
    return BlockOutcome(block.index, statistics, result.tail, result if keep_arrays else None)


def run_block(
    frames: Any,
    batch_start: BatchStart,
    reference: Reference | SharedReference,
    block: Block,
    filter_limits: tuple[int, int],
    request: BlockRequest,
    sink: BlockSink | None,
) -> BlockOutcome:
    """Correct one block and hand it to its sink; runs inside a dask task.

    Parameters
    ----------
    frames : ndarray or FrameRange
        The frames that the block reads, or how to read them.
    batch_start : BatchStart
        Start of the block's batch.
    reference : Reference or SharedReference
        Image to register to.
    block : Block
        Which frames.
    filter_limits : tuple of int
        Frames between which temporal filters reflect.
    request : BlockRequest
        Parameters and what to compute.
    sink : BlockSink or None
        Where arrays go; None lets them travel with the outcome.

    Returns
    -------
    BlockOutcome
        Statistics, tail, and the arrays if there is no sink.
    """
    if sink is not None and (finished := sink.find(block)) is not None:
        return finished
    result = correct_block(
        load_frames(frames),
        read_start=block.read_start,
        start=block.start,
        stop=block.stop,
        filter_limits=filter_limits,
        reference=load_reference(reference),
        batch_start=batch_start,
        request=request,
        seed_tail_start=block.seed_tail_start,
        reference_tail_start=block.reference_tail_start,
    )
    if sink is None:
        return outcome_of(block, result, keep_arrays=True)
    return sink.save(block, result)
