"""Step 5 of the cell workflow: every cell cut out of all stacks."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.cells.plan import FovPlan
from scopeflow.cells.run import Fov, FovFailed
from scopeflow.cells.store.arrays import CELLS, IMAGES, read_frames, write_array
from scopeflow.engine.ledger import Form
from scopeflow.engine.pieces import Result, run_piece
from scopeflow.io.zarr.shards import write_group

__all__ = ["crop", "crop_groups", "crop_names"]

logger = logging.getLogger(__name__)

_GROUP_BYTES = 2**27  # of crops in the memory of one task; as many groups as workers at a time


@dataclass(frozen=True)
class CropChannel:
    """One stack to cut crops from: its name, that of the crops, and the scale to 0..1.

    `weight` of the stack `minus` is subtracted, where there is one.
    """

    stack: str
    name: str
    scale: float
    minus: str | None = None
    weight: float = 0.0


def crop(fov: Fov) -> None:
    """Cut all cells out of all stacks."""
    plan, params, tracked = fov.plan, fov.plan.config.params, fov.plan.tracked
    if tracked is None:
        return
    groups = crop_groups(fov)
    mask, channels = _crop_channels(fov)
    # Here, not in a task: it carries everything known of a FOV.
    start = partial(_start_crops, fov, groups, mask, channels)
    outcome = run_piece(fov.piece("crops", "crops-metadata", start, Form()))
    if outcome.failure is not None:
        raise FovFailed(f"{fov.step}: {outcome.failure}")
    if not groups:
        logger.warning("FOV %d: no cell was found, so there are no crops", plan.fov)
    frames, padding, context = plan.shape[0], params.crop_padding, params.crop_context
    pieces = []
    for rows in groups:
        what = (plan.folder, tracked, mask, channels, rows, frames, padding)
        work = partial(crop_cells, *what, context=context)
        pieces.append(
            fov.piece("crops", f"crops-{int(rows[:, 7].min()):06d}", work, Form(), frames)
        )
    fov.do(pieces)


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


def _crop_channels(fov: Fov) -> tuple[str, list[CropChannel]]:
    mask, stacks = crop_names(fov.plan)
    weight = fov.plan.config.params.background_weight
    channels = []
    for name, of in stacks:
        scale = float(fov.largest[of] or 1)
        if name.startswith("fl_corrected_"):
            level = name.replace("fl_corrected_", "fl_background_")
            channels.append(CropChannel(of, name, scale, level, weight))
        else:
            channels.append(CropChannel(name, name, scale))
    return mask, channels


def _start_crops(
    fov: Fov, groups: list[NDArray[np.int64]], mask: str, channels: list[CropChannel]
) -> Result:
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
    return Result(files)


def crop_cells(
    fov: Path,
    tracked: str,
    mask_name: str,
    channels: Sequence[CropChannel],
    cells: NDArray[np.int64],
    n_frames: int,
    padding: int = 0,
    *,
    context: bool = False,
) -> Result:
    """Cut a group of cells out of all stacks; each frame is read once."""
    pad = ((padding, padding), (padding, padding))
    boxes: dict[int, list[tuple[int, list[NDArray[Any]]]]] = {}
    for t in np.unique(cells[:, 0]).tolist():
        labels = read_frames(fov / IMAGES, f"{tracked}/0", t, t + 1)[0]
        stacks = [_crop_image(fov, c, t) for c in channels]
        if padding:
            labels, *stacks = (np.pad(one, pad) for one in (labels, *stacks))
        for _, _, _, y0, x0, y1, x1, cell in cells[cells[:, 0] == t].tolist():
            box = slice(y0, y1 + 2 * padding), slice(x0, x1 + 2 * padding)
            mask = labels[box] == cell
            cut = [s[box].copy() if context else np.where(mask, s[box], 0) for s in stacks]
            boxes.setdefault(cell, []).append((t, [mask.astype(np.uint8), *cut]))
    files: list[str] = []
    for cell in sorted(boxes):
        height = max(parts[0].shape[0] for _, parts in boxes[cell])
        width = max(parts[0].shape[1] for _, parts in boxes[cell])
        names = [mask_name, *(channel.name for channel in channels)]
        scales = [None, *(channel.scale for channel in channels)]
        for n, (name, scale) in enumerate(zip(names, scales, strict=True)):
            dtype = np.uint8 if scale is None else np.float32
            crop = np.zeros((n_frames, height, width), dtype)
            for t, parts in boxes[cell]:
                h, w = parts[n].shape
                crop[t, :h, :w] = parts[n] if scale is None else parts[n] / np.float64(scale)
            files += write_array(fov / CELLS, f"{name}/{cell}/0", crop)
        del boxes[cell]
    return Result(files)


def _crop_image(fov: Path, channel: CropChannel, t: int) -> NDArray[Any]:
    image = read_frames(fov / IMAGES, f"{channel.stack}/0", t, t + 1)[0]
    if channel.minus is None:
        return image
    level = read_frames(fov / IMAGES, f"{channel.minus}/0", t, t + 1)[0]
    corrected: NDArray[Any] = np.maximum(image - channel.weight * level.astype(np.float64), 0.0)
    return corrected
