"""Tables of traces and parents: their columns, how they are read and written; computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scopeflow._characters import defused, visible
from scopeflow.errors import InputError, nearest_name
from scopeflow.io.read.boundary import understood
from scopeflow.strict.values import shortened

__all__ = ["BASE_COLUMNS", "LINEAGE_ENDING", "read_traces", "write_csv", "write_parquet"]

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


def read_traces(path: str | Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV table of traces, per field of view or merged, without lines that start with #.

    Raises UnreadableFileError: it is no table.
    Raises InputError: one of `columns` is missing or holds something else than numbers.
    """
    with understood(str(path)):
        table = pd.read_csv(path, comment="#")
    for name in columns:
        if name not in table.columns:
            hint = nearest_name(name, map(str, table.columns))
            raise InputError(f"{path}: has no column {shortened(name)}.{hint} Give a merged table")
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise InputError(f"{path}: the column {shortened(name)} holds text; numbers are needed")
    return table


def write_csv(table: pd.DataFrame, path: Path, header: Sequence[str] = ()) -> None:
    """Write a table as CSV, after lines of comment; floats are the shortest exact text.

    Text of others, in cells and headers, is one line, and no formula for spreadsheet programs.
    """
    lines = "".join(f"# {visible(line)}\n" for line in header)
    text = _harmless(table).to_csv(index=False, lineterminator="\n")
    path.write_text(lines + text, encoding="utf-8", newline="\n")


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table with the same values as its CSV."""
    _harmless(table).to_parquet(path, index=False)


def _harmless(table: pd.DataFrame) -> pd.DataFrame:
    def cell(value: Any) -> Any:
        return defused(value) if isinstance(value, str) else value

    renamed = any(cell(name) != name for name in table.columns)
    changed = {
        name: table[name].map(cell)
        for name in table.columns
        if not pd.api.types.is_numeric_dtype(table[name])
    }
    return table.assign(**changed).rename(columns=cell) if changed or renamed else table
