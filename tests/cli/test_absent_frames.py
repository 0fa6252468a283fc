"""What ``scopeflow correct`` says of frames without pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from tests.cli.conftest import plain
from tests.cli.test_correct import QUICK, invoke


@pytest.fixture
def archive(frames, tmp_path):
    path = tmp_path / "movie.zarr"
    array = zarr.create_array(
        str(path), shape=frames.shape, dtype=frames.dtype, chunks=(1, *frames.shape[1:])
    )
    array[...] = frames
    for frame in (7, 8, 23):
        (path / "c" / str(frame) / "0" / "0").unlink()
    return path


def test_the_summary_counts_them_and_the_result_marks_them(archive, tmp_path):
    out = tmp_path / "out"
    words = ("correct", archive, out, *QUICK, "--reference", "2:5", "--missing", "mask")
    result = invoke(*words)
    assert result.exit_code == 0, result.stderr
    printed = plain(result.stdout)
    assert "absent 3 of 24 frames had no pixels; they are marked invalid" in printed
    assert "nan" not in printed
    valid = zarr.open_group(out / "compensated.zarr", mode="r")["valid"][:]
    assert np.flatnonzero(~valid.any(axis=(1, 2))).tolist() == [7, 8, 23]
    assert json.loads((out / "run.json").read_text())["recording"]["absent"] == [7, 8, 23]
    again = plain(invoke(*words).stdout)
    assert "reused 24 of 24 frames" in again
    assert "absent 3 of 24" in again


def test_channels_and_bins_of_them_are_known_too(archive, tmp_path):
    words = ("correct", archive, tmp_path / "out", *QUICK, "--missing", "mask")
    result = invoke(*words, "--set", "bin_size=2", "--set", "channel_idx=[0]", "--reference", "1:3")
    assert result.exit_code == 0, result.stderr
    assert "absent 3 of 12 frames" in plain(result.stdout)  # bins of 6 7, 8 9 and 22 23


def test_whole_recordings_have_no_such_line(movie, tmp_path):
    result = invoke("correct", movie, tmp_path / "out", *QUICK, "--reference", "2:5")
    assert "absent" not in plain(result.stdout)
