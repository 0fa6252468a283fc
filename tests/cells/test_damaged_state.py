"""State files of the cell workflow: damaged, foreign or hostile ones are made again or refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from scopeflow import run_workflow
from scopeflow.cells.results.status import workflow_status
from scopeflow.errors import OutputExistsError
from tests.cell_movies import cell_config, cell_movie
from tests.damage import at_most, results, survives


@pytest.fixture(scope="module")
def movie():
    made = cell_movie(n_frames=4, height=100, width=120, n_cells=1, late=False)
    return np.stack([made.phase, made.fluorescence], axis=-1)


@pytest.fixture(scope="module")
def whole(movie, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells") / "whole"
    assert run_workflow(movie, folder, cell_config(n_workers=1))
    return folder


@pytest.mark.fuzz
def test_a_damaged_state_never_changes_results(movie, whole, tmp_path):
    def run(out):
        assert run_workflow(movie, out, cell_config(n_workers=1))

    assert survives(whole, run, tmp_path, count=1) == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"recording": 3}', b"[" * 10**5])
def test_records_tell_of_which_recording_results_are(movie, whole, tmp_path, content):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    settings = out / ".scopeflow" / "settings.json"
    settings.write_bytes(content)
    with pytest.raises(OutputExistsError, match=r"settings\.json is damaged.*no record proves"):
        run_workflow(movie[::-1], out, cell_config(n_workers=1))
    messages = []
    run_workflow(
        movie, out, cell_config(n_workers=1), progress=lambda e: messages.append(e["message"])
    )
    assert set(messages) == {"reused"}
    assert results(out) == results(whole)
    assert settings.read_bytes() == (whole / ".scopeflow" / "settings.json").read_bytes()


@pytest.mark.parametrize("name", ["fov_000/images.zarr/pc_ch_0/0", "fov_000/images.zarr"])
@pytest.mark.parametrize("content", [b"", b"[]", b'{"attributes": [1]}'])
def test_damaged_descriptions_of_our_arrays_are_written_again(
    movie, whole, tmp_path, name, content
):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    (out / name / "zarr.json").write_bytes(content)
    with at_most(60):
        assert run_workflow(movie, out, cell_config(n_workers=1))
    assert results(out) == results(whole)


def test_the_table_of_a_damaged_run_has_gaps(whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    for path in out.glob(".scopeflow/fov_000/*.json"):
        path.write_text(
            json.dumps({"fingerprint": "a", "values": {"cells_kept": "="}, "files": {}})
        )
    assert workflow_status(out)[0][4:] == ("",) * 6
