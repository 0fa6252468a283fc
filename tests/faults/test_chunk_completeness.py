"""A chunk that is gone or empty, of everything written in chunks: opening or reading says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from scopeflow import Motion, OFOptions
from scopeflow.cells.results.open import open_results
from scopeflow.errors import ScopeflowError
from scopeflow.io.recording import open_video
from scopeflow.io.zarr.shards import read_whole
from scopeflow.motion.correct import compensate_recording
from tests.conftest import same_bits
from tests.faults.workloads import QUIET, WORKLOADS, prepare, write_inputs
from tests.faults.workloads import run as run_workload


def of_motion(path):
    motion = Motion.open(path)
    found = {"displacement": motion.displacement.to_numpy(), "valid": motion.valid.to_numpy()}
    return found | {name: one.to_numpy() for name, one in motion.statistics.items()}


def of_correction(root):
    return {"registered": open_video(root / "out").to_numpy(), **of_motion(root / "out")}


def of_cells(root):
    fov = open_results(root / "out")[0]
    found = {name: fov.stack(name).to_numpy() for name in fov.names}
    return found | {"regions": fov.regions.to_numpy(), "table": fov.table.to_numpy(float)}


def of_export(root):
    (image,) = (root / "exported").glob("*.ome.zarr")
    found = {"image": open_video(image).to_numpy()}
    for labels in sorted((image / "labels").iterdir()):
        if labels.is_dir():
            found[labels.name] = open_video(labels).to_numpy()
    return found


READERS = {
    "correct to zarr": of_correction,
    "motion": lambda root: of_motion(root / "motion.zarr"),
    "cells": of_cells,
    "export": of_export,
}
# What nobody reads: pyramids for viewers, an image that only people look at, cut-out cells.
UNREAD = ("reference/processed", "/1/c/", "/2/c/", "/3/c/", "cells.zarr")


@pytest.fixture(scope="module", params=READERS)
def product(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("product")
    write_inputs(folder / "inputs")
    prepare(request.param, folder / "inputs", folder / "root")
    run_workload(request.param, str(folder / "inputs"), str(folder / "root"))
    return READERS[request.param], folder / "root"


def chunks(root: Path) -> list[Path]:
    """Files of chunks and shards; state is left out."""
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and "c" in path.parts and ".scopeflow" not in path.parts
    ]


@pytest.mark.parametrize("how", ["removed", "empty"])
def test_what_is_not_there_is_not_read(product, how):
    read, root = product
    before, silent = read(root), []
    for path in chunks(root / "exported" if (root / "exported").exists() else root):
        name = path.relative_to(root).as_posix()
        if any(part in name for part in UNREAD):
            continue
        content = path.read_bytes()
        path.unlink()
        if how == "empty":
            path.touch()
        try:
            found = read(root)
        except ScopeflowError as error:
            if str(root) not in str(error):
                silent.append(f"{name}: the error names no file: {error}")
        else:
            same = all(same_bits(found[key], before[key]) for key in before)
            silent.append(f"{name}: {'nobody reads it' if same else 'other numbers'}")
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    assert not silent, "\n".join(silent)
    assert all(same_bits(after, before[key]) for key, after in read(root).items())


@pytest.mark.parametrize("how", ["removed", "empty"])
def test_cut_out_cells_that_are_not_there_are_not_read(tmp_path, how):
    """Cells and their masks are arrays of one chunk each."""
    write_inputs(tmp_path / "inputs")
    prepare("cells", tmp_path / "inputs", tmp_path / "root")
    run_workload("cells", str(tmp_path / "inputs"), str(tmp_path / "root"))
    store = tmp_path / "root" / "out" / "fov_000" / "cells.zarr"
    # The step for viewers makes smaller copies, one chunk a frame, in a folder "1" beside them.
    cut_out = [one for one in chunks(store) if "1" not in one.relative_to(store).parts[1:2]]
    assert cut_out
    for path in cut_out:
        array = next(one for one in path.parents if (one / "zarr.json").is_file())
        read_whole(array)
        path.unlink()
        if how == "empty":
            path.touch()
        with pytest.raises((OSError, ValueError, KeyError, RuntimeError, ScopeflowError)):
            read_whole(array)


@pytest.mark.parametrize("how", ["removed", "empty"])
def test_a_recording_with_a_chunk_missing_is_refused(tmp_path, how):
    """As a zarr input: an interrupted copy is no shorter recording and has no black frames."""
    write_inputs(tmp_path / "inputs")
    prepare("correct to zarr", tmp_path / "inputs", tmp_path / "root")
    WORKLOADS["correct to zarr"](tmp_path / "inputs", tmp_path / "root", False)
    source = tmp_path / "copy.zarr"
    shutil.copytree(tmp_path / "root" / "out" / "compensated.zarr" / "registered", source)
    chunk = chunks(source)[1]
    chunk.unlink()
    if how == "empty":
        chunk.touch()
    options = OFOptions(
        input_file=str(source),
        output_path=str(tmp_path / "again"),
        quality_setting="fast",
        iterations=5,
    )
    with pytest.raises(ScopeflowError, match=str(source)):
        compensate_recording(options, config=QUIET)


def test_results_that_are_not_finished_say_so(tmp_path):
    """All chunks may be there, and the run still not done."""
    from tests.fuzz.server import ForkServer

    write_inputs(tmp_path / "inputs")
    prepare("correct to zarr", tmp_path / "inputs", tmp_path / "root")
    with ForkServer(tmp_path) as server:
        words = ("correct", str(tmp_path / "inputs" / "movie.tif"), str(tmp_path / "root" / "out"))
        flags = ("--quality", "fast", "--scheduler", "sequential", "--block-length", "2")
        ended = server.call(
            "tests.fuzz.mutate_state:dies", 9, *words, *flags, "--set", "iterations=5",
            folder=tmp_path,
        )  # fmt: skip
    assert ended.code == 9, ended.err
    for read in (lambda: open_video(tmp_path / "root" / "out").to_numpy(),
                 lambda: of_motion(tmp_path / "root" / "out")):  # fmt: skip
        with pytest.raises(
            ScopeflowError, match=r"not complete|not finished|interrupted|unfinished"
        ):
            read()
    assert np.isfinite(ended.seconds)
