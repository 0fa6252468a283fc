"""Step 3 of the cell workflow: regions of all frames are linked, and get the numbers of cells."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.cells.methods.drift import displacement, moved_labels, region_offsets
from scopeflow.cells.methods.registered import Tracker, tracker
from scopeflow.cells.methods.tracking import overlap_counts, region_table, repaint
from scopeflow.cells.run import Fov
from scopeflow.cells.store.arrays import IMAGES, read_frames, write_frames
from scopeflow.cells.store.tables import LINEAGE_ENDING
from scopeflow.engine.ledger import Form
from scopeflow.engine.pieces import Piece, Result
from scopeflow.errors import InputError
from scopeflow.io.files import atomic_path

__all__ = ["track"]

logger = logging.getLogger(__name__)

_LARGEST = 65535
_LINKS = {"cells": 2, "lineage": 2}
_OVERLAPS = {"overlaps": 2}
_DRIFT = {"offsets": 2, "shifts": 2, **_OVERLAPS}


def track(fov: Fov) -> None:
    """Give the cells of all frames their numbers."""
    plan, params = fov.plan, fov.plan.config.params
    labelled, tracked = plan.labelled, plan.tracked
    if labelled is None or tracked is None:
        return
    fov.create(tracked, "0", np.uint16)
    seen = _look_at_frames(fov)
    if params.iou != "mask":
        seen.pop("overlaps", None)
    known = [seen.get(name) for name in ("overlaps", "offsets", "shifts")]
    link = partial(
        link_regions, plan.folder, labelled, plan.shape[0], fov.regions, tracker(params), *known
    )
    (links,) = fov.do([fov.piece(tracked, "links", link, Form((), arrays=_LINKS))])
    fov.cells = links.arrays["cells"]
    pieces = []
    for start, stop in plan.blocks:
        rows = fov.rows(start, stop)
        work = partial(repaint_block, plan.folder, labelled, tracked, start, stop, rows)
        form = fov.form(f"{tracked}/0", start, stop)
        pieces.append(fov.piece(tracked, f"{tracked}-{start:06d}", work, form, stop - start))
    path = plan.traces_path(LINEAGE_ENDING)
    if params.tracking_method == "iou":
        fov.here(path.unlink, True)  # of a method that was used before
    else:
        write = partial(write_lineage, path, fov.cells, links.arrays["lineage"])
        pieces.append(fov.piece(tracked, "lineage", write, Form((path.name,))))
    fov.do(pieces)


def _holds(arrays: Mapping[str, int]) -> Callable[[int, int], Form]:
    """Return the form of every block that leaves arrays and no file."""
    return lambda start, stop: Form((), arrays=arrays)  # noqa: ARG005


def _look_at_frames(fov: Fov) -> dict[str, NDArray[Any]]:
    """Return what links need from pixels: shared pixels of masks, and drift."""
    plan, params = fov.plan, fov.plan.config.params
    masks, mode = params.iou == "mask", params.drift_correction
    pc, labelled, tracked = str(plan.pc), str(plan.labelled), str(plan.tracked)
    pieces: list[Piece] = []
    if mode != "none":
        drift = partial(drift_block, plan.folder, pc, labelled, mode, masks)
        pieces = fov.blocks(tracked, "drift", drift, _holds(_DRIFT), counted=False)
    elif masks:
        overlap = partial(overlap_block, plan.folder, labelled)
        pieces = fov.blocks(tracked, "overlap", overlap, _holds(_OVERLAPS), counted=False)
    parts = [one.arrays for one in fov.do(pieces)]
    seen = {name: np.concatenate([one[name] for one in parts]) for name in (parts or [{}])[0]}
    if "shifts" in seen:
        _report_drift(plan.fov, seen["shifts"])
    return seen


def _report_drift(fov: int, shifts: NDArray[np.float64]) -> None:
    total = np.cumsum(shifts[:, 1:], axis=0)
    logger.info(
        "FOV %d drifted by up to %.1f px from frame to frame, %.1f px in all",
        fov,
        float(np.hypot(shifts[:, 1], shifts[:, 2]).max()),
        float(np.hypot(total[:, 0], total[:, 1]).max()),
    )


def overlap_block(fov: Path, labelled: str, start: int, stop: int) -> Result:
    """Count the pixels that regions share with those of the frame before."""
    first = max(0, start - 1)
    frames = read_frames(fov / IMAGES, f"{labelled}/0", first, stop)
    rows = [np.zeros((0, 4), np.int64)]
    for t in range(max(1, start), stop):
        shared = overlap_counts(frames[t - first], frames[t - first - 1])
        rows.append(np.column_stack([np.full(len(shared), t, np.int64), shared]))
    return Result(arrays={"overlaps": np.concatenate(rows)})


def repaint_block(
    fov: Path, labelled: str, out: str, start: int, stop: int, cells: NDArray[np.int64]
) -> Result:
    """Write frames of labels with the numbers of the cells."""
    frames = read_frames(fov / IMAGES, f"{labelled}/0", start, stop)
    tracked = np.empty_like(frames)
    for n, frame in enumerate(frames):
        rows = cells[cells[:, 0] == start + n]
        tracked[n] = repaint(frame, rows[:, 1:7], rows[:, 7])
    return Result(write_frames(fov / IMAGES, f"{out}/0", start, tracked))


def drift_block(
    fov: Path, pc: str, labelled: str, mode: str, masks: bool, start: int, stop: int
) -> Result:
    """Measure how regions moved since the frame before, and what they share with it by then."""
    first = max(0, start - 1)
    images = read_frames(fov / IMAGES, f"{pc}/0", first, stop)
    labels = read_frames(fov / IMAGES, f"{labelled}/0", first, stop)
    offsets, overlaps, shifts = [], [], []
    for t in range(start, stop):
        here = labels[t - first]
        table = region_table(here)
        if t == 0:
            offsets.append(np.zeros((len(table), 2)))
            shifts.append((0.0, 0.0, 0.0))
            continue
        moved = displacement(images[t - first - 1], images[t - first], mode)
        offsets.append(region_offsets(here, table, moved))
        whole = moved if moved.ndim == 1 else np.median(moved.reshape(-1, 2), axis=0)
        shifts.append((float(t), float(whole[1]), float(whole[0])))
        if masks:
            shared = overlap_counts(moved_labels(here, moved), labels[t - first - 1])
            overlaps.append(np.column_stack([np.full(len(shared), t, np.int64), shared]))
    return Result(
        arrays={
            "offsets": np.concatenate(offsets),
            "shifts": np.array(shifts),
            "overlaps": np.concatenate(overlaps) if overlaps else np.zeros((0, 4), np.int64),
        }
    )


def link_regions(
    fov: Path,
    labelled: str,
    n_frames: int,
    regions: NDArray[np.int64],
    tracker: Tracker,
    overlaps: NDArray[np.int64] | None = None,
    offsets: NDArray[np.float64] | None = None,
    shifts: NDArray[np.float64] | None = None,
) -> Result:
    """Give every region the number of its cell.

    `regions` are ``frame, label, area, y0, x0, y1, x1``. `overlaps`, ``frame, label, previous
    label, pixels``, let masks be compared. `offsets`, ``dy, dx`` of each region since the frame
    before, come with `shifts`, ``frame, dy, dx`` of the whole frame. The arrays of the result are
    ``cells``, regions with one more column, and ``lineage``, ``cell, parent``.

    Raises InputError: if a registered method gives something else than new numbers for the regions.
    """
    if not tracker.of_tables:
        return _by_stack(fov, labelled, n_frames, regions, tracker)
    frames = range(n_frames)
    tables: list[NDArray[Any]] = [regions[regions[:, 0] == t, 1:] for t in frames]
    shared = None if overlaps is None else [overlaps[overlaps[:, 0] == t, 1:] for t in frames]
    came_from = None
    if offsets is not None and shifts is not None:
        tables, came_from = _in_first_frame(tables, regions[:, 0], offsets, shifts)
    ids, lineage = tracker.method(tables, tracker.min_iou, shared, came_from)
    cells = np.concatenate(ids) if ids else np.zeros(0, np.int64)
    rows = np.column_stack([regions, cells])
    return Result(arrays={"cells": rows[cells > 0], "lineage": lineage})


def _in_first_frame(
    tables: list[NDArray[Any]],
    frame: NDArray[np.int64],
    offsets: NDArray[np.float64],
    shifts: NDArray[np.float64],
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Take the drift of the whole out of boxes; also return where boxes were one frame ago."""
    total = np.cumsum(shifts[:, 1:], axis=0)
    placed, came_from = [], []
    for t, table in enumerate(tables):
        here = table.astype(np.float64)
        here[:, 2:] -= np.tile(total[t], 2)
        placed.append(here)
        before = table.astype(np.float64)
        before[:, 2:] -= np.tile(offsets[frame == t] + (total[t - 1] if t else 0.0), 2)
        came_from.append(before)
    return placed, came_from


def _by_stack(
    fov: Path, labelled: str, n_frames: int, regions: NDArray[np.int64], tracker: Tracker
) -> Result:
    labels = read_frames(fov / IMAGES, f"{labelled}/0", 0, n_frames)
    given = tracker.method(labels.copy())
    parents: Mapping[int, int] = {}
    if isinstance(given, tuple) and len(given) == 2:
        given, parents = given
    tracked = np.asarray(given)
    where = f"the tracking method {tracker.name!r}"
    if tracked.shape != labels.shape or tracked.dtype.kind not in "iu":
        raise InputError(
            f"{where} gave {tracked.dtype} of shape {tracked.shape}; it has to give integers of "
            f"shape {labels.shape}, or those and a mapping of cells to parents"
        )
    if tracked.size and (tracked.min() < 0 or tracked.max() > _LARGEST):
        raise InputError(f"{where} gave numbers {tracked.min()} to {tracked.max()}; use 0 to 65535")
    cells = np.zeros(len(regions), np.int64)
    for n, (t, label, area, y0, x0, y1, x1) in enumerate(regions.tolist()):
        inside = tracked[t, y0:y1, x0:x1][labels[t, y0:y1, x0:x1] == label]
        if inside.min() != inside.max():
            raise InputError(
                f"{where} gave object {label} of frame {t} ({area} px) several numbers "
                f"({inside.min()} to {inside.max()}); it may only renumber whole objects"
            )
        cells[n] = inside[0]
    if np.any(tracked[labels == 0]):
        raise InputError(f"{where} gave numbers to pixels of the background")
    kept = cells > 0
    known = set(cells[kept].tolist())
    for cell, parent in parents.items():
        if int(cell) not in known or int(parent) not in known or cell == parent:
            raise InputError(f"{where}: parent {parent} of cell {cell}: both have to be cells")
    lineage = np.array(sorted((int(c), int(p)) for c, p in parents.items()), np.int64)
    rows = np.column_stack([regions, cells])[kept]
    twice = _twice(rows)
    if twice is not None:
        raise InputError(f"{where} gave two objects of frame {twice[0]} the number {twice[1]}")
    return Result(arrays={"cells": rows, "lineage": lineage.reshape(-1, 2)})


def _twice(rows: NDArray[np.int64]) -> tuple[int, int] | None:
    pairs, counts = np.unique(rows[:, [0, 7]], axis=0, return_counts=True)
    again = pairs[counts > 1]
    return None if not len(again) else (int(again[0, 0]), int(again[0, 1]))


def write_lineage(path: Path, cells: NDArray[np.int64], lineage: NDArray[np.int64]) -> Result:
    """Write first and last frame and parent of every cell as CSV; parent 0 where unknown."""
    parents = dict(lineage.tolist())
    lines = ["cell,first_frame,last_frame,parent"]
    for cell in np.unique(cells[:, 7]).tolist():
        frames = cells[cells[:, 7] == cell, 0]
        lines.append(f"{cell},{frames.min()},{frames.max()},{parents.get(cell, 0)}")
    with atomic_path(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Result([path.name])
