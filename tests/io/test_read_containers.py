"""HDF5, MATLAB, zarr and ND2: which data are the recording, their axes and facts."""

from __future__ import annotations

import os
import struct
import tracemalloc

import h5py
import numpy as np
import pytest
import scipy.io
import zarr

from scopeflow.errors import DatasetNotFoundError, InputError, UnreadableFileError
from scopeflow.io.open import open_source
from scopeflow.io.read.discovery import choose_datasets
from scopeflow.io.read.mat import open_mat
from tests.oracles.nd2_writer import write_nd2

RNG = np.random.default_rng(2)


def stack(*shape, dtype="uint16"):
    return RNG.integers(0, 60000, shape).astype(dtype)


BIG, SMALL = (9, 32, 32), (9, 16, 16)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"ch10": BIG, "ch2": BIG, "ch1": BIG}, ("ch1", "ch2", "ch10")),
        ({"a_Channel_2": BIG, "a_Channel_1": BIG, "mov": BIG}, ("a_Channel_1", "a_Channel_2")),
        ({"raw ch1": BIG, "raw ch2": BIG, "fit ch1": BIG}, ("raw ch1", "raw ch2")),
        ({"x": BIG, "Mov": SMALL, "ch": BIG}, ("Mov",)),
        ({"g/data": SMALL, "x": BIG}, ("x",)),
        ({"b": BIG, "a": BIG, "s": SMALL, "t": (1000000,)}, ("b", "a")),
        ({"ch1": (9,), "v": SMALL}, ("v",)),
    ],
)
def test_discovery(shapes, expected):
    assert choose_datasets(shapes, "file.h5")[0] == expected


def test_discovery_names_what_is_not_used():
    assert "s (9, 16, 16)" in choose_datasets({"b": BIG, "s": SMALL}, "file.h5")[1]


def test_channels_of_different_shape_are_refused():
    with pytest.raises(InputError, match=r"file\.h5.*different shapes: ch1 .*ch2 .*dataset="):
        choose_datasets({"ch1": BIG, "ch2": SMALL}, "file.h5")


@pytest.fixture
def hdf5(tmp_path):
    data = stack(6, 20, 30)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["scan/raw"] = data
        file["scan/fit"] = data + 1
        file["times"] = np.arange(6)
    return tmp_path / "a.h5", data


def test_dataset_argument(hdf5):
    path, data = hdf5
    for name in ("scan/raw", "/scan/raw"):
        np.testing.assert_array_equal(open_source(path, dataset=name).read(0, 6)[..., 0], data)
    both = open_source(path, dataset=["scan/fit", "scan/raw"])
    np.testing.assert_array_equal(both.read(0, 6), np.stack([data + 1, data], -1))
    assert both.metadata.channel_names == ("scan/fit", "scan/raw")


def test_unknown_dataset_lists_what_exists(hdf5):
    with pytest.raises(DatasetNotFoundError, match=r"a\.h5.*'scan/row'.*'scan/raw'.*times \(6,\)"):
        open_source(hdf5[0], dataset="scan/row")


def test_h5py_dataset_object(hdf5):
    path, data = hdf5
    with h5py.File(path, "r") as file:
        source = open_source(file["scan/raw"])
    np.testing.assert_array_equal(source.read(0, 6)[..., 0], data)


def test_hdf5_axes_and_chunks(tmp_path):
    data = stack(7, 20, 30)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=data.transpose(2, 1, 0), chunks=(30, 20, 3))
    source = open_source(tmp_path / "a.h5", axes="XYT")
    np.testing.assert_array_equal(source.read(0, 7)[..., 0], data)
    assert source.frames_per_chunk == 3
    with pytest.raises(InputError, match=r"a\.h5.*names 2 axes, but the data have 3"):
        open_source(tmp_path / "a.h5", axes="XY")


def test_mat_axes(tmp_path):
    data = stack(7, 20, 30)
    scipy.io.savemat(tmp_path / "a.mat", {"v": data})
    with pytest.raises(InputError, match="too small"):
        open_source(tmp_path / "a.mat", axes="XYT")  # 7 columns
    np.testing.assert_array_equal(
        open_source(tmp_path / "a.mat", axes="TYX").read(1, 6)[..., 0], data[1:6]
    )
    scipy.io.savemat(tmp_path / "b.mat", {"v": stack(7, 20, 30, 2)})
    with pytest.raises(InputError, match=r"b\.mat.*no documented axis order"):
        open_source(tmp_path / "b.mat")


def test_mat_narrowed_doubles_and_logicals(tmp_path):
    numbers = stack(20, 30, 7) % 200
    flags = numbers > 100
    scipy.io.savemat(tmp_path / "a.mat", {"ch1": numbers.astype(float)})
    assert open_source(tmp_path / "a.mat").dtype == np.float64
    scipy.io.savemat(tmp_path / "b.mat", {"ch1": flags})
    source = open_source(tmp_path / "b.mat")
    assert source.dtype == np.bool_
    np.testing.assert_array_equal(source.read(0, 7)[..., 0], flags.transpose(2, 0, 1))


def test_compressed_mat_is_inflated_once(tmp_path):
    data = stack(200, 160, 200)
    scipy.io.savemat(tmp_path / "a.mat", {"v": data.transpose(1, 2, 0)}, do_compression=True)
    tracemalloc.start()
    source = open_source(tmp_path / "a.mat")
    assert tracemalloc.get_traced_memory()[1] < 2e6, "opening reads no pixel"
    tracemalloc.stop()
    for frame in (199, 0, 120, 121, 5):
        np.testing.assert_array_equal(source.read(frame, frame + 1)[0, ..., 0], data[frame])
    tracemalloc.start()
    source.read(150, 152)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def swapped(data: bytes, at: int = 128) -> bytes:
    """The elements of an uncompressed little-endian MAT file in the other byte order."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8}
    made = b""
    while at < len(data):
        kind, nbytes = struct.unpack_from("<II", data, at)
        small = kind >> 16
        start, nbytes = (at + 4, small) if small else (at + 8, nbytes)
        body = data[start : start + nbytes]
        if kind == 14:
            body = swapped(body, 0)
        else:
            item = sizes[kind & 0xFFFF]
            body = np.frombuffer(body, f"<u{item}").byteswap().tobytes()
        if small:
            made += struct.pack(">I", kind) + body.ljust(4, b"\0")
            at += 8
        else:
            made += struct.pack(">II", kind, nbytes) + body + bytes(-nbytes % 8)
            at = start + nbytes + -nbytes % 8
    return made


def test_mat_of_the_other_byte_order(tmp_path):
    values = stack(20, 30, 7, dtype="float32") / 7
    scipy.io.savemat(tmp_path / "a.mat", {"ch1": values, "ch2": stack(20, 30, 7) % 200 * 1.0})
    data = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "b.mat").write_bytes(data[:124] + b"\x01\x00MI" + swapped(data))
    here, there = (open_source(tmp_path / name) for name in ("a.mat", "b.mat"))
    assert (there.dtype, there.shape) == (here.dtype, here.shape)
    np.testing.assert_array_equal(there.read(0, 7), here.read(0, 7))


@pytest.mark.parametrize("compressed", [False, True])
def test_mat_that_cannot_be_used(tmp_path, compressed):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"v": stack(20, 30, 7) * 1j}, do_compression=compressed)
    with pytest.raises(InputError, match=r"a\.mat, v: pixels of type complex128.*magnitude"):
        open_source(path)
    scipy.io.savemat(path, {"v": stack(20, 30, 7)}, do_compression=compressed)
    source = open_source(path)
    content = bytearray(path.read_bytes())
    content[140:160] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"a\.mat: its variables cannot be listed"):
        open_source(path)
    with pytest.raises(InputError, match="changed since it was opened"):
        os.utime(path, ns=(1, 1)) or source.read(0, 1)
    content[126:128] = b"XX"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match="not a MATLAB file of version 5"):
        open_mat(path)


def test_truncated_mat(tmp_path):
    path = tmp_path / "a.mat"
    for compressed in (False, True):
        data = stack(20, 30, 40)
        scipy.io.savemat(path, {"v": data}, do_compression=compressed)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(UnreadableFileError, match=r"a\.mat: the file breaks off"):
            open_source(path)


def ome_zarr(path, data, names, **attributes):
    group = zarr.create_group(path, zarr_format=3)
    array = zarr.create_array(path / "0", shape=data.shape, chunks=data.shape, dtype=data.dtype)
    array[:] = data
    units = {"t": {"unit": "millisecond"}, "y": {"unit": "nanometer"}, "x": {"unit": "nanometer"}}
    axes = [{"name": name, **units.get(name, {})} for name in names]
    scale = [{"t": 40.0, "y": 500.0, "x": 250.0}.get(name, 1.0) for name in names]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    multiscale = {"axes": axes, "datasets": [level]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale], **attributes}


def test_ome_zarr_metadata(tmp_path):
    omero = {"channels": [{"label": "a"}, {"label": "b"}]}
    ome_zarr(tmp_path / "m.zarr", stack(4, 2, 20, 30), "tcyx", omero=omero)
    metadata = open_source(tmp_path / "m.zarr").metadata
    assert metadata.pixel_size_um == pytest.approx((0.5, 0.25))
    assert metadata.frame_interval_s == pytest.approx(0.04)
    assert metadata.channel_names == ("a", "b")


def test_zarr_planes_need_a_choice(tmp_path):
    data = stack(4, 3, 20, 30)
    ome_zarr(tmp_path / "m.zarr", data, "tzyx")
    with pytest.raises(InputError, match=r"m\.zarr.*3 z planes.*z=0 … z=2"):
        open_source(tmp_path / "m.zarr")
    np.testing.assert_array_equal(
        open_source(tmp_path / "m.zarr", z=1).read(0, 4)[..., 0], data[:, 1]
    )


def test_zarr_z_stack_without_frames_needs_a_choice(tmp_path):
    ome_zarr(tmp_path / "m.zarr", stack(3, 20, 30), "zyx")
    with pytest.raises(InputError, match="3 z planes"):
        open_source(tmp_path / "m.zarr")
    assert open_source(tmp_path / "m.zarr", axes="TYX").shape == (3, 20, 30, 1)


def test_zarr_group_and_array_objects(tmp_path):
    group = zarr.create_group(tmp_path / "g.zarr")
    data = stack(4, 20, 30)
    for name, values in (("motion", data[:2]), ("video", data)):
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(2, 20, 30))
        array[:] = values
    np.testing.assert_array_equal(open_source(tmp_path / "g.zarr").read(0, 4)[..., 0], data)
    np.testing.assert_array_equal(open_source(array).read(0, 4)[..., 0], data)
    assert open_source(tmp_path / "g.zarr", dataset="motion").shape[0] == 2
    with pytest.raises(DatasetNotFoundError, match=r"g\.zarr.*'vidoe'.*Did you mean 'video'"):
        open_source(tmp_path / "g.zarr", dataset="vidoe")


def test_damaged_zarr(tmp_path):
    path = tmp_path / "d.zarr"
    array = zarr.create_array(path, shape=(4, 20, 30), chunks=(1, 20, 30), dtype="u2")
    array[:] = stack(4, 20, 30)
    source = open_source(path)
    (path / "c" / "2" / "0" / "0").write_bytes(b"xx")
    source.read(0, 2)
    with pytest.raises(UnreadableFileError, match=r"d\.zarr: frames 1 to 3 cannot be read"):
        source.read(1, 3)
    (path / "zarr.json").write_text("{")
    with pytest.raises(UnreadableFileError, match=r"d\.zarr: cannot be opened as zarr"):
        open_source(path)


def test_nd2_positions_and_metadata(tmp_path):
    data = stack(4, 3, 2, 20, 30)
    path = tmp_path / "a.nd2"
    write_nd2(path, data, ["Phase", "GFP"], period_s=30.0, pixel_um=0.325)
    with pytest.raises(InputError, match=r"a\.nd2.*3 stage positions \(0: Pos0.*position=0 … "):
        open_source(path)
    for position in range(3):
        source = open_source(path, position=position)
        np.testing.assert_array_equal(source.read(0, 4), np.moveaxis(data[:, position], 1, -1))
    metadata = source.metadata
    assert metadata.pixel_size_um == pytest.approx((0.325, 0.325))
    assert metadata.channel_names == ("Phase", "GFP")
    assert metadata.frame_times_s == pytest.approx((0.0, 30.0, 60.0, 90.0))
    assert metadata.frame_interval_s == pytest.approx(30.0)
    with pytest.raises(InputError, match="position=3 is not one of its 3"):
        open_source(path, position=3)


def test_nd2_with_missing_image(tmp_path):
    # the reader would return a black frame
    write_nd2(tmp_path / "a.nd2", stack(5, 1, 1, 20, 30), ["a"], omit=[3])
    with pytest.raises(UnreadableFileError, match=r"a\.nd2.*image of frame 3 is missing"):
        open_source(tmp_path / "a.nd2")


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.999])
def test_truncated_nd2(tmp_path, kept):
    path = tmp_path / "a.nd2"
    write_nd2(path, stack(5, 1, 2, 20, 30), ["a", "b"])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UnreadableFileError, match=r"a\.nd2.*truncated"):
        open_source(path)
