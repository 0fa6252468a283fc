from __future__ import annotations

import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scopeflow.io.files import atomic_save_npy, atomic_save_npz
from scopeflow.io.state import (
    DamagedStateError,
    State,
    Table,
    Text,
    load_array,
    load_arrays,
    load_state,
    read_state,
    save_state,
)
from tests.damage import at_most, json_damages, raw_damages, replacements


class Example(State):
    fingerprint: str
    settings: Table
    names: list[Text] = []  # noqa: RUF012 - pydantic copies it
    mark: str | None = None


WHOLE = Example(fingerprint="a1", settings={"alpha": [1.5, None], "b": {"c": "µ"}}, names=["x"])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "state" / "example.json"
    save_state(path, WHOLE)
    return path


def test_what_was_saved_is_read(file):
    assert read_state(file, Example) == WHOLE
    assert list(file.parent.iterdir()) == [file]


def test_names_that_are_no_unicode_are_kept(file):
    name = os.fsdecode(b"movie-\xff.tif")
    save_state(file, Example(fingerprint="a", settings={name: name}, names=[name]))
    assert read_state(file, Example).names == [name]
    assert read_state(file, Example).settings == {name: name}


def test_every_changed_bit_of_a_checked_file_is_noticed(file):
    whole = file.read_bytes()
    for place in range(len(whole)):
        for bit in (0, 3, 5):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            file.write_bytes(bytes(changed))
            assert load_state(file, Example) is None, bytes(changed)


def test_every_shorter_file_is_noticed(file):
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert load_state(file, Example) is None


def test_files_of_earlier_versions_have_no_checksum(file):
    plain = json.loads(file.read_text())
    del plain["checksum"]
    for text in (json.dumps(plain), json.dumps(plain, indent=2) + "\n"):
        file.write_text(text)
        assert load_state(file, Example) == WHOLE


def test_a_checksum_that_is_written_elsewhere_is_none(file):
    lines = file.read_text().splitlines()
    file.write_text(
        "\n".join([lines[0], lines[-2] + ",", *lines[1:-3], lines[-3][:-1], "}"]) + "\n"
    )
    assert "checksum" in json.loads(file.read_text())
    assert load_state(file, Example) is None


def _all_damages():
    plain = json.dumps(WHOLE.model_dump())
    allowed = {"without names", "without mark", "mark=''", "mark='x'"}
    for name, data in [*raw_damages(plain.encode()), *json_damages(plain)]:
        try:
            fits = Example.model_validate(json.loads(data)) is not None and b"[" * 50 not in data
        except (ValueError, RecursionError):
            fits = False
        if not fits or name in allowed:
            yield name, data, fits


@pytest.mark.parametrize(
    ("data", "fits"), [pytest.param(d, f, id=n[:40]) for n, d, f in _all_damages()]
)
def test_other_shapes_are_damaged_and_never_errors_of_other_kinds(file, data, fits):
    file.write_bytes(data)
    if fits:
        assert load_state(file, Example) is not None
        return
    assert load_state(file, Example) is None
    with pytest.raises(DamagedStateError, match=r"example\.json is damaged, or not of scopeflow"):
        read_state(file, Example)


@pytest.mark.parametrize(
    "what", ["pipe", "link to a device", "link to a copy", "link to itself", "link to nothing"]
)
@pytest.mark.parametrize("load", [lambda path: load_state(path, Example), load_arrays])
def test_nothing_but_a_regular_file_is_opened(file, tmp_path, what, load):
    replacements(file, tmp_path / "elsewhere")[what]()
    with at_most(5):
        assert load(file) is None
        with pytest.raises(DamagedStateError):
            read_state(file, Example)
        with pytest.raises(DamagedStateError):
            load_array(file)


def test_folders_are_no_files_and_what_is_missing_is_missing(tmp_path):
    with pytest.raises(DamagedStateError, match="no regular file"):
        read_state(tmp_path, Example)
    for path in (tmp_path / "none.json", tmp_path / "none" / "none.json"):
        assert load_state(path, Example) is None
        assert load_arrays(path) is None
        with pytest.raises(FileNotFoundError):
            read_state(path, Example)


def test_links_are_replaced_and_never_written_through(file, tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    file.unlink()
    file.symlink_to(precious)
    save_state(file, WHOLE)
    assert precious.read_text() == "mine"
    assert not file.is_symlink()
    assert load_state(file, Example) == WHOLE


def test_a_file_above_the_limit_is_not_read(file):
    class Small(Example):
        largest = 1000

    os.truncate(file, 2**40)  # sparse: it would need a terabyte of memory
    with pytest.raises(DamagedStateError, match="larger than 1000 bytes"):
        read_state(file, Small)


# -- arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.zeros((0, 7), np.int64),
        np.array(True),
        np.array(["a", "µm"]),
        np.arange(3, dtype=">u2"),
    ],
    ids=["2d", "fortran", "empty", "scalar", "texts", "big-endian"],
)
def test_arrays_come_back_as_numpy_reads_them(tmp_path, array):
    atomic_save_npz(tmp_path / "a.npz", first=array, second=np.ones(3))
    np.savez_compressed(tmp_path / "b.npz", first=array, second=np.ones(3))
    for name in ("a.npz", "b.npz"):
        found = load_arrays(tmp_path / name)["first"]
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        assert found.flags.writeable
    atomic_save_npy(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(load_array(tmp_path / "a.npy"), array)


def _npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin1").ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def _header(descr: str = "'<f8'", shape: str = "(2,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


BAD_ARRAYS = {
    "too large": _npy(_header(shape="(10**15,)".replace("10**15", str(10**15))), bytes(16)),
    "too small": _npy(_header(shape="(1,)"), bytes(16)),
    "negative": _npy(_header(shape="(-2, -1)"), bytes(16)),
    "overflow": _npy(_header(shape=f"({2**63}, {2**63}, 0)"), bytes(16)),
    "digits": _npy(_header(shape=f"({'9' * 60},)"), bytes(16)),
    "bool": _npy(_header(shape="(True,)"), bytes(8)),
    "objects": _npy(_header("'|O'", "(1,)"), b"cos\nsystem\n(S'false'\ntR."),
    "records": _npy(_header("[('a', '<f8')]"), bytes(16)),
    "nothing": _npy(_header("'|S0'", f"({10**12},)")),
    "void": _npy(_header("'|V8'"), bytes(16)),
    "nested": _npy("(" * 100, bytes(16)),
    "call": _npy("__import__('os').abort()", bytes(16)),
    "version": _npy(_header(), bytes(16), b"\x09\x00"),
    "no array": b"x" * 200,
    "empty": b"",
}


@pytest.mark.parametrize("data", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_headers_are_believed_as_far_as_the_bytes_go(tmp_path, data):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(DamagedStateError, match=r"a\.npy is damaged"):
        load_array(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", data)
    assert load_arrays(tmp_path / "a.npz") is None


def test_bombs_and_archives_of_others_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", _npy(_header(shape="(3000000,)"), bytes(24_000_000)))
    whole = path.read_bytes()
    assert load_arrays(path)["x"].nbytes == 24_000_000
    # The same with a size that zlib cannot reach.
    path.write_bytes(whole.replace(struct.pack("<I", 24_000_128), struct.pack("<I", 2**31)))
    assert load_arrays(path) is None
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.txt", b"text")
    assert load_arrays(path) is None
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", _npy(_header(), bytes(16)))
    assert load_arrays(path) is None
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", _npy(_header(), bytes(16)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", _npy(_header(), bytes(16)))
    assert load_arrays(path) is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_archives_are_none_or_the_same_arrays(tmp_path_factory, data):
    arrays = {"raw": np.arange(40.0).reshape(5, 8), "count": np.arange(3)}
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    path.write_bytes(bytes(content))
    found = load_arrays(path)
    if found is not None:
        for name, array in found.items():
            same = (
                arrays[name]
                if name in arrays
                else next(one for one in arrays.values() if one.shape == array.shape)
            )
            np.testing.assert_array_equal(array, same)
