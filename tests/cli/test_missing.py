"""``--missing``: what the command line makes of pixels that a file lacks."""

from __future__ import annotations

import pytest
import zarr
from typer.testing import CliRunner

from scopeflow.cli.app import app
from tests.cli.conftest import plain, run_command


@pytest.fixture
def incomplete(tmp_path, frames):
    """A copy that was interrupted: 8 of 24 frames are missing."""
    path = tmp_path / "movie.zarr"
    zarr.create_array(path, data=frames, chunks=(8, *frames.shape[1:]))
    (path / "c/1/0/0").unlink()
    return path


def invoke(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(map(str, words)))


def test_gaps_are_one_message_that_says_how_to_go_on(incomplete, tmp_path):
    code, _, told = run_command("correct", incomplete, tmp_path / "out")
    assert code == 1
    assert told.startswith("error: ")
    assert told.count("error") == 1
    for part in ("movie.zarr: the chunk file c/1/0/0 is missing", "8 of 24", "--missing"):
        assert part in plain(told)
    assert not (tmp_path / "out").exists()


def test_inspect_counts_the_frames_that_are_masked(incomplete):
    shown = invoke("inspect", incomplete, "--missing", "mask")
    assert shown.exit_code == 0
    assert "frames that lack pixels 8, the first 8" in plain(shown.stdout)
    shown = invoke("inspect", incomplete, "--missing", "fill")
    assert shown.exit_code == 0
    assert "lack" not in shown.stdout


def test_correct_takes_the_choice(incomplete, tmp_path):
    shown = invoke("correct", incomplete, tmp_path / "out", "--missing", "fill", "--dry-run")
    assert shown.exit_code == 0, shown.stderr
    assert "24 × 40 × 48 × 1" in plain(shown.stdout)


@pytest.mark.parametrize(
    ("given", "told"),
    [("maks", "missing='maks' is not known. Did you mean 'mask'?"), ("black", "missing='black'")],
)
def test_other_choices_are_refused(incomplete, given, told):
    for command in (["inspect", incomplete], ["correct", incomplete, "out", "--dry-run"]):
        refused = invoke(*command, "--missing", given)
        assert refused.exit_code == 1
        assert told in plain(refused.stderr)
