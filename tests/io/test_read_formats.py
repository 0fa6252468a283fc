"""Every format, written by an independent writer, is read bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
import zarr

from scopeflow.io.open import Source, describe, open_source
from tests.oracles.nd2_writer import write_nd2

T, H, W, C = 9, 21, 34, 2


def video(dtype="uint16", channels=C, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 60000, (T, H, W, channels))
    return values.astype(dtype)


def write_zarr(path, data, zarr_format, shards=None, axes=None):
    array = zarr.create_array(
        path,
        shape=data.shape,
        chunks=(2, *data.shape[1:]),
        shards=shards,
        dtype=data.dtype,
        zarr_format=zarr_format,
        dimension_names=axes,
    )
    array[:] = data


def zarr2(folder, data):
    write_zarr(folder / "v2.zarr", data, 2)
    return folder / "v2.zarr"


def zarr3(folder, data):
    write_zarr(folder / "v3.zarr", data, 3)
    return folder / "v3.zarr"


def zarr3_sharded_tcyx(folder, data):
    moved = np.moveaxis(data, -1, 1)
    write_zarr(folder / "s.zarr", moved, 3, (4, *moved.shape[1:]), ("time", "c", "y", "x"))
    return folder / "s.zarr"


def ome_zarr04(folder, data):
    path = folder / "v04.ome.zarr"
    group = zarr.create_group(path, zarr_format=2)
    write_zarr(path / "0", np.moveaxis(data, -1, 1)[:, :, None], 2)
    write_zarr(path / "1", np.moveaxis(data, -1, 1)[:, :, None, ::2, ::2], 2)
    axes = [{"name": name} for name in "tczyx"]
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": axes, "datasets": [{"path": "0"}, {"path": "1"}]}
    ]
    return path


def ome_zarr05(folder, data):
    path = folder / "v05.ome.zarr"
    group = zarr.create_group(path, zarr_format=3)
    write_zarr(path / "registered", np.moveaxis(data, -1, 0), 3)
    axes = [{"name": name} for name in "ctyx"]
    multiscale = {"axes": axes, "datasets": [{"path": "registered"}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    return path


def tiff_imagej(folder, data):
    moved = np.moveaxis(data, -1, 1)
    tifffile.imwrite(folder / "ij.tif", moved, imagej=True, metadata={"axes": "TCYX"})
    return folder / "ij.tif"


def tiff_ome(folder, data):
    moved = np.moveaxis(data, -1, 1)
    tifffile.imwrite(folder / "o.ome.tif", moved, metadata={"axes": "TCYX"})
    return folder / "o.ome.tif"


def tiff_ome_ctyx_zlib(folder, data):
    moved = np.moveaxis(data, -1, 0)
    path = folder / "oz.ome.tif"
    tifffile.imwrite(path, moved, compression="zlib", metadata={"axes": "CTYX"})
    return path


def tiff_big_endian(folder, data):
    path = folder / "big.tif"
    moved = np.moveaxis(data, -1, 1)
    tifffile.imwrite(path, moved, bigtiff=True, byteorder=">", metadata={"axes": "TCYX"})
    return path


def tiff_compressed_big_endian(folder, data):
    path = folder / "lzw.tif"
    tifffile.imwrite(
        path,
        np.moveaxis(data, -1, 1),
        byteorder=">",
        compression="lzw",
        predictor=True,
        metadata={"axes": "TCYX"},
    )
    return path


def tiff_page_by_page(folder, data):
    # one series for each page, as programs write that append frames
    path = folder / "pages.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for frame in data:
            writer.write(frame, photometric="minisblack", planarconfig="contig")
    return path


def hdf5_channels(folder, data):
    with h5py.File(folder / "c.h5", "w") as file:
        for channel in range(data.shape[-1]):
            file.create_dataset(f"ch{channel + 1}", data=data[..., channel], chunks=(3, H, W))
        file["times"] = np.arange(T)
    return folder / "c.h5"


def hdf5_4d_gzip(folder, data):
    with h5py.File(folder / "d.hdf5", "w") as file:
        file.create_dataset("mov", data=data, compression="gzip")
    return folder / "d.hdf5"


def hdf5_ordering(folder, data):
    with h5py.File(folder / "o.h5", "w") as file:
        for channel in range(data.shape[-1]):
            stored = data[..., channel].transpose(1, 2, 0)
            item = file.create_dataset(f"channel_{channel}", data=stored)
            item.attrs["dimension_ordering"] = (0, 1, 2)
    return folder / "o.h5"


def _matlab(data):
    return {f"ch{c + 1}": data[..., c].transpose(1, 2, 0) for c in range(data.shape[-1])}


def mat5(folder, data):
    scipy.io.savemat(folder / "m5.mat", {**_matlab(data), "note": "text", "s": {"a": 1}})
    return folder / "m5.mat"


def mat5_compressed(folder, data):
    scipy.io.savemat(folder / "m7.mat", _matlab(data), do_compression=True)
    return folder / "m7.mat"


def mat73(folder, data):
    path = folder / "m73.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in _matlab(data).items():
            # MATLAB's column-major order is HDF5's row-major order reversed
            item = file.create_dataset(name, data=values.T)
            item.attrs["MATLAB_class"] = np.bytes_(data.dtype.name)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def nd2_file(folder, data):
    write_nd2(folder / "n.nd2", np.moveaxis(data, -1, 1)[:, None], ["a", "b"])
    return folder / "n.nd2"


def folder_of_frames(folder, data):
    frames = folder / "frames"
    frames.mkdir()
    for t, frame in enumerate(data):
        # t9 before t10 only in natural order
        tifffile.imwrite(
            frames / f"t{t + 4}.tif", np.moveaxis(frame, -1, 0), metadata={"axes": "CYX"}
        )
    return frames


def file_for_each_channel(folder, data):
    paths = []
    for channel in range(data.shape[-1]):
        path = folder / f"movie_ch{channel + 9}.tif"
        tifffile.imwrite(path, data[..., channel], metadata={"axes": "TYX"})
        paths.append(path)
    return paths[::-1]


def results_folder(folder, data):
    results = folder / "results"
    results.mkdir()
    (results / "statistics.txt").write_text("x")
    hdf5_channels(results, data).rename(results / "compensated.HDF5")
    return results


def array_thwc(folder, data):
    return data.copy()


FORMATS = [
    zarr2,
    zarr3,
    zarr3_sharded_tcyx,
    ome_zarr04,
    ome_zarr05,
    tiff_imagej,
    tiff_ome,
    tiff_ome_ctyx_zlib,
    tiff_big_endian,
    tiff_compressed_big_endian,
    tiff_page_by_page,
    hdf5_channels,
    hdf5_4d_gzip,
    hdf5_ordering,
    mat5,
    mat5_compressed,
    mat73,
    nd2_file,
    folder_of_frames,
    file_for_each_channel,
    results_folder,
    array_thwc,
]


@pytest.fixture(scope="module", params=FORMATS, ids=lambda writer: writer.__name__)
def opened(request, tmp_path_factory):
    data = video()
    stored = request.param(tmp_path_factory.mktemp(request.param.__name__), data)
    return open_source(stored), data


def test_reads_bit_for_bit(opened):
    source, data = opened
    assert isinstance(source, Source)
    assert source.shape == data.shape
    assert source.dtype == data.dtype
    whole = source.read(0, T)
    assert whole.dtype == data.dtype
    assert whole.dtype.isnative
    np.testing.assert_array_equal(whole, data)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (2, 7), (T - 1, T), (3, 3)])
def test_parts_equal_the_whole(opened, start, stop):
    source, data = opened
    part = source.read(start, stop)
    assert part.shape == (stop - start, *data.shape[1:])
    np.testing.assert_array_equal(part, data[start:stop])
    assert part.flags.c_contiguous
    assert part.flags.writeable


def test_memory_is_own(opened):
    source, data = opened
    source.read(0, 2)[:] = 0
    np.testing.assert_array_equal(source.read(0, 2), data[:2])


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, T + 1), (5, 4)])
def test_range_outside_is_refused(opened, start, stop):
    with pytest.raises(ValueError, match=f"it has {T} frames"):
        opened[0].read(start, stop)


def test_threads_read_the_same(opened):
    source, data = opened
    ranges = [(t, min(t + 2, T)) for t in range(T)] * 4
    with ThreadPoolExecutor(4) as pool:
        for (start, stop), part in zip(
            ranges, pool.map(lambda r: source.read(*r), ranges), strict=True
        ):
            np.testing.assert_array_equal(part, data[start:stop])


def test_identity_is_json_and_stable(opened):
    source, _ = opened
    facts = json.loads(json.dumps(source.identity()))
    assert facts == json.loads(json.dumps(pickle.loads(pickle.dumps(source)).identity()))
    assert all(Path(path).exists() for path in source.paths)


def test_pickle_is_small_and_hash_works(opened):
    source, _ = opened
    hash(source)
    size = len(pickle.dumps(source))
    assert not source.paths or size < 6000


def test_description_rows(opened):
    source, _ = opened
    rows = describe(source)
    names = [row[0] for row in rows]
    assert ("frames", str(T)) in [row[:2] for row in rows]
    assert ("height × width", f"{H} × {W} px") in [row[:2] for row in rows]
    assert names.count("channels") == 1
    axes = next(row for row in rows if row[0] == "axes in the file")
    assert set("YX") <= set(axes[1])
    assert axes[2]


def _sums(pickled: list[bytes]) -> list[int]:
    sources = [pickle.loads(item) for item in pickled]
    return [int(source.read(1, 4).sum(dtype="int64")) for source in sources]


def test_another_process_opens_for_itself(tmp_path):
    data = video()
    sources = []
    for writer in FORMATS:
        folder = tmp_path / writer.__name__
        folder.mkdir()
        source = open_source(writer(folder, data))
        source.read(0, 1)  # handles are open here, and must not travel
        sources.append(pickle.dumps(source))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        sums = pool.apply(_sums, (sources,))
    assert sums == [int(data[1:4].sum(dtype="int64"))] * len(FORMATS)


@pytest.mark.parametrize(
    "dtype",
    ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"],
)
def test_every_type(tmp_path, dtype):
    data = video(dtype, channels=1)
    tifffile.imwrite(tmp_path / "a.tif", data[..., 0], metadata={"axes": "TYX"})
    write_zarr(tmp_path / "a.zarr", data, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mov"] = data[..., 0]
    for stored in (tmp_path / "a.tif", tmp_path / "a.zarr", tmp_path / "a.h5", data):
        source = open_source(stored)
        assert source.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(source.read(0, T), data)


def test_identity_follows_the_data(tmp_path):
    data = video()
    path = zarr3(tmp_path, data)
    before = open_source(path).identity()
    zarr.open(path, mode="r+")[0] = 7
    assert open_source(path).identity() != before
    changed = data.copy()
    assert open_source(changed).identity() == open_source(data).identity()
    changed[3, 2, 1, 0] += 1
    assert open_source(changed).identity() != open_source(data).identity()


def test_a_file_that_changes_while_open_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, video()[..., 0])
    source = open_source(path)
    tifffile.imwrite(path, video()[:5, ..., 0])
    with pytest.raises(ValueError, match=r"a\.tif: the file changed"):
        source.read(0, 1)
