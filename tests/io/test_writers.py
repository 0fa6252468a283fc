from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest
import tifffile

from scopeflow.errors import InputError, OptionsError, OutputError
from scopeflow.io.files import (
    atomic_save_npy,
    atomic_save_npz,
    output_error,
    prepare_target,
)
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.write.exports import (
    ValidIndexWriter,
    open_displacement_writer,
    open_writer,
)
from scopeflow.io.write.tiff import TiffWriter

DTYPES = ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
DTYPES += ["float16", "float32", "float64"]
FORMATS = ["HDF5", "TIFF", "MAT"]
KNOWN = VideoMetadata(
    pixel_size_um=(0.5, 0.25), frame_interval_s=0.04, channel_names=("GCaMP", "tdTomato")
)


def recording(shape, dtype, seed=3):
    values = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 120, shape)
    video = values.astype(dtype)
    if np.issubdtype(video.dtype, np.signedinteger) or video.dtype.kind == "f":
        video = -video
    return video


def export(path, name, video, blocks=(2, 1), metadata=None):
    """Write in blocks of uneven lengths, the last one taking what remains."""
    with open_writer(path, name, shape=video.shape, dtype=video.dtype, metadata=metadata) as writer:
        start = 0
        for length in (*blocks, len(video)):
            writer.write(video[start : start + length])
            start += length
            if start >= len(video):
                break
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def read_independently(path, name, shape):
    """The recording as (T, H, W, C), by the rules of each format, without our code."""
    frames, height, width, channels = shape
    if name == "TIFF":
        with tifffile.TiffFile(path) as file:
            assert len(file.series) == 1
            stored = file.series[0].asarray()
        return np.moveaxis(stored.reshape(frames, channels, height, width), 1, -1)
    with h5py.File(path) as file:
        planes = [file[f"ch{n}"][()] for n in range(1, channels + 1)]
    if name == "MAT":
        # HDF5 holds MATLAB's axes reversed: (T, W, H) is (H, W, T) in MATLAB.
        matlab = [plane.T for plane in planes]
        assert matlab[0].shape == (height, width, frames)
        planes = [np.moveaxis(plane, -1, 0) for plane in matlab]
    return np.stack(planes, axis=-1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("name", FORMATS)
def test_every_small_shape_comes_back(tmp_path, name, frames, channels):
    video = recording((frames, 11, 13, channels), "uint16")
    path = tmp_path / f"compensated.{name}"
    export(path, name, video)
    found = read_independently(path, name, video.shape)
    assert found.dtype == video.dtype
    np.testing.assert_array_equal(found, video)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMATS)
def test_every_dtype_comes_back_or_is_refused(tmp_path, name, dtype):
    video = recording((3, 10, 17, 2), dtype)
    path = tmp_path / f"compensated.{name}"
    if name == "MAT" and dtype == "float16":
        with pytest.raises(InputError, match="output_typename='single'"):
            open_writer(path, name, shape=video.shape, dtype=video.dtype)
        assert list(tmp_path.iterdir()) == []
        return
    export(path, name, video, metadata=KNOWN)
    found = read_independently(path, name, video.shape)
    if dtype == "bool" and name != "HDF5":
        assert found.dtype == np.uint8
    else:
        assert found.dtype == video.dtype
    np.testing.assert_array_equal(found, video)


def test_square_recording_with_as_many_frames_as_rows(tmp_path):
    # T == H == W: nothing may guess axes from sizes.
    video = recording((10, 10, 10, 1), "uint8")
    for name in FORMATS:
        path = tmp_path / name / "x"
        path.parent.mkdir()
        export(path, name, video, blocks=(10,))
        np.testing.assert_array_equal(read_independently(path, name, video.shape), video)


def test_non_contiguous_blocks_are_written_right(tmp_path):
    base = recording((4, 12, 14, 2), "float32")
    video = base[:, ::-1, :, ::-1]
    for name in FORMATS:
        path = tmp_path / name / "x"
        path.parent.mkdir()
        export(path, name, video)
        np.testing.assert_array_equal(read_independently(path, name, video.shape), video)


def test_tiff_plain_imread_has_time_first(tmp_path):
    one = recording((5, 10, 12, 1), "uint16")
    export(tmp_path / "one.tif", "TIFF", one)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "one.tif"), one[..., 0])
    two = recording((5, 10, 12, 2), "uint16")
    (tmp_path / "b").mkdir()
    export(tmp_path / "b" / "two.tif", "TIFF", two)
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "b" / "two.tif"), np.moveaxis(two, -1, 1)
    )


@pytest.mark.parametrize(
    ("dtype", "flavour"), [("uint16", "imagej"), ("float64", "ome"), ("float16", "shaped")]
)
def test_tiff_describes_axes_and_physical_sizes(tmp_path, dtype, flavour):
    video = recording((3, 10, 12, 2), dtype)
    path = tmp_path / "a.tif"
    export(path, "TIFF", video, metadata=KNOWN)
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "TCYX"
        assert (file.is_imagej, file.is_ome, file.is_shaped) == tuple(
            flavour == kind for kind in ("imagej", "ome", "shaped")
        )
        page = file.pages[0]
        per_unit = [n / d for n, d in (page.tags[t].value for t in ("XResolution", "YResolution"))]
        if flavour == "imagej":
            found = file.imagej_metadata
            assert (found["frames"], found["channels"], found["hyperstack"]) == (3, 2, True)
            assert found["unit"] == "um"
            assert float(found["finterval"]) == 0.04
            assert found["Info"] == "channel_names: GCaMP, tdTomato\n"
            np.testing.assert_allclose(per_unit, [1 / 0.25, 1 / 0.5])
        else:
            # Pixels in a centimetre.
            np.testing.assert_allclose(per_unit, [1e4 / 0.25, 1e4 / 0.5])
        if flavour == "ome":
            pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
            assert (pixels["SizeT"], pixels["SizeC"]) == (3, 2)
            assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"]) == (0.25, 0.5)
            assert pixels["PhysicalSizeXUnit"] == "µm"
            assert pixels["TimeIncrement"] == 0.04
            assert [channel["Name"] for channel in pixels["Channel"]] == ["GCaMP", "tdTomato"]
        if flavour == "shaped":
            found = file.shaped_metadata[0]
            assert found["frame_interval_s"] == 0.04
            assert found["channel_names"] == ["GCaMP", "tdTomato"]


def test_tiff_above_four_gigabytes_is_bigtiff():
    # Only the decision: the layout of a large file is the same as that of a small OME file.
    assert TiffWriter("x", (8000, 512, 512, 1), "uint16").flavour == "imagej"
    assert TiffWriter("x", (9000, 512, 512, 1), "uint16").flavour == "ome"
    assert TiffWriter("x", (3_000_000, 10, 10, 3), "uint8").flavour == "ome"


def test_large_tiff_opens_with_every_page_in_place(tmp_path):
    # A sparse file of 4.7 GB: only the last page gets bytes.
    shape = (9000, 512, 512, 1)
    writer = TiffWriter(tmp_path / "big.tif", shape, "uint16")
    last = recording((1, *shape[1:]), "uint16")
    writer._create(tmp_path / "big.tif")
    assert writer._file is not None
    writer._file.seek((shape[0] - 1) * last.nbytes, os.SEEK_CUR)
    writer._append(last, shape[0] - 1)
    writer._close()
    with tifffile.TiffFile(tmp_path / "big.tif") as file:
        assert file.is_bigtiff
        assert file.series[0].shape == shape[:3]
        np.testing.assert_array_equal(file.pages[-1].asarray(), last[0, ..., 0])
        assert not file.pages[0].asarray().any()


@pytest.mark.parametrize("dtype", ["uint16", "float64", "float16"])
def test_names_beyond_ascii(tmp_path, dtype):
    video = recording((2, 10, 10, 2), dtype)
    names = VideoMetadata(channel_names=("488 µm", "β"))
    export(tmp_path / "a.tif", "TIFF", video, metadata=names)
    np.testing.assert_array_equal(
        read_independently(tmp_path / "a.tif", "TIFF", video.shape), video
    )
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        found = {
            "uint16": lambda: file.imagej_metadata["Info"],
            "float64": lambda: file.ome_metadata,
            "float16": lambda: str(file.shaped_metadata),
        }[dtype]()
    assert "488 µm" in found
    assert "β" in found


def test_hdf5_layout_is_the_documented_one(tmp_path):
    video = recording((5, 10, 12, 2), "uint16")
    export(tmp_path / "a.h5", "HDF5", video, metadata=KNOWN)
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == ["ch1", "ch2"]
        assert file["ch1"].maxshape == (None, 10, 12)
        assert file["ch1"].chunks[1:] == (10, 12)
        assert file["ch2"].attrs["original_shape_THWC"].tolist() == [5, 10, 12, 2]
        found = dict(file.attrs)
        assert (found["n_channels"], found["frame_count"]) == (2, 5)
        assert (found["height"], found["width"]) == (10, 12)
        assert list(found["dataset_names"]) == ["ch1", "ch2"]
        # Position of H, W and T among the axes.
        assert [file["ch1"].shape[axis] for axis in found["dimension_ordering"]] == [10, 12, 5]
        assert found["format"] == "scopeflow_hdf5_v1"
        assert found["pixel_size_um"].tolist() == [0.5, 0.25]
        assert found["frame_interval_s"] == 0.04
        assert list(found["channel_names"]) == ["GCaMP", "tdTomato"]


@pytest.mark.parametrize(
    ("dtype", "matlab"),
    [("bool", b"logical"), ("float32", b"single"), ("float64", b"double"), ("int16", b"int16")],
)
def test_mat_has_the_header_and_classes_of_matlab(tmp_path, dtype, matlab):
    export(tmp_path / "a.mat", "MAT", recording((3, 10, 12, 1), dtype), metadata=VideoMetadata(
        pixel_size_um=(0.5, 0.25), frame_interval_s=0.04, channel_names=("GCaMP",)
    ))  # fmt: skip
    header = (tmp_path / "a.mat").read_bytes()[:512]
    assert header.startswith(b"MATLAB 7.3 MAT-file")
    assert header[116:124] == bytes(8)
    assert header[124:128] == b"\x00\x02IM"
    assert header[128:] == bytes(384)
    with h5py.File(tmp_path / "a.mat") as file:
        assert file.userblock_size == 512
        assert file["ch1"].attrs["MATLAB_class"] == matlab
        assert ("MATLAB_int_decode" in file["ch1"].attrs) == (dtype == "bool")
        # Row vectors (1, 2) and scalars (1, 1), axes reversed.
        np.testing.assert_array_equal(file["pixel_size_um"][()].T, [[0.5, 0.25]])
        np.testing.assert_array_equal(file["frame_interval_s"][()], [[0.04]])


def test_scipy_recognises_the_mat_version(tmp_path):
    from scipy.io.matlab import matfile_version

    export(tmp_path / "a.mat", "MAT", recording((3, 10, 12, 1), "uint8"))
    assert matfile_version(tmp_path / "a.mat") == (2, 0)


def test_displacements_and_valid_pixels(tmp_path):
    flow = np.random.default_rng(1).normal(size=(10, 10, 10, 2)).astype(np.float32)
    valid = flow[..., 0] > 0
    with open_displacement_writer(tmp_path / "w.h5", (10, 10, 10)) as writer:
        writer.write(flow[:4])
        writer.write(flow[4:])
    with ValidIndexWriter(tmp_path / "idx.hdf", (10, 10, 10)) as index:
        index.write(valid[:7])
        index.write(valid[7:, ..., np.newaxis])
        with pytest.raises(InputError, match="must be bool"):
            index.write(valid.astype(np.uint8))
    with h5py.File(tmp_path / "w.h5") as file:
        assert sorted(file) == ["u", "v"]
        np.testing.assert_array_equal(file["u"], flow[..., 0])
        np.testing.assert_array_equal(file["v"], flow[..., 1])
        assert file["u"].dtype == np.float32
    with h5py.File(tmp_path / "idx.hdf") as file:
        assert list(file) == ["ch1"]
        assert file["ch1"].dtype == np.uint8
        np.testing.assert_array_equal(file["ch1"], np.where(valid, 255, 0))


def fail_half_way(path, name):
    with open_writer(path, name, shape=(4, 10, 10, 1), dtype="uint8") as writer:
        writer.write(np.zeros((2, 10, 10, 1), np.uint8))
        (partial,) = path.parent.glob("x.*.partial")
        assert partial.stat().st_size > 0
        raise ZeroDivisionError


@pytest.mark.parametrize("name", FORMATS)
def test_an_exception_leaves_the_older_file_and_no_rest(tmp_path, name):
    path = tmp_path / "x"
    path.write_text("older result")
    with pytest.raises(ZeroDivisionError):
        fail_half_way(path, name)
    assert path.read_text() == "older result"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", FORMATS)
def test_missing_frames_are_an_error_and_no_file(tmp_path, name):
    with (
        pytest.raises(OutputError, match="announced with 4 frames and got 3"),
        open_writer(tmp_path / "x", name, shape=(4, 10, 10, 1), dtype="uint8") as writer,
    ):
        writer.write(np.zeros((3, 10, 10, 1), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((1, 10, 11, 1), "uint8", r"takes \(n, 10, 10, 1\)"),
        ((10, 10, 1), "uint8", r"takes \(n, 10, 10, 1\)"),
        ((5, 10, 10, 1), "uint8", "announced with 4 frames and was given 5"),
        ((1, 10, 10, 1), "uint16", "takes uint8. Round, clip and cast"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(tmp_path, shape, dtype, message):
    with (
        pytest.raises(InputError, match=message),
        open_writer(tmp_path / "x", "HDF5", shape=(4, 10, 10, 1), dtype="uint8") as writer,
    ):
        writer.write(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (0, 10, 10, 1)}, "each at least 1"),
        ({"dtype": "complex64"}, "complex64 cannot be stored"),
        ({"dtype": object}, "cannot be stored"),
        ({"metadata": VideoMetadata(channel_names=("a", "b"))}, "2 channel names"),
    ],
)
@pytest.mark.parametrize("name", FORMATS)
def test_recordings_that_cannot_be_stored_are_refused(tmp_path, name, arguments, message):
    with pytest.raises(InputError, match=message):
        open_writer(tmp_path / "x", name, **{"shape": (4, 10, 10, 1), "dtype": "uint8"} | arguments)


def test_writer_is_used_in_a_with_statement_and_for_exports_only(tmp_path):
    writer = open_writer(tmp_path / "x", "hdf5", shape=(1, 10, 10, 1), dtype="uint8")
    with pytest.raises(InputError, match="inside its with statement"):
        writer.write(np.zeros((1, 10, 10, 1), np.uint8))
    with pytest.raises(OptionsError, match="Use one of CAIMAN_HDF5, HDF5, MAT, MULTIFILE_HDF5"):
        open_writer(tmp_path / "x", "ZARR", shape=(1, 10, 10, 1), dtype="uint8")


STREAM = """
import resource, sys, time
import numpy as np
from scopeflow.io.write.exports import open_writer

name, path, frames, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
block = np.ones((10, 512, 512, 1), np.uint16)
try:
    with open_writer(path, name, shape=(frames, 512, 512, 1), dtype="uint16") as writer:
        writer.write(block)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(frames // 10 - 1):
            writer.write(block)
            if not limit and frames == 20:
                print("half", flush=True)
                time.sleep(60)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
except OSError as error:
    print(type(error).__name__, error)
"""


def stream(name, path, frames, limit=0):
    command = [sys.executable, "-c", textwrap.dedent(STREAM), name, path, str(frames), str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("name", FORMATS)
def test_memory_does_not_grow_with_the_recording(tmp_path, name):
    process = stream(name, tmp_path / "x", 200)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    # 190 frames of 0.5 MiB pass; the limit is 20 MiB (in KiB).
    assert (tmp_path / "x").stat().st_size > 200 * 512 * 512 * 2
    assert int(output) < 20 * 1024


@pytest.mark.parametrize("name", FORMATS)
def test_killed_process_leaves_nothing_under_the_name(tmp_path, name):
    process = stream(name, tmp_path / "x", 20)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (tmp_path / "x").exists()
    # The rest does not hinder the next run.
    video = recording((2, 10, 10, 1), "uint8")
    export(tmp_path / "x", name, video)
    np.testing.assert_array_equal(read_independently(tmp_path / "x", name, video.shape), video)


@pytest.mark.parametrize("name", FORMATS)
def test_failing_write_is_one_clear_error_and_leaves_nothing(tmp_path, name):
    # A real failure of the system: files may not exceed 8 MiB in that process.
    process = stream(name, tmp_path / "x", 40, limit=8 << 20)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.startswith("OutputError Cannot write")
    assert "largest file allowed" in output
    assert "choose another output_path" in output
    assert list(tmp_path.iterdir()) == []


def test_full_device_is_named():
    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as device:
        device.write(b"x")
    error = output_error(caught.value, "out.tif")
    assert isinstance(error, OutputError)
    assert "no space is left. Free space there, or choose another output_path" in str(error)
    assert error.errno == caught.value.errno


def test_lack_of_space_is_found_before_anything_is_written(tmp_path):
    shape = (10**9, 512, 512, 1)
    with (
        pytest.raises(OutputError, match=r"needs 524288\.00 GB.*are free"),
        open_writer(tmp_path / "deep" / "x", "HDF5", shape=shape, dtype="uint16"),
    ):
        pass
    assert list((tmp_path / "deep").iterdir()) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for name in FORMATS:
        for path, message in [
            (tmp_path / "file" / "x", "part of its path is a file"),
            (tmp_path / "folder", "folder of this name exists"),
            (tmp_path / ("n" * 300), "name is too long"),
        ]:
            with (
                pytest.raises(OutputError, match=message),
                open_writer(path, name, shape=(1, 10, 10, 1), dtype="uint8"),
            ):
                pass


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.EACCES, "permission is denied. Get write permission"),
        (errno.EROFS, "read-only"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_causes_of_the_system_are_named(number, cause):
    assert cause in str(output_error(OSError(number, os.strerror(number)), "out.tif"))
    hidden = OSError(f"Can't write data (file write failed: errno = {number}, error message = '')")
    assert output_error(hidden, "out.tif").errno == number


def test_folder_without_permission_is_named(locked_folder):
    with pytest.raises(OutputError, match="permission is denied"):
        atomic_save_npy(locked_folder / "a.npy", np.zeros(3))


def test_arrays_are_saved_whole_or_not_at_all(tmp_path):
    atomic_save_npz(tmp_path / "statistics.npz", mean_disp=np.arange(3.0), max_disp=[1.0])
    with np.load(tmp_path / "statistics.npz") as stored:
        assert sorted(stored) == ["max_disp", "mean_disp"]
        np.testing.assert_array_equal(stored["mean_disp"], [0, 1, 2])
    path = tmp_path / "reference_frame.npy"
    atomic_save_npy(path, np.ones((2, 3, 1)))
    with pytest.raises(ValueError, match="allow_pickle"):
        atomic_save_npy(path, np.array([object()]))
    np.testing.assert_array_equal(np.load(path), np.ones((2, 3, 1)))
    assert len(list(tmp_path.iterdir())) == 2
    prepare_target(path, 0)
