"""Tracking of one field of view: what links need from blocks of frames, and the links; no dask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.cells.methods.drift import displacement, moved_labels, region_offsets
from scopeflow.cells.methods.registered import Tracker
from scopeflow.cells.methods.tracking import overlap_counts, region_table
from scopeflow.cells.store.arrays import IMAGES, read_frames
from scopeflow.engine.pieces import Result
from scopeflow.errors import InputError
from scopeflow.io.files import atomic_path

__all__ = ["Tracker", "drift_block", "link_regions", "write_lineage"]

_LARGEST = 65535


def drift_block(
    fov: Path, pc: str, labelled: str, start: int, stop: int, mode: str, masks: bool
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

    Parameters
    ----------
    fov : Path
        Folder of the field of view.
    labelled : str
        Stack of labels.
    n_frames : int
        Frames.
    regions : ndarray of int64, shape (N, 7)
        ``frame, label, area, y0, x0, y1, x1``.
    tracker : Tracker
        How.
    overlaps : ndarray of int64, shape (M, 4), optional
        ``frame, label, previous label, pixels``; masks are compared then.
    offsets : ndarray of float64, shape (N, 2), optional
        ``dy, dx`` of each region since the frame before.
    shifts : ndarray of float64, shape (T, 3), optional
        ``frame, dy, dx`` of the whole frame since the one before.

    Returns
    -------
    Result
        Arrays ``cells`` (``frame, label, area, y0, x0, y1, x1, cell``) and ``lineage``
        (``cell, parent``).

    Raises
    ------
    InputError
        If a registered method gives something else than new numbers for the regions.
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
