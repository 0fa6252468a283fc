"""One block of a recording as a piece of work: read, correct, keep, record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from scopeflow.engine.ledger import Form, Ledger
from scopeflow.engine.pieces import Outcome, Piece, Result
from scopeflow.io.lazy import load_with_state
from scopeflow.motion.block.absent import with_absent
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

CLIPPED = "clipped"
"""Name of the number of clipped values of each frame, recorded beside the statistics."""

REGISTERED_SUM = "registered_sum"
"""Recorded array: the sum of the registered frames of a block, ``(H, W, C)`` float64."""


class BlockNumbers(BaseModel):
    """The numbers of a block's frames as a record holds them."""

    mean_disp: list[float]
    max_disp: list[float]
    mean_div: list[float]
    mean_translation: list[float]
    clipped: list[float]


class BlockSink(Protocol):
    """Where the arrays of a block go, and under which name its completion is recorded."""

    @property
    def ledger(self) -> Ledger | None:
        """Records of finished blocks; None where nothing outlives the run."""

    def name(self, block: Block) -> str:
        """Return the name of a block's record."""

    def files(self, block: Block) -> list[str]:
        """Return the files that the record of a block must prove, relative to the ledger's root."""

    def keep(self, block: Block, result: BlockResult) -> Result:
        """Keep the arrays of a block; return what is to be recorded."""


def recorded(result: BlockResult) -> dict[str, list[float]]:
    """Return the numbers of a block's frames as a record holds them."""
    numbers = {name: result.statistics[name].tolist() for name in STATISTICS}
    return {**numbers, CLIPPED: result.clipped.tolist()}


def statistics_of(outcome: Outcome) -> dict[str, NDArray[Any]]:
    """Return the numbers of a block's frames, by name, `CLIPPED` among them."""
    return {name: np.asarray(outcome.values[name]) for name in (*STATISTICS, CLIPPED)}


def all_statistics(outcomes: Iterable[Outcome], names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return the numbers of all frames, by name, from the outcomes of blocks in order of time."""
    parts = [statistics_of(outcome) for outcome in outcomes]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def block_piece(
    block: Block, filter_limits: tuple[int, int], request: BlockRequest, sink: BlockSink | None
) -> Piece:
    """Return the piece that corrects a block.

    It needs the frames that the block reads (or how to read them), the start of its batch, and the
    reference. Without a sink its arrays travel as the content of the outcome. An error ends the
    run: a recording is corrected as a whole or not at all.
    """
    return Piece(
        "block" if sink is None else sink.name(block),
        correct_and_keep,
        (block, filter_limits, request, sink),
        None if sink is None else sink.ledger,
        frames=block.length,
        isolated=False,
        form=None if sink is None else block_form(block, sink, request.sum_registered),
    )


def block_form(block: Block, sink: BlockSink, sum_registered: bool = False) -> Form:
    """Return what the record of a block must hold: without its sums the next batch goes wrong."""
    arrays = {}
    computed = block.computed
    if computed.seed_tail_start < computed.stop:
        arrays["motion"] = 3
    if computed.reference_tail_start < computed.stop:
        arrays["reference"] = 3
    if sum_registered:
        arrays[REGISTERED_SUM] = 3
    return Form(sink.files(block), BlockNumbers, block.length, arrays)


def correct_and_keep(
    block: Block,
    filter_limits: tuple[int, int],
    request: BlockRequest,
    sink: BlockSink | None,
    frames: Any,
    batch_start: BatchStart,
    reference: Reference | SharedReference,
) -> Result:
    """Correct one block and hand it to its sink."""
    pixels, read = load_with_state(frames)
    result = correct_block(
        pixels, block.computed, filter_limits, load_reference(reference), batch_start, request
    )
    if block.absent:
        positions = [frame - block.start for frame in block.absent]
        result = with_absent(result, block.length, positions, register=request.register)
    if sink is None:
        return Result(values={**recorded(result), **read}, arrays=result.tail, content=result)
    kept = sink.keep(block, result)
    return replace(kept, values={**kept.values, **read})
