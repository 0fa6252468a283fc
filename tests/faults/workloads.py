"""Tiny pieces of real work, each with all that it writes in one folder, for faults of all kinds.

A workload is called in a process of its own, as often as it takes, and has one result: what
`contents` returns of its folder, whatever happened before.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from scopeflow import OFOptions, RegistrationConfig, SessionConfig, compute_motion, run_session
from scopeflow.cells.results.export import export_results
from scopeflow.cells.results.merge import merge_traces
from scopeflow.cells.workflow import run_workflow
from scopeflow.engine.ledger import Ledger
from scopeflow.errors import ScopeflowError
from scopeflow.motion.correct import compensate_recording
from scopeflow.testing.synthetic import synthetic_recording
from tests.cell_movies import cell_config, cell_movie
from tests.fuzz.seeds import video
from tests.sessions.session_data import true_session, write_session

Work = Callable[[Path, Path, bool], None]
LOG = "completed.log"
"""File beside the folder of a workload: pieces that were recorded, one a line."""
QUIET = RegistrationConfig(progress=False, parallelization="sequential", block_length=2)
_FAST = {"quality_setting": "fast", "iterations": 5}


def write_inputs(folder: Path) -> None:
    """Write what the workloads read; `session` has its recordings in its own folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "movie.tif", video(), photometric="minisblack")
    movie = cell_movie(n_frames=4, height=80, width=90, n_cells=2, seed=0, late=False)
    both = np.stack([movie.phase, movie.fluorescence], 1)
    tifffile.imwrite(folder / "cells.ome.tif", both, ome=True, metadata={"axes": "TCYX"})


def prepare(name: str, inputs: Path, root: Path) -> None:
    """Make the folder of a workload as it is before its first run."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    if name == "session":
        write_session(true_session(frames=4, height=48, width=64, channels=1, count=2), root)
    if name in ("merge", "export"):
        _cells(inputs, root)


def _quiet(wait: bool) -> RegistrationConfig:
    return replace(QUIET, wait=True) if wait else QUIET


def _waiting(wait: bool) -> dict[str, bool]:
    return {"wait": True} if wait else {}


def _correct(file_format: str) -> Work:
    def run(inputs: Path, root: Path, wait: bool) -> None:
        options = OFOptions(
            input_file=str(inputs / "movie.tif"),
            output_path=str(root / "out"),
            output_format=file_format,
            buffer_size=4,
            **_FAST,
        )
        compensate_recording(options, config=_quiet(wait))

    return run


def _session(inputs: Path, root: Path, wait: bool = False) -> None:
    config = SessionConfig(
        root=root,
        center="rec_1.tif",
        align_chunk_size=2,
        flow_options={**_FAST, "reference_frames": [0], "buffer_size": 4},
    )
    run_session(config, execution=_quiet(wait))


def _cells(inputs: Path, root: Path, wait: bool = False) -> None:
    config = cell_config(min_frames=2, n_workers=1, batch_size=2)
    if not run_workflow(inputs / "cells.ome.tif", root / "out", config, **_waiting(wait)):
        sys.exit(1)  # the log has said why


def _motion(inputs: Path, root: Path, wait: bool = False) -> None:
    made = synthetic_recording(6, 32, 40, 1, seed=1, translation_px=1.0, nonrigid_px=0.3)
    options = OFOptions(**_FAST, buffer_size=4)
    compute_motion(made.video, made.reference, options).save(root / "motion.zarr", _quiet(wait))


def _merge(inputs: Path, root: Path, wait: bool = False) -> None:
    merge_traces(root / "out", overwrite=True, **_waiting(wait))


def _export(inputs: Path, root: Path, wait: bool = False) -> None:
    for file_format in ("ome-ngff", "csv"):
        export_results(
            root / "out", root / "exported", file_format, overwrite=True, **_waiting(wait)
        )


WORKLOADS: dict[str, Work] = {
    "correct to zarr": _correct("ZARR"),
    "correct to HDF5": _correct("HDF5"),
    "correct to TIFF": _correct("TIFF"),
    "session": _session,
    "cells": _cells,
    "motion": _motion,
    "merge": _merge,
    "export": _export,
}


_RARE = ("correct to HDF5", "correct to TIFF", "motion", "merge", "export")
USUAL = [pytest.param(n, marks=[pytest.mark.fuzz] * (n in _RARE)) for n in WORKLOADS]
"""Workloads as parameters of tests: some are tried only when all is asked for (``-m fuzz``)."""


def run(name: str, inputs: str, root: str, wait: bool = False) -> None:
    """Do the work of a name; an expected failure ends as in the command, by one line and exit 1."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, force=True)
    for level in (logging.WARNING, logging.ERROR):
        logging.addLevelName(level, logging.getLevelName(level).lower())
    follow(Path(root).parent / LOG)
    try:
        WORKLOADS[name](Path(inputs), Path(root), wait)
    except (ScopeflowError, OSError) as error:
        sys.exit(_say(f"error: {' '.join(str(error).split())}"))


def follow(log: Path) -> None:
    """Let every piece of work that is recorded in this process be a line of a file."""
    complete = Ledger.complete

    def and_tell(self: Ledger, name: str, *words: Any, **more: Any) -> None:
        complete(self, name, *words, **more)
        with log.open("a") as file:
            file.write(f"{self.folder}/{name}\n")

    Ledger.complete = and_tell  # type: ignore[method-assign]


def _say(message: str) -> int:
    sys.stderr.write(message + "\n")
    return 1


def contents(root: Path) -> dict[str, str]:
    """Digest of every result; what scopeflow keeps for itself, and times, are left out."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not _own(path.relative_to(root))
    }


def _own(path: Path) -> bool:
    # Reports tell when and how something was done; the settings of cells name the program.
    return ".scopeflow" in path.parts or path.name in (
        "run.json",
        "session_report.json",
        "processing_config.yaml",
    )
