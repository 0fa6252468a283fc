"""What files look like is asked of those that hold the frames in question, and of no others."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr

from scopeflow.io.open import (
    BinnedSource,
    ChannelSelection,
    ConcatenatedFrames,
    FrameSelection,
    StackedChannels,
    open_source,
)
from scopeflow.io.read.states import changed_since_opened, state_of


def names(source, start, stop):
    return sorted(path.rpartition("movie.zarr/")[2] for path in state_of(source, start, stop))


@pytest.fixture(params=["chunks", "shards", "format 2"])
def source(request, tmp_path):
    how = {
        "chunks": {"chunks": (2, 16, 10)},
        "shards": {"chunks": (1, 16, 5), "shards": (2, 16, 10)},
        "format 2": {"chunks": (2, 16, 10), "zarr_format": 2},
    }[request.param]
    path = tmp_path / "movie.zarr"
    zarr.create_array(str(path), shape=(7, 16, 20), dtype="u2", **how)[...] = 1
    return open_source(path)


def test_a_zarr_recording_names_the_chunks_or_shards_of_the_frames(source):
    found = [name.replace(".", "/").removeprefix("c/") for name in names(source, 3, 5)]
    assert found == ["1/0/0", "1/0/1", "2/0/0", "2/0/1"]
    assert all("not there" not in text for text in state_of(source, 0, 7).values())


def test_views_name_the_files_of_their_frames(source):
    assert names(BinnedSource(source, 3), 2, 3) == names(source, 6, 7)
    assert names(FrameSelection(source, (6, 0)), 0, 1) == names(source, 6, 7)
    assert names(ChannelSelection(source, (0,)), 0, 2) == names(source, 0, 2)
    assert names(ConcatenatedFrames((source, source)), 7, 8) == names(source, 0, 1)
    assert names(StackedChannels((source, source)), 2, 3) == names(source, 2, 3)


def test_only_the_files_of_a_list_that_hold_the_frames(tmp_path):
    for number in (1, 2):
        frames = np.ones((3, 16, 20), "u2")
        tifffile.imwrite(tmp_path / f"t{number}.tif", frames, photometric="minisblack")
    both = open_source([tmp_path / "t1.tif", tmp_path / "t2.tif"])
    assert list(state_of(both, 4, 5)) == [str(tmp_path / "t2.tif")]
    assert changed_since_opened(both) == []
    tifffile.imwrite(tmp_path / "t1.tif", frames, photometric="minisblack")
    assert changed_since_opened(both) == [str(tmp_path / "t1.tif")]
    assert changed_since_opened(both, state_of(both, 4, 5)) == []


def test_arrays_have_no_files():
    assert state_of(open_source(np.ones((3, 16, 20), "u2")), 0, 3) == {}
