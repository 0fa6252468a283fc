"""Descriptions of zarr stores are written again where their bytes are others."""

from __future__ import annotations

import os

import numpy as np
import pytest
import zarr

from scopeflow.io.zarr.descriptions import descriptions, restore_descriptions


def make(store):
    group = zarr.create_group(store, zarr_format=3, attributes={"unit": "px"})
    group.create_array("inner/frames", shape=(4, 6), dtype="uint8", chunks=(2, 6))


@pytest.fixture
def folder(tmp_path):
    make(str(tmp_path / "a.zarr"))
    array = zarr.open_array(tmp_path / "a.zarr/inner/frames", mode="r+")
    array[...] = np.arange(24).reshape(4, 6)
    return tmp_path / "a.zarr"


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_they_are_those_that_zarr_writes_on_the_disk(folder):
    wanted = descriptions(make)
    assert sorted(wanted) == ["inner/frames/zarr.json", "inner/zarr.json", "zarr.json"]
    for name, data in wanted.items():
        assert (folder / name).read_bytes() == data


@pytest.mark.parametrize("name", ["zarr.json", "inner/zarr.json", "inner/frames/zarr.json"])
@pytest.mark.parametrize("damage", ["a bit", "short", "gone", "pipe", "link", "folder"])
def test_each_is_restored_and_nothing_else_is_touched(folder, name, damage):
    before, file = content(folder), folder / name
    data = file.read_bytes()
    if damage == "a bit":
        file.write_bytes(data.replace(b"zarr_format", b"zasr_format"))
    elif damage == "short":
        file.write_bytes(data[:-1])
    else:
        file.unlink()
        if damage == "pipe":
            os.mkfifo(file)
        elif damage == "link":
            file.symlink_to("/dev/zero")
        elif damage == "folder":
            file.mkdir()
    times = {path: path.lstat().st_mtime_ns for path in before if path != file}
    restore_descriptions(folder, descriptions(make))
    assert content(folder) == before
    assert not file.is_symlink()
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux")
def test_what_a_killed_run_left_is_safe_then(folder, monkeypatch):
    synced = set()
    fsync = os.fsync

    def note(descriptor):
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    wanted = descriptions(make)
    restore_descriptions(folder, wanted)
    files = [folder / name for name in wanted]
    folders = [folder.parent, folder, folder / "inner", folder / "inner/frames"]
    assert {str(path) for path in (*files, *folders)} <= synced


def test_a_store_is_made_where_there_is_none(tmp_path, folder):
    restore_descriptions(tmp_path / "b.zarr", descriptions(make))
    assert zarr.open_group(tmp_path / "b.zarr", mode="r").attrs["unit"] == "px"
    assert zarr.open_array(tmp_path / "b.zarr/inner/frames", mode="r").shape == (4, 6)
