"""Traces of one field of view: rows of cells and frames, which are kept, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scopeflow.cells.plan import FovPlan
from scopeflow.io.files import atomic_path, save_json

__all__ = [
    "BASE_COLUMNS",
    "LINEAGE_ENDING",
    "filter_cells",
    "read_traces",
    "trace_table",
    "write_traces",
]

LINEAGE_ENDING = "lineage.csv"
"""End of the name of the table of parents, for tracking methods that find them."""

BASE_COLUMNS = (
    "fov",
    "cell",
    "frame",
    "good",
    "position_x",
    "position_y",
    "bbox_x0",
    "bbox_y0",
    "bbox_x1",
    "bbox_y1",
)


def trace_table(
    fov: int, cells: NDArray[np.int64], columns: Mapping[str, NDArray[np.float64]]
) -> pd.DataFrame:
    """Return one row for each cell and frame, sorted by cell and frame.

    Parameters
    ----------
    fov : int
        Number of the field of view.
    cells : ndarray, shape (N, 8)
        ``frame, label, area, y0, x0, y1, x1, cell``.
    columns : mapping of str to ndarray, shape (N,)
        Features in the same order.

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

    Parameters
    ----------
    table : DataFrame
        As of :func:`trace_table`.
    min_frames : int
        Least number of rows of a cell.
    border_margin : int
        Pixels; 0 is off.
    frame_shape : tuple of int
        ``(H, W)``.

    Returns
    -------
    table : DataFrame
        Rows of the cells that are left.
    counts : dict of str to int
        ``cells_tracked``, ``cells_too_short``, ``cells_at_border``, ``cells_kept`` and ``rows``.
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


def write_traces(
    plan: FovPlan, table: pd.DataFrame, summary: dict[str, Any], made: Mapping[str, str]
) -> None:
    """Write the traces as CSV and Parquet with the same values, and why cells are missing.

    Floats in the CSV are the shortest text that gives the same number again.
    """
    ledger = plan.ledger("traces", made)
    if ledger.find("traces") is not None:
        return
    ledger.begin("traces")
    csv, parquet = plan.traces_path(), plan.traces_path("traces.parquet")
    quality = plan.traces_path("quality.json")
    with atomic_path(csv) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")
    with atomic_path(parquet) as partial:
        table.to_parquet(partial, index=False)
    save_json(quality, summary)
    files = [path.name for path in (csv, parquet, quality)]
    ledger.complete("traces", summary, files)


def read_traces(path: str | Path) -> pd.DataFrame:
    """Read a table of traces, per field of view or merged.

    Parameters
    ----------
    path : path
        A CSV file.

    Returns
    -------
    DataFrame
        Lines that start with ``#`` are left out.
    """
    return pd.read_csv(path, comment="#")
