"""What a cell workflow has finished, from its records; computes nothing."""

from __future__ import annotations

import os
import re
from typing import Any

from scopeflow.cells.plan import RECORDS
from scopeflow.engine.ledger import StoredRecord
from scopeflow.errors import InputNotFoundError
from scopeflow.io.addresses import expanded
from scopeflow.io.state import load_state

__all__ = ["workflow_status"]


def workflow_status(output: str | os.PathLike[str]) -> list[tuple[int | str, ...]]:
    """Return one row for each field of view (FOV) of a run.

    Parameters
    ----------
    output : path
        Folder of the run.

    Returns
    -------
    list of tuple
        ``(fov, blocks copied, segmented, tracked, cells, too short, at border, kept, objects too
        small, too large)``; all from `cells` on are empty texts until the traces are written.
        Objects are counted in every frame, cells once.

    Raises
    ------
    InputNotFoundError
        If there is no run.
    """
    root = expanded(output)
    if not (root / RECORDS / "settings.json").exists():
        raise InputNotFoundError(f"{root}: holds no run of the cell workflow; check the path")
    rows: list[tuple[int | str, ...]] = []
    for folder in sorted((root / RECORDS).glob("fov_*")):
        match = re.fullmatch(r"fov_(\d{3,})", folder.name)
        if match is None:
            continue
        names = [path.stem for path in folder.glob("*.json")]
        done = [
            sum(bool(re.fullmatch(pattern, name)) for name in names)
            for pattern in (r"(pc|fl)_ch_\d+-\d+", r"seg_labeled_ch_\d+-\d+", r"seg_tracked.*-\d+")
        ]
        traces = load_state(folder / "traces.json", StoredRecord)
        keys = ["cells_tracked", "cells_too_short", "cells_at_border", "cells_kept"]
        keys += ["objects_too_small", "objects_too_large"]
        counts = ["" if traces is None else _count(traces.values.get(key)) for key in keys]
        rows.append((int(match[1]), *done, *counts))
    return sorted(rows, key=lambda row: int(row[0]))


def _count(value: Any) -> int | str:
    return value if type(value) is int else ""
