"""Steps 1, 2 and 4 of the cell workflow: copying, segmentation, background."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.cells.methods.background import tiles_of
from scopeflow.cells.methods.registered import preprocessors, segmentation_method
from scopeflow.cells.run import Fov, Run
from scopeflow.cells.steps import blocks as steps
from scopeflow.engine.pieces import Outcome

__all__ = ["background", "copy", "segment"]

logger = logging.getLogger(__name__)


def copy(run: Run, step: str, fovs: list[Fov]) -> None:
    """Copy the chosen channels into stacks of 16-bit counts."""
    pieces, owners = [], []
    for fov in run.alive(fovs):
        plan = fov.plan
        for name, channel in plan.copied().items():
            run.guarded(fov, fov.create, name, "0", np.uint16)
            for start, stop in plan.blocks:
                what: tuple[Any, ...] = (plan.folder, plan.source, channel, name, start, stop)
                pieces.append(
                    fov.piece(
                        name,
                        f"{name}-{start:06d}",
                        steps.copy_block,
                        *what,
                        plan.config.params.convert,
                        dict(plan.factors).get(channel, 1.0),
                        frames=stop - start,
                    )
                )
                owners.append((fov, name))
    clipped: dict[tuple[int, str], int] = {}
    for (fov, name), outcome in zip(owners, run.do(step, pieces), strict=True):
        values = outcome.values
        fov.largest[name] = max(fov.largest.get(name, 0), values.get("max", 0))
        key = (fov.plan.fov, name)
        clipped[key] = clipped.get(key, 0) + values.get("clipped", 0)
    for (number, name), count in clipped.items():
        if count:
            logger.warning("FOV %d, %s: %d pixels were rounded or clipped", number, name, count)


def segment(run: Run, step: str, fovs: list[Fov]) -> None:
    """Find the cells of every frame."""
    pieces, owners = [], []
    for fov in run.alive(fovs):
        plan = fov.plan
        if plan.pc is None or plan.labelled is None:
            logger.warning("FOV %d: no phase-contrast channel; no cells are searched", plan.fov)
            continue
        run.guarded(fov, fov.create, plan.labelled, "0", np.uint16)
        method = segmentation_method(plan.config.params)
        for start, stop in plan.blocks:
            what: tuple[Any, ...] = (
                plan.folder,
                plan.pc,
                plan.labelled,
                start,
                stop,
                method,
                preprocessors(),
            )
            name = f"{plan.labelled}-{start:06d}"
            pieces.append(
                fov.piece(plan.labelled, name, steps.segment_block, *what, frames=stop - start)
            )
            owners.append(fov)
    tables: dict[int, list[NDArray[np.int64]]] = {}
    for fov, outcome in zip(owners, run.do(step, pieces), strict=True):
        if outcome.failure is None:
            tables.setdefault(fov.plan.fov, []).append(outcome.arrays["regions"])
            for key in fov.removed:
                fov.removed[key] += outcome.values[key]
    for fov in run.alive(fovs):
        if fov.plan.fov in tables:
            fov.regions = np.concatenate(tables[fov.plan.fov])
        if fov.removed["too_large"]:
            logger.warning(
                "FOV %d: %d objects above max_object_size=%d px were left out",
                fov.plan.fov,
                fov.removed["too_large"],
                fov.plan.config.params.max_object_size,
            )


def background(run: Run, step: str, fovs: list[Fov]) -> None:
    """Estimate the background of fluorescence channels."""
    pieces, owners = [], []
    for fov in run.alive(fovs):
        plan, params = fov.plan, fov.plan.config.params
        if plan.labelled is None:
            logger.warning("FOV %d: background without cells: every pixel counts", plan.fov)
        for fl in plan.config.channels.fl:
            out = f"fl_background_ch_{fl.channel}"
            run.guarded(fov, fov.create, out, "0", np.float32)
            for start, stop in plan.blocks:
                what: tuple[Any, ...] = (
                    plan.folder,
                    f"fl_ch_{fl.channel}",
                    plan.labelled,
                    start,
                    stop,
                )
                sizes = (params.background_tile_size, params.background_dilation)
                name = f"medians-{out}-{start:06d}"
                pieces.append(fov.piece(out, name, steps.medians_block, *what, *sizes))
                owners.append((fov, out))
    tables: dict[tuple[int, str], list[Outcome]] = {}
    for (fov, out), outcome in zip(owners, run.do(step, pieces), strict=True):
        tables.setdefault((fov.plan.fov, out), []).append(outcome)
    pieces = []
    for fov in run.alive(fovs):
        plan = fov.plan
        tiles = tiles_of(*plan.shape[1:], plan.config.params.background_tile_size)
        for fl in plan.config.channels.fl:
            out = f"fl_background_ch_{fl.channel}"
            parts = tables[plan.fov, out]
            medians = np.concatenate([part.arrays["medians"] for part in parts])
            low = np.concatenate([part.arrays["low"] for part in parts])
            medians = _fill_frames(medians.astype(np.float64), low, f"FOV {plan.fov}, {out}")
            for start, stop in plan.blocks:
                what = (plan.folder, out, start, medians[start:stop], tiles)
                pieces.append(
                    fov.piece(
                        out, f"{out}-{start:06d}", steps.surface_block, *what, frames=stop - start
                    )
                )
    run.do(step, pieces)


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
