"""Where finished blocks go: a result store with its ledger, the ledger alone, or arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.engine.ledger import Ledger
from scopeflow.engine.pieces import Result
from scopeflow.images.resize import upsample_flow
from scopeflow.io.shared import SharedArray
from scopeflow.motion.block.values import BlockResult
from scopeflow.motion.graph.block_task import REGISTERED_SUM, recorded
from scopeflow.motion.grid import Block
from scopeflow.motion.store.layout import ResultStore


@dataclass(frozen=True)
class StoreSink:
    """Writes whole shards of a result store; what a kill leaves is found again by the ledger."""

    store: ResultStore
    ledger: Ledger

    def name(self, block: Block) -> str:
        """Return the name of a block's record."""
        return f"block-{block.start:09d}-{block.stop:09d}"

    def files(self, block: Block) -> list[str]:
        """Return the shards of a block, relative to the store."""
        return [self.store.file(array, block.start) for array in self.store.layout.arrays]

    def keep(self, block: Block, result: BlockResult) -> Result:
        """Write the block's shards."""
        files = [
            self.store.write(array, block.start, block.stop, getattr(result, array))
            for array in self.store.layout.arrays
        ]
        return Result(files, recorded(result), result.tail)


@dataclass(frozen=True)
class LedgerSink:
    """Keeps only sums, inside the ledger: for the first start and for references.

    `prefix` tells the records of this stage from those of others.
    """

    ledger: Ledger
    prefix: str

    def name(self, block: Block) -> str:
        """Return the name of a block's record."""
        return f"{self.prefix}-{block.start:09d}-{block.stop:09d}"

    def files(self, block: Block) -> list[str]:  # noqa: ARG002
        """Return no file: all that is kept stands in the ledger."""
        return []

    def keep(self, block: Block, result: BlockResult) -> Result:  # noqa: ARG002
        """Return the block's sums, to be recorded."""
        arrays: dict[str, NDArray[Any]] = dict(result.tail)
        if result.registered_sum is not None:
            arrays[REGISTERED_SUM] = result.registered_sum
        return Result(values=recorded(result), arrays=arrays)


@dataclass(frozen=True, eq=False)
class ArraySink:
    """Copies results into arrays of this process, or into those that processes share.

    `registered`: ``(T, H, W, C)``, corrected frames.
    `flow`: ``(T, H, W, 2)`` float32, full-resolution displacements.
    """

    registered: NDArray[Any] | SharedArray
    flow: NDArray[np.float32] | SharedArray

    ledger = None  # nothing outlives the run

    def name(self, block: Block) -> str:
        """Return the name of a block."""
        return f"block-{block.start:09d}-{block.stop:09d}"

    def files(self, block: Block) -> list[str]:  # noqa: ARG002
        """Return no file."""
        return []

    def keep(self, block: Block, result: BlockResult) -> Result:
        """Copy the block into the arrays."""
        _writable(self.registered)[block.start : block.stop] = result.registered
        flow = _writable(self.flow)
        for position, motion in enumerate(result.motion):
            flow[block.start + position] = upsample_flow(motion, flow.shape[1:3])
        return Result(values=recorded(result), arrays=result.tail)


def _writable(array: NDArray[Any] | SharedArray) -> NDArray[Any]:
    return array.open("r+") if isinstance(array, SharedArray) else array
