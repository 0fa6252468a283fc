"""Tables of traces and parents: their columns, and how they are read; computes nothing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

__all__ = ["BASE_COLUMNS", "LINEAGE_ENDING", "read_traces"]

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


def read_traces(path: str | Path) -> pd.DataFrame:
    """Read a CSV table of traces, per field of view or merged, without lines that start with #."""
    return pd.read_csv(path, comment="#")
