"""Input that cannot be used is refused at once, with the file's name and what to do."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile

from scopeflow.errors import (
    DatasetNotFoundError,
    InputError,
    InputNotFoundError,
    UnreadableFileError,
)
from scopeflow.io.open import open_source


def tiff(path, shape=(5, 20, 30), dtype="uint16", **options):
    data = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    tifffile.imwrite(path, data, metadata={"axes": "TYX"}, **options)
    return data


def test_missing_file(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"none\.tif: there is no such file"):
        open_source(tmp_path / "none.tif")
    with pytest.raises(FileNotFoundError, match=r"Its folder .*gone does not exist either"):
        open_source(str(tmp_path / "gone" / "none.tif"))


@pytest.mark.parametrize("suffix", [".tif", ".h5", ".mat", ".nd2", ".xyz"])
def test_empty_file(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.touch()
    with pytest.raises(UnreadableFileError, match=rf"a\{suffix}: the file is empty"):
        open_source(path)


@pytest.mark.parametrize("suffix", [".tif", ".h5", ".mat", ".nd2"])
def test_content_is_not_what_the_name_says(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"not an image " * 300)
    with pytest.raises(UnreadableFileError, match=rf"a\{suffix}: named .*Supported: TIFF"):
        open_source(path)


@pytest.mark.parametrize("head", [b"II*\0", b"MM\0*", b"II+\0", b"\x89HDF\r\n\x1a\n", b"MATLAB"])
def test_garbage_after_a_right_beginning(tmp_path, head):
    path = tmp_path / "a.dat"
    path.write_bytes(head + bytes(range(256)) * 20)
    with pytest.raises(UnreadableFileError, match=r"a\.dat"):
        open_source(path)


def test_unknown_format_lists_the_known(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"RIFF" * 100)
    with pytest.raises(UnreadableFileError, match=r"a\.xyz: the format is unknown.*ND2.*numpy"):
        open_source(tmp_path / "a.xyz")


def test_truncated_hdf5(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["mov"] = np.zeros((5, 64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableFileError, match=r"a\.h5.*truncated"):
        open_source(path)


def test_no_video_in_the_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["traces"] = np.zeros((50, 40))
    with pytest.raises(DatasetNotFoundError, match=r"a\.h5.*3 or 4 axes.*traces \(50, 40\)"):
        open_source(tmp_path / "a.h5")


def test_small_frames(tmp_path):
    tiff(tmp_path / "a.tif", (5, 9, 30))
    with pytest.raises(InputError, match=r"a\.tif: frames of 9 × 30 px.*at least 10 × 10.*axes="):
        open_source(tmp_path / "a.tif")


def test_zero_frames(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mov"] = np.zeros((0, 20, 30))
    with pytest.raises(InputError, match=r"a\.h5.*zero frames"):
        open_source(tmp_path / "a.h5")
    with pytest.raises(InputError, match="zero frames"):
        open_source(np.zeros((0, 20, 30)))


@pytest.mark.parametrize(
    ("dtype", "hint"),
    [("int64", "float32"), ("uint64", "float32"), ("complex64", "magnitude"), ("O", "one type")],
)
def test_types(tmp_path, dtype, hint):
    array = np.zeros((5, 20, 30), dtype)
    with pytest.raises(InputError, match=f"not supported.*{hint}"):
        open_source(array)
    if dtype != "O":
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["mov"] = array
        with pytest.raises(InputError, match=r"a\.h5.*not supported"):
            open_source(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("TYQ", "unknown letters Q"),
        ("TY", "names 2 axes, but the data have 3"),
        ("TYY", "names an axis twice"),
        ("TCX", "lacks Y"),
        ("", "names 0 axes"),
    ],
)
def test_axes(tmp_path, axes, message):
    tiff(tmp_path / "a.tif")
    with pytest.raises(InputError, match=rf"a\.tif: axes=.*{message}.*TYXC"):
        open_source(tmp_path / "a.tif", axes=axes)


def test_arrays_without_meaning():
    with pytest.raises(InputError, match=r"5 axes without names.*axes="):
        open_source(np.zeros((2, 2, 2, 20, 30)))
    with pytest.raises(InputError, match=r"too small.*axes=\"YXC\""):
        open_source(np.zeros((20, 30, 3)))
    assert open_source(np.zeros((20, 30, 3)), axes="YXC").shape == (1, 20, 30, 3)
    assert open_source(np.zeros((20, 30))).shape == (1, 20, 30, 1)


@pytest.mark.parametrize("thing", [None, 3, {"a": 1}, object()])
def test_other_objects(thing):
    with pytest.raises(InputError, match=r"cannot be opened as a recording.*Supported"):
        open_source(thing)


@pytest.mark.parametrize(
    "choice",
    [{"dataset": "mov"}, {"position": 1}, {"deinterleave": 2}],
    ids=lambda c: next(iter(c)),
)
def test_choices_without_meaning_are_not_ignored(choice):
    with pytest.raises(InputError, match="has no meaning"):
        open_source(np.zeros((4, 20, 30)), **choice)


def test_lists_of_files(tmp_path):
    names = ["t1.tif", "t2.tif", "t10.tif", "green.tif", "red.tif", "m_c1.tif", "m_c2.tif"]
    data = {name: tiff(tmp_path / name) + n for n, name in enumerate(names)}
    for name, values in data.items():
        tifffile.imwrite(tmp_path / name, values, metadata={"axes": "TYX"})

    def values_of(paths, **options):
        return open_source([tmp_path / path for path in paths], **options).read(0, 1)

    frames = open_source([tmp_path / name for name in ("t10.tif", "t1.tif", "t2.tif")])
    assert frames.shape == (15, 20, 30, 1)
    expected = np.concatenate([data[name] for name in ("t1.tif", "t2.tif", "t10.tif")])
    np.testing.assert_array_equal(frames.read(0, 15)[..., 0], expected)
    assert values_of(["m_c2.tif", "m_c1.tif"])[0, 0, 0].tolist() == [5, 6]
    with pytest.raises(InputError, match=r'green\.tif.*combine="frames"'):
        values_of(["green.tif", "red.tif"])
    assert values_of(["red.tif", "green.tif"], combine="channels")[0, 0, 0].tolist() == [4, 3]
    with pytest.raises(InputError, match=r"t1\.tif.*more than once"):
        values_of(["t1.tif", "t1.tif"])
    with pytest.raises(InputError, match=r'combine=.*"frames" or "channels"'):
        values_of(["t1.tif", "t2.tif"], combine="time")
    with pytest.raises(InputError, match="list of recordings is empty"):
        open_source([])


def test_files_that_number_channels_and_frames_are_refused(tmp_path):
    paths = []
    for t in range(2):
        for c in range(2):
            paths.append(tmp_path / f"t{t}c{c}.tif")
            tiff(paths[-1])
    with pytest.raises(InputError, match="number both channels and something else"):
        open_source(paths)


def test_folders(tmp_path):
    with pytest.raises(UnreadableFileError, match="neither zarr nor a folder of results"):
        open_source(tmp_path)
    tiff(tmp_path / "compensated.tiff")
    assert open_source(tmp_path).shape[0] == 5
    with h5py.File(tmp_path / "compensated.hdf5", "w") as file:
        file["ch1"] = np.zeros((5, 20, 30))
    with pytest.raises(InputError, match=r"several results: compensated\.hdf5, compensated\.tiff"):
        open_source(tmp_path)
