"""Names of other packages that are not public, and that this package needs: where they moved."""

from __future__ import annotations

import asyncio
import json
import tomllib
from pathlib import Path

import nd2
import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from scopeflow.errors import UnreadableFileError
from scopeflow.io.locations import RemotePath
from scopeflow.io.open import open_source
from scopeflow.io.read.nd2 import TESTED_ND2
from scopeflow.io.zarr.stores import zarr_store
from tests.oracles.nd2_writer import write_nd2


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "a.nd2"
    write_nd2(path, np.zeros((3, 2, 1, 20, 30), np.uint16), ["a"], omit=[3])
    return path


def test_nd2_tells_which_images_a_file_holds(recording):
    with nd2.ND2File(recording) as file:
        offsets = getattr(getattr(file, "_rdr", None), "_frame_offsets", None)
        assert offsets is not None, "nd2 moved ND2File._rdr._frame_offsets: see io/read/nd2.py"
        assert sorted(offsets) == [0, 1, 2, 4, 5], "image 3 is missing"
        assert all(isinstance(place, int) for place in offsets.values())


def test_an_nd2_that_does_not_tell_is_refused(recording, monkeypatch):
    reader = nd2.ND2File(recording)
    monkeypatch.delattr(type(reader._rdr), "_frame_offsets")
    reader.close()
    with pytest.raises(UnreadableFileError, match=r"a\.nd2: nd2 \d.*nd2>=0\.10,<0\.13"):
        open_source(recording, position=1)


def test_the_bound_of_nd2_is_that_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert TESTED_ND2 in project["project"]["dependencies"]


def test_zarr_writes_into_the_dictionary_that_it_is_given():
    written = {}
    zarr.create_group(MemoryStore(written), zarr_format=3)
    assert json.loads(written["zarr.json"].to_bytes())["node_type"] == "group"


def test_zarr_runs_what_it_is_given_in_its_loop():
    from zarr.core.sync import sync  # moved: see _disconnect in io/zarr/stores.py

    async def loop():
        return asyncio.get_running_loop()

    assert sync(loop(), timeout=5) is sync(loop(), timeout=5), "one loop for all"


def test_fsspec_tells_the_name_of_an_object_in_its_bucket():
    store = zarr_store(RemotePath("memory://bucket/a/b.zarr"))
    assert store.path == "/bucket/a/b.zarr"
