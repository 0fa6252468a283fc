"""Steps 5 and 6 of the cell workflow: crops, features and traces."""

from __future__ import annotations

import logging
import shutil
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.cells.methods.features import resolve_features
from scopeflow.cells.plan import FovPlan
from scopeflow.cells.run import Fov, Run
from scopeflow.cells.steps import blocks as steps
from scopeflow.cells.steps.traces import filter_cells, trace_table, write_traces
from scopeflow.cells.store.arrays import CELLS, write_array
from scopeflow.engine.pieces import Outcome, run_piece
from scopeflow.io.zarr.shards import write_group

__all__ = ["crop", "crop_groups", "crop_names", "extract"]

logger = logging.getLogger(__name__)

_GROUP_BYTES = 2**27  # of crops in the memory of one task; as many groups as workers at a time


def _measured(fov: Fov) -> list[steps.MeasuredChannel]:
    channels = fov.plan.config.channels
    weight = fov.plan.config.params.background_weight
    margin = fov.plan.config.params.mask_margin
    assert channels.pc is not None
    assert fov.plan.pc is not None
    features = resolve_features(channels.pc.features or (), "phase")
    chosen = [steps.MeasuredChannel(fov.plan.pc, channels.pc.channel, features)]
    for fl in channels.fl:
        features = resolve_features(fl.features or (), "fluorescence")
        background = f"fl_background_ch_{fl.channel}"
        name = f"fl_ch_{fl.channel}"
        measured = (name, fl.channel, features, background, weight, margin)
        chosen.append(steps.MeasuredChannel(*measured))
    return chosen


def crop_groups(fov: Fov) -> list[NDArray[np.int64]]:
    """Cut the cells into groups whose crops fit into memory together; each reads all frames."""
    rows = fov.cells
    params = fov.plan.config.params
    padding = 2 * params.crop_padding
    areas = (rows[:, 5] - rows[:, 3] + padding) * (rows[:, 6] - rows[:, 4] + padding)
    cells, index, counts = np.unique(rows[:, 7], return_inverse=True, return_counts=True)
    cells_kept = counts >= params.crop_min_frames
    per_pixel = 3 + (14 if params.corrected_crops else 6) * len(fov.plan.config.channels.fl)
    sizes = np.bincount(index, areas, minlength=len(cells)) * per_pixel
    groups: list[NDArray[np.int64]] = []
    members: list[int] = []
    total = 0.0
    for cell, size in zip(cells[cells_kept].tolist(), sizes[cells_kept].tolist(), strict=True):
        if members and (total + size > _GROUP_BYTES or len(members) >= 100):
            groups.append(rows[np.isin(rows[:, 7], members)])
            members, total = [], 0.0
        members.append(cell)
        total += size
    return [*groups, rows[np.isin(rows[:, 7], members)]] if members else groups


def crop_names(plan: FovPlan) -> tuple[str, list[tuple[str, str]]]:
    """Return the name of the masks, and (stack, stack that gives the scale) of all crops."""
    assert plan.config.channels.pc is not None
    stacks = [(name, name) for name in plan.copied()]
    fl = plan.config.channels.fl
    stacks += [(f"fl_background_ch_{one.channel}", f"fl_ch_{one.channel}") for one in fl]
    if plan.config.params.corrected_crops:
        stacks += [(f"fl_corrected_ch_{one.channel}", f"fl_ch_{one.channel}") for one in fl]
    return f"seg_mask_ch_{plan.config.channels.pc.channel}", stacks


def _crop_channels(fov: Fov) -> tuple[str, list[steps.CropChannel]]:
    mask, stacks = crop_names(fov.plan)
    weight = fov.plan.config.params.background_weight
    channels = []
    for name, of in stacks:
        scale = float(fov.largest[of] or 1)
        if name.startswith("fl_corrected_"):
            level = name.replace("fl_corrected_", "fl_background_")
            channels.append(steps.CropChannel(of, name, scale, level, weight))
        else:
            channels.append(steps.CropChannel(name, name, scale))
    return mask, channels


def _start_crops(fov: Fov, groups: list[NDArray[np.int64]]) -> steps.Result:
    """Make an empty ``cells.zarr`` with its metadata; crops of other settings are removed."""
    store = fov.plan.folder / CELLS
    if store.exists():
        shutil.rmtree(store)
    write_group(store)
    n_frames = fov.plan.shape[0]
    rows = np.concatenate(groups) if groups else fov.cells[:0]
    ids = np.unique(rows[:, 7])
    boxes = np.zeros((len(ids), n_frames, 4), np.int32)
    valid = np.zeros((len(ids), n_frames), bool)
    where = np.searchsorted(ids, rows[:, 7])
    boxes[where, rows[:, 0]] = rows[:, 3:7]
    valid[where, rows[:, 0]] = True
    write_group(store / "metadata")
    mask, channels = _crop_channels(fov)
    files = [f"{CELLS}/zarr.json", f"{CELLS}/metadata/zarr.json"]
    for name, scale in [(mask, 1.0), *((c.name, c.scale) for c in channels)]:
        padding = fov.plan.config.params.crop_padding
        write_group(store / name, {"scale": scale, "padding": padding})
        files.append(f"{CELLS}/{name}/zarr.json")
        for cell in ids.tolist():
            write_group(store / name / str(cell))
            files.append(f"{CELLS}/{name}/{cell}/zarr.json")
    files += write_array(store, "metadata/cell_ids", ids.astype(np.int32))
    files += write_array(store, "metadata/bboxes", boxes)
    files += write_array(store, "metadata/valid_frames", valid)
    return steps.Result(files)


def crop(run: Run, step: str, fovs: list[Fov]) -> None:
    """Cut all cells out of all stacks."""
    chosen = [fov for fov in run.alive(fovs) if fov.plan.tracked is not None]
    groups = {fov.plan.fov: crop_groups(fov) for fov in chosen}
    first = [
        fov.piece("crops", "crops-metadata", _start_crops, fov, groups[fov.plan.fov])
        for fov in chosen
    ]
    # Here, not in tasks: they carry everything known of a FOV.

    for fov, piece in zip(chosen, first, strict=True):
        outcome = run_piece(piece)
        if outcome.failure is not None:
            run.failed.setdefault(fov.plan.fov, f"{step}: {outcome.failure}")
        if not groups[fov.plan.fov]:
            logger.warning("FOV %d: no cell was found, so there are no crops", fov.plan.fov)
    pieces = []
    for fov in run.alive(chosen):
        plan = fov.plan
        mask, channels = _crop_channels(fov)
        for rows in groups[plan.fov]:
            name = f"crops-{int(rows[:, 7].min()):06d}"
            what: tuple[Any, ...] = (plan.folder, plan.tracked, mask, channels, rows, plan.shape[0])
            params = plan.config.params
            cut = partial(
                steps.crop_cells, padding=params.crop_padding, context=params.crop_context
            )
            pieces.append(fov.piece("crops", name, cut, *what, frames=plan.shape[0]))
    run.do(step, pieces)


def extract(run: Run, step: str, fovs: list[Fov]) -> None:
    """Measure the cells and write their traces."""
    chosen = [fov for fov in run.alive(fovs) if fov.plan.tracked is not None]
    pieces, owners = [], []
    for fov in chosen:
        plan = fov.plan
        for start, stop in plan.blocks:
            rows = fov.cells[(fov.cells[:, 0] >= start) & (fov.cells[:, 0] < stop)]
            what: tuple[Any, ...] = (plan.folder, plan.tracked, _measured(fov), start, stop, rows)
            name = f"measure-{start:06d}"
            pieces.append(
                fov.piece("measure", name, steps.measure_block, *what, frames=stop - start)
            )
            owners.append(fov)
    parts: dict[int, list[Outcome]] = {}
    for fov, outcome in zip(owners, run.do(step, pieces), strict=True):
        parts.setdefault(fov.plan.fov, []).append(outcome)
    for fov in run.alive(chosen):
        run.guarded(fov, _write_tables, fov, parts[fov.plan.fov])


def _write_tables(fov: Fov, parts: list[Outcome]) -> None:
    plan, params = fov.plan, fov.plan.config.params
    failures: dict[str, int] = {}
    for part in parts:
        for name, count in part.values["failures"].items():
            failures[name] = failures.get(name, 0) + count
    for name, count in failures.items():
        logger.warning("FOV %d: %s failed in %d cells and frames; NaN there", plan.fov, name, count)
    measured = _measured(fov)
    names = [f"{name}_ch_{one.channel}" for one in measured for name in sorted(one.features)]
    columns = {
        name: np.concatenate([part.arrays.get(name, np.zeros(0)) for part in parts])
        for name in names
    }
    # Blocks hold the rows of a frame by cell.
    order = np.lexsort((fov.cells[:, 7], fov.cells[:, 0]))
    table = trace_table(plan.fov, fov.cells[order], columns)
    kept, counts = filter_cells(table, params.min_frames, params.border_margin, plan.shape[1:])
    summary = {"fov": plan.fov, **counts, **{f"objects_{k}": v for k, v in fov.removed.items()}}
    if counts["cells_tracked"] and not counts["cells_kept"]:
        logger.warning(
            "FOV %d: no trace is left: of %d cells %d were seen in fewer than min_frames=%d of %d "
            "frames and %d came within border_margin=%d px of the edge",
            plan.fov,
            counts["cells_tracked"],
            counts["cells_too_short"],
            params.min_frames,
            plan.shape[0],
            counts["cells_at_border"],
            params.border_margin,
        )
    write_traces(plan, kept, summary, fov.made)
