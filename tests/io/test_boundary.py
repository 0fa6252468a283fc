"""Whatever a library raises about a file of others is one error that names the file."""

from __future__ import annotations

import json
import logging
import os
import struct
import subprocess
import sys
from dataclasses import dataclass, replace

import h5py
import numpy as np
import pytest
import zarr

from scopeflow.errors import (
    InputNotFoundError,
    MemoryLimitError,
    OptionsError,
    ScopeflowError,
    UnreadableFileError,
)
from scopeflow.io.arrays import read_array
from scopeflow.io.locations import location
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.open import open_source
from scopeflow.io.read.boundary import understood
from scopeflow.io.read.files import stamp_file
from scopeflow.io.read.source import FileSource

RAISED = [
    struct.error("unpack requires 4 bytes"),
    KeyError("multiscales"),
    RecursionError("maximum recursion depth exceeded"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    RuntimeError("x" * 10_000),
    OSError(5, "Input/output error"),
    AssertionError(),
]


class Silent(Exception):
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize("error", [*RAISED, Silent()], ids=lambda error: type(error).__name__)
def test_what_nobody_expected_is_damage_of_the_file(error, caplog):
    caplog.set_level(logging.DEBUG, "scopeflow")
    with (
        pytest.raises(UnreadableFileError, match="is damaged or not understood") as caught,
        understood("day 1.czi"),
    ):
        raise error
    message = str(caught.value)
    assert message.startswith("day 1.czi: ")
    assert type(error).__name__ in message
    assert len(message) < 700
    assert caught.value.__cause__ is error
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.exc_info[1] is error


@pytest.mark.parametrize("error", [OptionsError("a"), ImportError("b"), KeyboardInterrupt()])
def test_what_is_no_damage_passes(error):
    with pytest.raises(type(error)) as caught, understood("day 1.czi"):
        raise error
    assert caught.value is error


@dataclass(frozen=True, kw_only=True)
class Failing(FileSource):
    error: BaseException

    def _read(self, start, stop):
        raise self.error


def test_frames_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "movie.bin"
    path.write_bytes(b"x")
    source = Failing(
        stamp=stamp_file(path),
        shape=(9, 4, 5, 1),
        dtype=np.dtype("u1"),
        metadata=VideoMetadata(),
        kind="test",
        error=KeyError("plane"),
    )
    for error in RAISED:
        with pytest.raises(UnreadableFileError, match=r"frames 2 to 4 cannot be read") as caught:
            replace(source, error=error).read(2, 5)
        assert str(path) in str(caught.value)
    with pytest.raises(MemoryLimitError, match=r"frames 2 to 4 do not fit into memory"):
        replace(source, error=MemoryError("26.8 GiB")).read(2, 5)
    with pytest.raises(KeyboardInterrupt):
        replace(source, error=KeyboardInterrupt()).read(2, 5)


def ome_zarr(path):
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("0", shape=(4, 1, 12, 13), chunks=(2, 1, 12, 13), dtype="u2")[:] = 1
    axes = [{"name": name, "type": "space"} for name in "tcyx"]
    scales = [{"type": "scale", "scale": [1, 1, 1, 1]}]
    level = {"path": "0", "coordinateTransformations": scales}
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [level]}],
    }
    return path


def leaves(value, path=()):
    if isinstance(value, dict):
        return [leaf for key, one in value.items() for leaf in leaves(one, (*path, key))]
    if isinstance(value, list):
        return [leaf for key, one in enumerate(value) for leaf in leaves(one, (*path, key))]
    return [path]


def changed(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


def is_refused_by_name(path, **choices) -> bool:
    try:
        open_source(path, **choices)
    except ScopeflowError as error:
        if str(path) not in str(error):
            raise
        return True
    return False


def test_changed_metadata_of_zarr_give_one_error(tmp_path):
    """Every leaf, and every list and table above it, is replaced by values of other kinds."""
    origin = ome_zarr(tmp_path / "movie.zarr")
    refused = 0
    for file in (origin / "zarr.json", origin / "0" / "zarr.json"):
        text = file.read_text()
        metadata = json.loads(text)
        places = {path[:n] for path in leaves(metadata) for n in range(1, len(path) + 1)}
        for place in sorted(places, key=str):
            for new in (None, -1, [], {}):
                file.write_text(json.dumps(changed(metadata, place, new)))
                refused += is_refused_by_name(origin)
        file.write_text(text)
    assert refused > 20
    assert open_source(origin).shape == (4, 12, 13, 1)


def test_damaged_directories_of_hdf5_give_one_error(tmp_path):
    path = tmp_path / "movie.h5"
    with h5py.File(path, "w") as file:
        for name in "abcdef":
            file.create_dataset(f"{name}/mov", data=np.ones((3, 12, 13), "u2"))
    data = path.read_bytes()
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(60):
        damaged = bytearray(data)
        start = int(rng.integers(8, len(data) - 40))
        damaged[start : start + 40] = rng.bytes(40)
        path.write_bytes(damaged)
        refused += is_refused_by_name(path, dataset="c/mov")
    assert refused > 0


def test_names_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert location("~").is_dir()
    with pytest.raises(InputNotFoundError, match="~no-such-user"):
        open_source("~no-such-user/movie.tif")
    np.save("~.npy", np.ones(3))
    assert read_array("~.npy").shape == (3,)


def test_arrays_of_others_are_numbers_of_the_size_of_the_file(tmp_path):
    path = tmp_path / "image.npy"
    np.save(path, np.array([{"a": 1}, None]), allow_pickle=True)
    with pytest.raises(UnreadableFileError, match="objects"):
        read_array(path)
    with path.open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 1 << 10)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(UnreadableFileError, match="truncated"):
        read_array(path)
    path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff")
    with pytest.raises(UnreadableFileError, match="damaged or not understood"):
        read_array(path)
    path.write_bytes(os.urandom(50))
    with pytest.raises(UnreadableFileError, match="damaged or not understood"):
        read_array(path)
    for array in (np.arange(6).reshape(2, 3), np.asfortranarray(np.ones((2, 3), "f4"))):
        np.save(path, array)
        np.testing.assert_array_equal(read_array(path), array)
    with pytest.raises(InputNotFoundError):
        read_array(tmp_path / "none.npy")


@pytest.mark.parametrize("value", [255, 0x7FFFFFFF])
def test_a_matlab_file_with_any_number_in_its_header_does_no_harm(tmp_path, value):
    """SciPy looks types up without a check, and crashed; sizes of 2**31 frames hung the run."""
    from scipy.io import savemat

    path = tmp_path / "movie.mat"
    savemat(path, {"mov": np.arange(6 * 20 * 24, dtype="u2").reshape(20, 24, 6)})
    content = path.read_bytes()
    program = (
        "import sys\nfrom pathlib import Path\nfrom scopeflow.io.open import open_source\n"
        "path, value = Path(sys.argv[1]), int(sys.argv[2])\ncontent = path.read_bytes()\n"
        "for at in range(128, 200, 4):\n"
        "    changed = content[:at] + value.to_bytes(4, 'little') + content[at + 4:]\n"
        "    path.write_bytes(changed)\n"
        "    try:\n"
        "        source = open_source(path)\n"
        "        assert source.shape[0] * source.shape[1] < 10**6\n"
        "        source.read(0, 1)\n"
        "    except (ValueError, OSError, LookupError):\n        pass\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path), str(value)], check=False)
    assert done.returncode == 0
    assert len(content) == len(path.read_bytes())
