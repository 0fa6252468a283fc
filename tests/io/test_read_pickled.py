"""Settings of suite2p are a pickle: read without unpickling, whatever it was made for."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
from pathlib import Path

import numpy as np
import pytest

from scopeflow.errors import UnreadableFileError
from scopeflow.io.open import open_source
from scopeflow.io.read import pickled
from scopeflow.io.read.pickled import OTHER, read_plain, read_plain_npy


def settings() -> dict:
    """What stands in ``ops.npy`` of suite2p, in kind."""
    rng = np.random.default_rng(3)
    return {
        "Ly": 11,
        "Lx": np.int64(13),
        "fs": 20.0,
        "look_one_level_down": np.float64(0.5),
        "nonrigid": True,
        "do_bidiphase": np.bool_(False),
        "meanImg": rng.random((11, 13)).astype(np.float32),
        "Vcorr": np.asfortranarray(rng.random((11, 13))),
        "xoff": rng.integers(-5, 5, 50).astype(np.int32),
        "big": rng.random(5).astype(">f8"),
        "xrange": [0, 13],
        "block_size": (128, 128),
        "badframes": rng.random(50) > 0.5,
        "frames_per_file": np.array([25, 25]),
        "first": np.array(3.5),
        "none": None,
        "file": "größe.tif",
        "raw": b"\x00\xff",
        "large": 1 << 40,
        "filelist": np.array(["a.tif", None], dtype=object),
    }


def old_names(data: bytes) -> bytes:
    for new, old in (
        (b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray"),
        (b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"),
        (b"numpy._core.numeric", b"numpy.core.numeric"),
        (b"\x8c\x13numpy.core.numeric", b"\x8c\x12numpy.core.numeric"),
    ):
        data = data.replace(new, old)
    return data


def same(found, expected):
    if isinstance(expected, np.ndarray) and expected.dtype != object:
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, np.ndarray):
        assert found == expected.tolist()
    else:
        assert type(found) is type(expected)
        assert found == expected


def plain(data: bytes):
    return read_plain(io.BytesIO(data), len(data))


@pytest.mark.parametrize("rename", [bytes, old_names], ids=["numpy 2", "numpy 1"])
@pytest.mark.parametrize("protocol", range(2, 6))
def test_all_values_of_settings_are_read(protocol, rename):
    found = plain(rename(pickle.dumps(settings(), protocol)))
    assert list(found) == list(settings())
    for name, expected in settings().items():
        # Only protocol 3 and later have a form of their own for many bytes.
        if protocol > 2 or not isinstance(expected, (np.ndarray, bytes)):
            same(found[name], expected)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_recording_of_suite2p_is_opened(tmp_path, protocol):
    write(tmp_path, pickle.dumps(np.array(settings(), object), protocol))
    source = open_source(tmp_path)
    assert source.shape == (4, 11, 13, 1)
    assert source.metadata.frame_interval_s == 0.05


def write(folder: Path, data: bytes) -> Path:
    np.zeros((4, 11, 13), "<i2").tofile(folder / "data.bin")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    (folder / "ops.npy").write_bytes(header.getvalue() + data)
    return folder / "ops.npy"


class Reduced:
    """Pickled as the call of a function, and a state that is given to its result."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def type_of(code, *state):
    return Reduced(np.dtype, (code, False, True), state)


EMPTY = (np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b"))


def array_of(kind, shape, data, by_columns=False):
    return Reduced(*EMPTY, (1, shape, kind, by_columns, data))


POINTERS = struct.pack("<4Q", *[0x414141414140] * 4)
FLOATS = (3, "<", None, None, None, -1, -1, 0)
VALUES = {
    "function": Reduced(os.mkdir, ("harm",)),
    "method": Reduced(getattr, ("x", "upper")),
    "type with flags": array_of(
        type_of("O8", 3, "|", None, None, None, 8, 8, 1), (4,), POINTERS
    ),
    "bytes as objects": array_of(
        type_of("O8", 3, "|", None, None, None, -1, -1, 63), (4,), POINTERS
    ),
    "number as object": Reduced(np.int64(1).__reduce__()[0], (np.dtype("O"), POINTERS)),
    "void type of objects": array_of(
        type_of("V8", 3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 63), (4,), POINTERS
    ),
    "type within a type": array_of(
        type_of("f8", 3, "<", (np.dtype("f8"), (9,)), None, None, 72, 8, 0), (1,), bytes(8)
    ),
    "more than there is": array_of(type_of("f8", *FLOATS), (1 << 39,), bytes(8)),
    "less than nothing": array_of(type_of("f8", *FLOATS), (-1,), bytes(8)),
    "overflow": array_of(type_of("f8", *FLOATS), (1 << 32, 1 << 32), b""),
    "zeros": Reduced(np.ndarray, ((10**11,), "u1")),
    "unknown order": array_of(type_of("f8", 3, "?", None, None, None, -1, -1, 0), (1,), bytes(8)),
    "huge number": 1 << 40_000_000,
    "set of nested": frozenset([((),)]),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_other_values_are_placeholders(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = pickle.dumps({"Ly": 11, "Lx": 13, "x": VALUES[name], "fs": 5.0}, protocol)
    assert plain(data)["x"] is OTHER
    write(tmp_path, data)
    assert open_source(tmp_path).shape == (4, 11, 13, 1)
    assert not (tmp_path / "harm").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def nested_list(depth: int) -> bytes:
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


PROGRAMS = {
    "empty": b"",
    "cut off": pickle.dumps(settings())[:-40],
    "no end": b"\x80\x04N",
    "bytes that are not there": b"\x80\x04B\xff\xff\xff\x7f.",
    "more bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b".",
    "text that is not there": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b".",
    "number that is not there": b"\x80\x04\x8b\xff\xff\xff\x7f.",
    "many digits": b"L" + b"9" * 100_000 + b"L\n.",
    "nothing to take": b"\x80\x040.",
    "nothing to double": b"\x80\x042.",
    "no mark": b"\x80\x04t.",
    "beyond the mark": b"\x80\x04N(\x85.",
    "unknown memo": b"\x80\x04h\x07.",
    "odd table": b"\x80\x04(NNNd.",
    "unknown instruction": b"\x80\x04\xf0.",
    "buffer": b"\x80\x05\x97.",
    "too long": b"\x80\x04" + b"N" * (pickled.INSTRUCTIONS + 1) + b".",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_that_make_no_sense_are_refused_by_name(tmp_path, name):
    with pytest.raises(ValueError, match=r"."):
        plain(PROGRAMS[name])
    path = write(tmp_path, PROGRAMS[name])
    with pytest.raises(UnreadableFileError) as caught:
        open_source(tmp_path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 700


NO_SETTINGS = {
    "nested": nested_list(200_000),
    "doubled": b"\x80\x04](" + b"e" + b"2a" * 1000 + b".",
    "nested keys": b"\x80\x04}" + b")" + b"\x85" * 200_000 + b"Ns.",
    "number": pickle.dumps(5),
    "persistent": b"Pabc\n.",
    "long text": pickle.dumps({"Ly": "9" * 5000, "Lx": 3}),
    "long number": pickle.dumps({"Ly": 10**30, "Lx": 3}),
    "below nothing": pickle.dumps({"Ly": -3, "Lx": -3}),
    "no number": pickle.dumps({"Ly": float("nan"), "Lx": 3}),
    "several": pickle.dumps({"Ly": np.arange(3), "Lx": 3}),
    "rate": pickle.dumps({"Ly": 11, "Lx": 13, "fs": np.arange(3)}),
}


@pytest.mark.parametrize("name", NO_SETTINGS)
def test_settings_without_a_frame_size_are_refused(tmp_path, name):
    path = write(tmp_path, NO_SETTINGS[name])
    with pytest.raises(UnreadableFileError) as caught:
        open_source(tmp_path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("rate", [0, -5.0, float("inf"), float("nan"), 5e-324, None])
def test_a_rate_that_is_none_is_not_known(tmp_path, rate):
    write(tmp_path, pickle.dumps({"Ly": 11, "Lx": 13, "fs": rate}))
    assert open_source(tmp_path).metadata.frame_interval_s is None


def test_a_file_that_is_too_large_is_not_read():
    with pytest.raises(ValueError, match="larger"):
        read_plain_npy(io.BytesIO(), pickled.LARGEST + 1)


def test_changed_bytes_give_values_or_one_error():
    """No other exception, and no crash: changed bytes are often valid programs."""
    rng = np.random.default_rng(11)
    originals = [pickle.dumps(settings(), protocol) for protocol in range(2, 6)]
    refused = 0
    for number in range(1500):
        data = bytearray(originals[number % 4])
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(len(data))] = rng.integers(256)
        try:
            plain(bytes(data))
        except ValueError:
            refused += 1
    assert 0 < refused < 1500
