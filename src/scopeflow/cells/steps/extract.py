"""Step 6 of the cell workflow: features of every cell in every frame, and the table of traces."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel

from scopeflow.cells.methods.features import Feature, grow_labels, measure_frame, resolve_features
from scopeflow.cells.methods.tracking import region_table
from scopeflow.cells.plan import TABLES, FovPlan
from scopeflow.cells.run import Fov, FovFailed
from scopeflow.cells.store.arrays import IMAGES, read_frames
from scopeflow.cells.store.tables import write_csv, write_parquet
from scopeflow.engine.ledger import Form
from scopeflow.engine.pieces import Outcome, Result, run_piece
from scopeflow.io.files import atomic_path, save_json

__all__ = ["extract", "filter_cells", "trace_table"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeasuredChannel:
    """One channel to measure: its stack, its number and its features.

    `weight` of the stack `background` is subtracted; masks grow by `margin` px.
    """

    name: str
    channel: int
    features: Mapping[str, Feature]
    background: str | None = None
    weight: float = 0.0
    margin: int = 0


class _Measured(BaseModel):
    failures: dict[str, int]


def extract(fov: Fov) -> None:
    """Measure the cells and write their traces."""
    plan, tracked = fov.plan, fov.plan.tracked
    if tracked is None:
        return
    channels = _channels(plan)
    columns = {f"{name}_ch_{one.channel}": 1 for one in channels for name in one.features}
    pieces = []
    for start, stop in plan.blocks:
        rows = fov.rows(start, stop)
        work = partial(measure_block, plan.folder, tracked, channels, start, stop, rows)
        form = Form((), _Measured, arrays=columns if len(rows) else {})
        pieces.append(fov.piece("measure", f"measure-{start:06d}", work, form, stop - start))
    outcomes = fov.do(pieces)
    fov.here(_write_tables, fov, channels, outcomes)


def _channels(plan: FovPlan) -> list[MeasuredChannel]:
    channels, params = plan.config.channels, plan.config.params
    assert channels.pc is not None
    assert plan.pc is not None
    features = resolve_features(channels.pc.features or (), "phase")
    chosen = [MeasuredChannel(plan.pc, channels.pc.channel, features)]
    for fl in channels.fl:
        features = resolve_features(fl.features or (), "fluorescence")
        name, level = f"fl_ch_{fl.channel}", f"fl_background_ch_{fl.channel}"
        weight, margin = params.background_weight, params.mask_margin
        chosen.append(MeasuredChannel(name, fl.channel, features, level, weight, margin))
    return chosen


def measure_block(
    fov: Path,
    tracked: str,
    channels: Sequence[MeasuredChannel],
    start: int,
    stop: int,
    cells: NDArray[np.int64],
) -> Result:
    """Measure the features of all channels in frames; one value a row of `cells`."""
    columns: dict[str, list[NDArray[np.float64]]] = {}
    failures: Counter[str] = Counter()
    for t in range(start, stop):
        rows = cells[cells[:, 0] == t]
        rows = rows[np.argsort(rows[:, 7])]
        table = np.column_stack([rows[:, 7], rows[:, 2:7]])
        labels = _frame(fov, tracked, t)
        for one in channels:
            if not one.features:
                continue
            masks, boxes = labels, table
            if one.margin:
                masks = grow_labels(labels, one.margin)
                boxes = region_table(masks)
            values, failed = measure_frame(
                masks,
                boxes,
                _frame(fov, one.name, t),
                one.features,
                background=None if one.background is None else _frame(fov, one.background, t),
                background_weight=one.weight,
                frame=t,
            )
            for name, numbers in values.items():
                columns.setdefault(f"{name}_ch_{one.channel}", []).append(numbers)
            failures.update({f"{name}_ch_{one.channel}": n for name, n in failed.items()})
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Result(values={"failures": dict(failures)}, arrays=arrays)


def _frame(fov: Path, stack: str, t: int) -> NDArray[Any]:
    return read_frames(fov / IMAGES, f"{stack}/0", t, t + 1)[0]


def _write_tables(fov: Fov, channels: list[MeasuredChannel], parts: list[Outcome]) -> None:
    plan, params = fov.plan, fov.plan.config.params
    failures: Counter[str] = Counter()
    for part in parts:
        failures.update(part.values["failures"])
    for name, count in failures.items():
        logger.warning("FOV %d: %s failed in %d cells and frames; NaN there", plan.fov, name, count)
    names = [f"{name}_ch_{one.channel}" for one in channels for name in sorted(one.features)]
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
    tables = [plan.traces_path(ending).name for ending in TABLES]
    write = partial(_write, plan, kept, summary)
    outcome = run_piece(fov.piece("traces", "traces", write, Form(tables)))
    if outcome.failure is not None:
        raise FovFailed(f"{fov.step}: {outcome.failure}")


def trace_table(
    fov: int, cells: NDArray[np.int64], columns: Mapping[str, NDArray[np.float64]]
) -> pd.DataFrame:
    """Return one row for each cell and frame, sorted by cell and frame.

    Features are in the order of `cells`, ``frame, label, area, y0, x0, y1, x1, cell``.

    Examples
    --------
    >>> row = np.array([[3, 1, 4, 0, 10, 2, 14, 7]])
    >>> trace_table(0, row, {}).loc[0, ["cell", "frame", "position_x", "position_y"]].tolist()
    [7.0, 3.0, 12.0, 1.0]
    """
    frame, _, _, y0, x0, y1, x1, cell = cells.T
    base: dict[str, Any] = {
        "fov": np.full(len(cells), fov, np.int64),
        "cell": cell,
        "frame": frame,
        "good": np.ones(len(cells), bool),
        # Half-open boxes: half a pixel more than the mean of pixel centres.
        "position_x": (x0 + x1) / 2.0,
        "position_y": (y0 + y1) / 2.0,
        "bbox_x0": x0,
        "bbox_y0": y0,
        "bbox_x1": x1,
        "bbox_y1": y1,
    }
    features = {
        name: values.astype(np.int64) if name.startswith("area_ch_") else values
        for name, values in columns.items()
    }
    table = pd.DataFrame({**base, **features})
    return table.sort_values(["cell", "frame"], kind="stable", ignore_index=True)


def filter_cells(
    table: pd.DataFrame, min_frames: int, border_margin: int, frame_shape: tuple[int, int]
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Leave out cells that are seen too shortly or come too near to the edge in any frame.

    A `border_margin` of 0 px is off; `frame_shape` is ``(H, W)``. Also returns ``cells_tracked``,
    ``cells_too_short``, ``cells_at_border``, ``cells_kept`` and ``rows``.
    """
    lengths = table.groupby("cell")["frame"].transform("size")
    long = table[lengths >= min_frames]
    height, width = frame_shape
    margin = border_margin
    near = (
        (long["bbox_y0"] < margin)
        | (long["bbox_x0"] < margin)
        | (long["bbox_y1"] > height - margin)
        | (long["bbox_x1"] > width - margin)
    )
    border = set(long.loc[near, "cell"]) if margin > 0 else set()
    kept = long[~long["cell"].isin(border)].reset_index(drop=True)
    tracked, lasting = table["cell"].nunique(), long["cell"].nunique()
    counts = {
        "cells_tracked": tracked,
        "cells_too_short": tracked - lasting,
        "cells_at_border": len(border),
        "cells_kept": kept["cell"].nunique(),
        "rows": len(kept),
    }
    return kept, counts


def _write(plan: FovPlan, table: pd.DataFrame, summary: dict[str, Any]) -> Result:
    """Write the traces as CSV and Parquet with the same values, and why cells are missing.

    Floats in the CSV are the shortest text that gives the same number again.
    """
    csv, parquet = plan.traces_path(), plan.traces_path("traces.parquet")
    quality = plan.traces_path("quality.json")
    with atomic_path(csv) as unfinished:
        write_csv(table, unfinished)
    with atomic_path(parquet) as unfinished:
        write_parquet(table, unfinished)
    save_json(quality, summary)
    return Result([path.name for path in (csv, parquet, quality)], summary)
