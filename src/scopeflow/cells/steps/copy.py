"""Step 1 of the cell workflow: channels of the recording as stacks of 16-bit counts."""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from scopeflow.cells.methods.display import COUNTED, ValueCounts
from scopeflow.cells.run import Fov
from scopeflow.cells.store.arrays import IMAGES, write_frames
from scopeflow.cells.store.counts import to_counts
from scopeflow.engine.inputs import check_inputs
from scopeflow.engine.pieces import Outcome, Piece, Result
from scopeflow.io.lazy import FrameRange, load_with_state
from scopeflow.io.read.protocol import Source

__all__ = ["copy"]

logger = logging.getLogger(__name__)


class _Copied(BaseModel):
    max: int
    clipped: int


def copy(fov: Fov) -> None:
    """Copy the chosen channels."""
    plan = fov.plan
    convert = plan.config.params.convert
    pieces = []
    for name, channel in plan.copied().items():
        fov.create(name, "0", np.uint16)
        fov.counts[name] = ValueCounts()
        factor = dict(plan.factors).get(channel, 1.0)
        work = partial(copy_block, plan.folder, plan.source, channel, name, convert, factor)
        form = partial(fov.form, f"{name}/0", values=_Copied, arrays=COUNTED, without_arrays=True)
        pieces += fov.blocks(name, name, work, form)
    clipped: Counter[str] = Counter()
    reads: list[tuple[Source, dict[str, Any]]] = []

    def take(piece: Piece, outcome: Outcome) -> None:
        name = piece.name.rpartition("-")[0]
        reads.append((plan.source, outcome.values))
        fov.largest[name] = max(fov.largest.get(name, 0), outcome.values["max"])
        fov.counts[name].add(outcome.arrays)
        clipped[name] += outcome.values["clipped"]

    fov.do(pieces, take)
    fov.here(check_inputs, reads, lambda: _take_back(pieces))
    for name in plan.copied():
        if clipped[name]:
            logger.warning(
                "FOV %d, %s: %d pixels were rounded or clipped", plan.fov, name, clipped[name]
            )


def _take_back(pieces: list[Piece]) -> None:
    for piece in pieces:
        if piece.ledger is not None:
            piece.ledger.begin(piece.name)


def copy_block(
    fov: Path,
    source: Source,
    channel: int,
    name: str,
    convert: str,
    factor: float,
    start: int,
    stop: int,
) -> Result:
    """Copy frames; their values are counted here for the display level, where they are at hand."""
    pixels, read = load_with_state(FrameRange(source, start, stop))
    frames = pixels[..., channel]
    where = f"{source.description}, channel {channel}"
    counts, clipped = to_counts(frames, convert, where, factor)
    files = write_frames(fov / IMAGES, f"{name}/0", start, counts)
    values = {"max": int(counts.max(initial=0)), "clipped": clipped, **read}
    return Result(files, values, ValueCounts.of(counts))
