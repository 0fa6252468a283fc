"""Step 4 of the cell workflow: the background of fluorescence, from medians of tiles."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.cells.methods.background import (
    Tiles,
    fill_tiles,
    foreground,
    surface,
    tile_medians,
    tiles_of,
)
from scopeflow.cells.methods.display import COUNTED, ValueCounts
from scopeflow.cells.run import Fov
from scopeflow.cells.store.arrays import IMAGES, read_frames, write_frames
from scopeflow.engine.ledger import Form
from scopeflow.engine.pieces import Outcome, Piece, Result

__all__ = ["background"]

logger = logging.getLogger(__name__)


def background(fov: Fov) -> None:
    """Estimate the background of all fluorescence channels."""
    plan, params = fov.plan, fov.plan.config.params
    side, radius = params.background_tile_size, params.background_dilation
    stacks = {
        f"fl_background_ch_{n}": f"fl_ch_{n}"
        for n in (fl.channel for fl in plan.config.channels.fl)
    }
    if plan.labelled is None:
        logger.warning("FOV %d: background without cells: every pixel counts", plan.fov)
    pieces: list[Piece] = []
    for out, fl in stacks.items():
        fov.create(out, "0", np.float32)
        fov.counts[out] = ValueCounts()
        look = partial(medians_block, plan.folder, fl, plan.labelled, side, radius)
        pieces += fov.blocks(out, f"medians-{out}", look, _medians_form, counted=False)
    outcomes = fov.do(pieces)
    tiles = tiles_of(*plan.shape[1:], side)
    pieces, count = [], len(plan.blocks)
    for n, out in enumerate(stacks):
        parts = [one.arrays for one in outcomes[n * count : (n + 1) * count]]
        found, low = (np.concatenate([one[name] for one in parts]) for name in ("medians", "low"))
        medians = _fill_frames(found, low, f"FOV {plan.fov}, {out}")
        for start, stop in plan.blocks:
            work = partial(surface_block, plan.folder, out, start, medians[start:stop], tiles)
            form = fov.form(f"{out}/0", start, stop, arrays=COUNTED, without_arrays=True)
            pieces.append(fov.piece(out, f"{out}-{start:06d}", work, form, stop - start))

    def take(piece: Piece, outcome: Outcome) -> None:
        fov.counts[piece.name.rpartition("-")[0]].add(outcome.arrays)

    fov.do(pieces, take)


def _medians_form(start: int, stop: int) -> Form:  # noqa: ARG001
    return Form((), arrays={"medians": 3, "low": 1})


def medians_block(
    fov: Path, fl: str, labelled: str | None, tile: int, radius: int, start: int, stop: int
) -> Result:
    """Take the medians of the background in tiles; 5th percentiles where a frame has none."""
    frames = read_frames(fov / IMAGES, f"{fl}/0", start, stop)
    labels = None if labelled is None else read_frames(fov / IMAGES, f"{labelled}/0", start, stop)
    tiles = tiles_of(frames.shape[1], frames.shape[2], tile)
    medians, low = np.empty((len(frames), *tiles.shape)), np.full(len(frames), np.nan)
    for n, frame in enumerate(frames):
        mask = np.zeros(frame.shape, bool)
        if labels is not None:
            mask = foreground(labels[n], radius)
        medians[n] = tile_medians(frame, mask, tiles)
        if np.isnan(medians[n]).all():
            low[n] = np.percentile(frame, 5)
    return Result(arrays={"medians": medians, "low": low})


def surface_block(
    fov: Path, out: str, start: int, medians: NDArray[np.float64], tiles: Tiles
) -> Result:
    """Write the background of frames from their tile medians, and count it for the display."""
    frames = np.stack([surface(fill_tiles(one), tiles) for one in medians])
    files = write_frames(fov / IMAGES, f"{out}/0", start, frames)
    return Result(files, arrays=ValueCounts.of(frames))


def _fill_frames(
    medians: NDArray[np.float64], low: NDArray[Any], where: str
) -> NDArray[np.float64]:
    """Give frames without any background that of the nearest frame in time."""
    empty = np.isnan(medians).all(axis=(1, 2))
    if not empty.any():
        return medians
    known = np.flatnonzero(~empty)
    logger.warning(
        "%s: cells cover %d frames; the background is that of the nearest frame, or the 5th "
        "percentile",
        where,
        int(empty.sum()),
    )
    filled = medians.copy()
    for t in np.flatnonzero(empty):
        filled[t] = medians[known[np.argmin(np.abs(known - t))]] if known.size else low[t]
    return filled
