"""What identifies a recording: it enters the fingerprints of results on the disk."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from scopeflow.io.open import Source, open_source
from tests.io import test_read_formats as formats
from tests.io.test_writers_formats import write_binary

LAYOUTS = {
    formats.zarr3_sharded_tcyx: ("zarr", {"axes": "TCYX", "fixed": []}),
    formats.tiff_big_endian: (
        "TIFF",
        {"other_files": [], "series": [0], "axes": "TCYX", "fixed": []},
    ),
    formats.tiff_page_by_page: (
        "TIFF",
        {"other_files": [], "series": list(range(9)), "axes": "TYXS", "fixed": []},
    ),
    formats.hdf5_channels: ("HDF5", {"datasets": ["ch1", "ch2"], "axes": "TYX", "fixed": []}),
    formats.mat5_compressed: ("MAT", {"datasets": ["ch1", "ch2"], "axes": "TXY", "fixed": []}),
    formats.mat73: ("MAT v7.3", {"datasets": ["ch1", "ch2"], "axes": "TXY", "fixed": []}),
    formats.nd2_file: ("ND2", {"position": 0, "z": 0}),
}


def stamp(path, **more):
    folder = path.is_dir()
    found = [file.stat() for file in path.rglob("*") if file.is_file()] if folder else [path.stat()]
    return {
        "path": str(path),
        "size": sum(each.st_size for each in found),
        "mtime_ns": max(each.st_mtime_ns for each in found),
        "files": len(found),
    }


def check(source, expected):
    assert isinstance(source, Source)
    assert source.identity() == expected
    assert list(source.identity()) == list(expected)
    assert pickle.loads(pickle.dumps(source)) == source
    assert hash(source) == hash(pickle.loads(pickle.dumps(source)))


@pytest.mark.parametrize("write", LAYOUTS)
def test_files(tmp_path, write):
    kind, choices = LAYOUTS[write]
    path = write(tmp_path, formats.video("uint16"))
    shape = [formats.T, formats.H, formats.W, 2]
    known = {"kind": kind, **stamp(path), **choices, "shape": shape, "dtype": "<u2"}
    check(open_source(path), known)


def test_frames_without_a_choice(tmp_path):
    av = pytest.importorskip("av")
    from tests.io.test_read_video import encode

    del av
    encode(tmp_path / "a.avi", "ffv1", "gray", np.zeros((3, 32, 40), np.uint8))
    video = {"kind": "video", **stamp(tmp_path / "a.avi"), "shape": [3, 32, 40, 1]}
    check(open_source(tmp_path / "a.avi"), video)
    write_binary(tmp_path, np.zeros((4, 11, 13, 2)))
    files = [stamp(tmp_path / name) for name in ("data.bin", "data_chan2.bin")]
    check(
        open_source(tmp_path / "data.bin"),
        {"kind": "suite2p", "files": files, "shape": [4, 11, 13, 2]},
    )


def test_arrays():
    source = open_source(np.arange(3 * 16 * 20, dtype=">u2").reshape(3, 16, 20))
    assert source.identity() == {
        "kind": "array",
        "shape": [3, 16, 20, 1],
        "dtype": "<u2",
        "xxh3": "1bf79963016f2f00dd3f5a51469547bc",
    }
