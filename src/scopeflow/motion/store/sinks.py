"""Where finished blocks go: a result store with its ledger, the ledger alone, or arrays here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.engine.ledger import Ledger
from scopeflow.images.resize import upsample_flow
from scopeflow.io.shared import SharedArray
from scopeflow.motion.block.values import BlockResult
from scopeflow.motion.graph.block_task import BlockOutcome, outcome_of
from scopeflow.motion.grid import Block
from scopeflow.motion.store.layout import ResultStore

_SUM = "registered_sum"


def _values(outcome: BlockOutcome) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in outcome.statistics.items()}


def _outcome(block: Block, values: dict[str, Any], tail: dict[str, Any]) -> BlockOutcome:
    statistics = {name: np.asarray(numbers) for name, numbers in values.items()}
    return BlockOutcome(block.index, statistics, tail, reused=True)


@dataclass(frozen=True)
class StoreSink:
    """Writes whole shards and records completion; what a kill leaves is found again.

    Attributes
    ----------
    store : ResultStore
        Where the arrays go.
    ledger : Ledger
        Where completion is recorded.
    """

    store: ResultStore
    ledger: Ledger

    @staticmethod
    def record_name(block: Block) -> str:
        """Return the name of a block in the ledger."""
        return f"block-{block.start:09d}-{block.stop:09d}"

    def find(self, block: Block) -> BlockOutcome | None:
        """Return the outcome of a block that was finished before, else None."""
        record = self.ledger.find(self.record_name(block))
        return None if record is None else _outcome(block, record.values, record.arrays)

    def save(self, block: Block, result: BlockResult) -> BlockOutcome:
        """Write the block's shards, then its record."""
        name = self.record_name(block)
        self.ledger.begin(name)
        files = [
            self.store.write(array, block.start, block.stop, getattr(result, array))
            for array in self.store.layout.arrays
        ]
        outcome = outcome_of(block, result)
        self.ledger.complete(name, _values(outcome), files, outcome.tail)
        return outcome


@dataclass(frozen=True)
class LedgerSink:
    """Keeps only sums, inside the ledger: for the first start and for references.

    Attributes
    ----------
    ledger : Ledger
        Where completion is recorded.
    prefix : str
        Tells this stage's records from those of other stages.
    """

    ledger: Ledger
    prefix: str

    def _record_name(self, block: Block) -> str:
        return f"{self.prefix}-{block.start:09d}-{block.stop:09d}"

    def find(self, block: Block) -> BlockOutcome | None:
        """Return the outcome of a block that was finished before, else None."""
        record = self.ledger.find(self._record_name(block))
        if record is None:
            return None
        tail = dict(record.arrays)
        total = tail.pop(_SUM, None)
        outcome = _outcome(block, record.values, tail)
        outcome.result = _sum_only(total)
        return outcome

    def save(self, block: Block, result: BlockResult) -> BlockOutcome:
        """Record the block's sums."""
        name = self._record_name(block)
        self.ledger.begin(name)
        outcome = outcome_of(block, result)
        arrays: dict[str, NDArray[Any]] = dict(outcome.tail)
        if result.registered_sum is not None:
            arrays[_SUM] = result.registered_sum
        self.ledger.complete(name, _values(outcome), arrays=arrays)
        outcome.result = _sum_only(result.registered_sum)
        return outcome


def _sum_only(total: NDArray[np.float64] | None) -> BlockResult | None:
    if total is None:
        return None
    nothing = np.empty(0)
    return BlockResult(
        nothing,
        nothing.astype(np.float32),
        nothing.astype(np.bool_),
        {},
        nothing.astype(np.int64),
        registered_sum=total,
    )


@dataclass
class ArraySink:
    """Copies results into arrays of this process.

    Attributes
    ----------
    registered : ndarray, shape (T, H, W, C), or None
        Corrected frames; None discards them.
    flow : ndarray of float32, shape (T, H, W, 2), or None
        Full-resolution displacements; None discards them.
    """

    registered: NDArray[Any] | None
    flow: NDArray[np.float32] | None

    def find(self, block: Block) -> BlockOutcome | None:
        """Return None: nothing outlives the process."""

    def save(self, block: Block, result: BlockResult) -> BlockOutcome:
        """Copy the block into the arrays."""
        if self.registered is not None:
            self.registered[block.start : block.stop] = result.registered
        if self.flow is not None:
            shape = self.flow.shape[1:3]
            for position, motion in enumerate(result.motion):
                self.flow[block.start + position] = upsample_flow(motion, shape)
        return outcome_of(block, result)


@dataclass(frozen=True)
class SharedArraySink:
    """Copies results into arrays that processes of this machine share.

    Attributes
    ----------
    registered : SharedArray
        Corrected frames, ``(T, H, W, C)``.
    flow : SharedArray
        Full-resolution displacements, ``(T, H, W, 2)``.
    """

    registered: SharedArray
    flow: SharedArray

    def find(self, block: Block) -> BlockOutcome | None:
        """Return None: nothing outlives the run."""

    def save(self, block: Block, result: BlockResult) -> BlockOutcome:
        """Copy the block into the arrays."""
        return ArraySink(self.registered.open("r+"), self.flow.open("r+")).save(block, result)
