"""Traces of several fields of view together, by sample; reads and writes tables only."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scopeflow._version import __version__
from scopeflow.cells.config import WorkflowConfig, load_config
from scopeflow.cells.plan import CONFIG_FILE
from scopeflow.cells.ranges import parse_ranges
from scopeflow.cells.store.tables import read_traces, write_csv, write_parquet
from scopeflow.engine.lock import only_writer_of_new
from scopeflow.errors import InputError, InputNotFoundError, OptionsError
from scopeflow.io.addresses import local_path
from scopeflow.io.files import atomic_path
from scopeflow.strict.values import excerpt, shortened

__all__ = ["frame_times", "merge_traces", "trace_files"]

logger = logging.getLogger(__name__)

_NEEDED = ("fov", "cell", "frame")


def trace_files(output: str | os.PathLike[str]) -> dict[int, Path]:
    """Return the table of traces of every field of view (FOV) of a run.

    A table ``*_traces_inspected.csv`` goes before ``*_traces.csv``.
    """
    found: dict[int, Path] = {}
    for folder in sorted(Path(output).glob("fov_*")):
        match = re.fullmatch(r"fov_(\d{3,})", folder.name)
        tables = sorted(folder.glob("*_traces_inspected.csv")) or sorted(
            folder.glob("*_traces.csv")
        )
        if match is not None and tables:
            found[int(match[1])] = tables[0]
    return dict(sorted(found.items()))


def merge_traces(
    output: str | os.PathLike[str],
    samples: Mapping[str, Any] | None = None,
    *,
    target: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    wait: bool = False,
) -> dict[str, Path]:
    """Write one table of traces a sample, with times; only cells that are good.

    Parameters
    ----------
    output : path
        Folder of a run.
    samples : mapping of str to str or list of int, optional
        FOVs of each sample, such as ``{"control": "0-5, 7"}``; by default one sample ``all``.
    target : path, optional
        Folder of the tables; by default ``merged`` in `output`.
    overwrite : bool, optional
        Replace tables that exist.
    wait : bool, optional
        Wait for another run that writes there, instead of refusing.

    Returns
    -------
    dict of str to Path
        ``{sample}_merged.csv`` by sample; a Parquet file with the same rows stands beside each.
        A column ``time``, minutes, follows ``frame``.

    Raises
    ------
    InputNotFoundError, InputError, OptionsError, OutputExistsError, OutputLockedError
        No traces there, a sample without any, a bad range or name, or a table that exists or that
        another run writes.
    """
    root = local_path(output, "the results of the cell workflow")
    tables = trace_files(root)
    if not tables:
        raise InputNotFoundError(
            f"{root}: holds no fov_*/*_traces.csv; run the cell workflow there first"
        )
    config = load_config(root / CONFIG_FILE)
    chosen: dict[str, Sequence[int]] = (
        {"all": tuple(tables)}
        if samples is None
        else {
            str(name): parse_ranges(fovs, f"sample {excerpt(str(name))}")
            for name, fovs in samples.items()
        }
    )
    if not chosen:
        raise OptionsError("samples: none is named; write such as {'control': '0-5, 7'}")
    folder = root / "merged" if target is None else local_path(target, "merged tables")
    for name in chosen:
        # Nothing that a spreadsheet program would compute, or a command take for an option.
        if not re.fullmatch(r"[\w.][\w .+-]{0,99}", name):
            raise OptionsError(
                f"sample {shortened(name)}: a name has letters, digits, blanks and . + - _, and "
                "begins with a letter, a digit, . or _; it is not longer than 100"
            )
        if not any(n in tables for n in chosen[name]):
            raise InputError(f"sample {name}: none of its FOVs {list(chosen[name])} has traces")
    seen: dict[int, str] = {}
    for name, fovs in chosen.items():
        for fov in fovs:
            if fov in seen:
                logger.warning("FOV %d is in the samples %s and %s", fov, seen[fov], name)
            seen[fov] = name
    paths = [folder / f"{name}_merged.{ending}" for name in chosen for ending in ("csv", "parquet")]
    with only_writer_of_new(paths, overwrite=overwrite, wait=wait):
        return {
            name: _write_sample(folder, name, fovs, tables, config) for name, fovs in chosen.items()
        }


def _write_sample(
    folder: Path, name: str, fovs: Sequence[int], tables: Mapping[int, Path], config: Any
) -> Path:
    missing = [fov for fov in fovs if fov not in tables]
    if missing:
        logger.warning("sample %s: FOVs %s have no traces and are left out", name, missing)
    present = [fov for fov in fovs if fov in tables]
    merged = pd.concat([read_traces(tables[fov], _NEEDED) for fov in present], ignore_index=True)
    if "good" not in merged.columns:
        raise InputError(f"{tables[present[0]]}: has no column good; run the cell workflow again")
    good = merged.groupby(["fov", "cell"])["good"].transform("first").astype(bool)
    merged = merged[good].sort_values(["fov", "cell", "frame"], ignore_index=True)
    times, origin = frame_times(config)
    merged.insert(list(merged.columns).index("frame") + 1, "time", merged["frame"].map(times))
    path = folder / f"{name}_merged.csv"
    header = [
        f"sample: {name}",
        f"fovs: {', '.join(map(str, present))}",
        f"source: {config.metadata.get('base_name', '')}",
        f"time: minutes, {origin}",
        "position, bbox: pixels; intensity: counts",
        f"software: scopeflow {__version__}",
    ]
    with atomic_path(path) as partial:
        write_csv(merged, partial, header)
    with atomic_path(path.with_suffix(".parquet")) as partial:
        write_parquet(merged, partial)
    return path


def frame_times(config: WorkflowConfig) -> tuple[Callable[[int], float], str]:
    """Return minutes by frame and where they are from: a mapping, the file, or the interval."""
    mapping = config.params.time_mapping
    if mapping is not None:
        return (lambda frame: mapping.get(int(frame), float("nan"))), "time_mapping"
    listed = config.metadata.get("timepoints_min")
    if listed:
        return (lambda frame: float(listed[int(frame)])), "of the file"
    interval = config.params.frame_interval
    return (lambda frame: float(frame) * interval), f"frame_interval {interval:g} min"
