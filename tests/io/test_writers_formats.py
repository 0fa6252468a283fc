from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from scopeflow import open_video
from scopeflow.errors import InputError, InputNotFoundError, OutputError, UnreadableFileError
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.open import open_source
from scopeflow.io.write.exports import open_writer

KNOWN = VideoMetadata(
    pixel_size_um=(0.5, 0.25), frame_interval_s=0.04, channel_names=("GCaMP", "tdTomato")
)
SUFFIXES = {
    "MULTIFILE_TIFF": "tiff",
    "MULTIFILE_HDF5": "hdf5",
    "MULTIFILE_MAT": "mat",
    "CAIMAN_HDF5": "hdf5",
    "SUITE2P_TIFF": "tif",
    "OME_TIFF": "ome.tiff",
}
ONE_FILE_A_CHANNEL = tuple(name for name in SUFFIXES if name.startswith(("MULTI", "CAIMAN")))


def recording(shape=(5, 11, 13, 2), dtype="uint16"):
    return np.random.default_rng(4).integers(0, 250, shape).astype(dtype)


def export(folder: Path, name: str, video, blocks=(2, 1), metadata=KNOWN):
    path = folder / f"compensated.{SUFFIXES[name]}"
    with open_writer(path, name, shape=video.shape, dtype=video.dtype, metadata=metadata) as writer:
        start = 0
        for length in (*blocks, len(video)):
            writer.write(video[start : start + length])
            start += length
    return sorted(folder.iterdir())


def plane(path: Path) -> np.ndarray:
    """The one channel of a file as (T, H, W), by the rules of its format, without our code."""
    if path.suffix == ".tiff":
        return tifffile.imread(path)
    with h5py.File(path) as file:
        (name,) = (key for key in file if file[key].ndim == 3)
        stored = file[name][()]
    return stored.transpose(0, 2, 1) if path.suffix == ".mat" else stored


@pytest.mark.parametrize("name", ONE_FILE_A_CHANNEL)
def test_one_file_a_channel_comes_back_and_is_one_recording(tmp_path, name):
    video = recording()
    files = export(tmp_path, name, video)
    assert [path.name for path in files] == [f"compensated_ch{n}.{SUFFIXES[name]}" for n in (1, 2)]
    for channel, path in enumerate(files):
        np.testing.assert_array_equal(plane(path), video[..., channel])
    # As folder, as pattern and as list in any order.
    pattern = tmp_path / "compensated_ch*"
    for given in (tmp_path, pattern, files[::-1]):
        found = open_video(given).to_numpy()
        assert found.dtype == video.dtype
        np.testing.assert_array_equal(found, video)


def test_caiman_layout(tmp_path):
    files = export(tmp_path, "CAIMAN_HDF5", recording())
    with h5py.File(files[1]) as file:
        assert list(file) == ["mov"]
        assert file["mov"].shape == (5, 11, 13)
        assert file["mov"].attrs["fr"] == 25
        assert list(file.attrs["channel_names"]) == ["tdTomato"]


def test_suite2p_pages_interleave_the_channels(tmp_path):
    video = recording()
    (path,) = export(tmp_path, "SUITE2P_TIFF", video)
    with tifffile.TiffFile(path) as file:
        pages = [page.asarray() for page in file.pages]
    np.testing.assert_array_equal(pages, video.transpose(0, 3, 1, 2).reshape(10, 11, 13))
    np.testing.assert_array_equal(open_video(path).to_numpy(), video)


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool", "uint32"])
def test_suite2p_types_that_it_would_cut_are_refused(tmp_path, dtype):
    with pytest.raises(InputError, match="output_typename='int16' or 'uint16'"):
        open_writer(tmp_path / "a.tif", "SUITE2P_TIFF", shape=(4, 10, 10, 1), dtype=dtype)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint32", "float32", "float64"])
def test_ome_tiff_is_valid_ome(tmp_path, dtype):
    ome_types = pytest.importorskip("ome_types")
    video = recording(dtype=dtype)
    (path,) = export(tmp_path, "OME_TIFF", video)
    with tifffile.TiffFile(path) as file:
        assert (file.is_ome, file.is_imagej, file.is_bigtiff) == (True, False, True)
        xml = file.ome_metadata
        assert xml is not None
        np.testing.assert_array_equal(file.series[0].asarray(), video.transpose(0, 3, 1, 2))
    ome_types.validate_xml(xml)
    pixels = ome_types.from_xml(xml).images[0].pixels
    assert (pixels.size_t, pixels.size_c, pixels.size_y, pixels.size_x) == (5, 2, 11, 13)
    assert (pixels.physical_size_y, pixels.physical_size_x) == (0.5, 0.25)
    assert pixels.time_increment == 0.04
    assert [channel.name for channel in pixels.channels] == ["GCaMP", "tdTomato"]
    assert pixels.type.value == {"bool": "uint8", "float32": "float", "float64": "double"}.get(
        dtype, dtype
    )


@pytest.mark.parametrize("dtype", ["float16", "int64", "uint64"])
def test_ome_tiff_refuses_types_without_a_name(tmp_path, dtype):
    with pytest.raises(InputError, match="OME-TIFF has no type"):
        open_writer(tmp_path / "a.tif", "OME_TIFF", shape=(4, 10, 10, 1), dtype=dtype)


@pytest.mark.parametrize("name", SUFFIXES)
def test_bytes_do_not_depend_on_blocks(tmp_path, name):
    video = recording((6, 11, 13, 2))
    found = []
    for blocks in [(6,), (1, 2, 3), (4, 1)]:
        folder = tmp_path / str(len(found))
        folder.mkdir()
        # The header of MATLAB files holds the time of writing.
        skip = 128 if name == "MULTIFILE_MAT" else 0
        found.append([path.read_bytes()[skip:] for path in export(folder, name, video, blocks)])
    if name == "OME_TIFF":
        found = [[without_uuid(data) for data in each] for each in found]
    assert found[0] == found[1] == found[2]


def without_uuid(data: bytes) -> bytes:
    start = data.find(b"urn:uuid:")
    return data if start < 0 else data[:start] + bytes(45) + data[start + 45 :]


@pytest.mark.parametrize("name", SUFFIXES)
def test_a_failure_leaves_older_files_and_no_rest(tmp_path, name):
    files = export(tmp_path, name, recording())
    before = [path.read_bytes() for path in files]
    path = tmp_path / f"compensated.{SUFFIXES[name]}"
    with (
        pytest.raises(OutputError, match="announced with 4 frames and got 1"),
        open_writer(path, name, shape=(4, 10, 10, 2), dtype="uint8") as writer,
    ):
        writer.write(np.zeros((1, 10, 10, 2), np.uint8))
    assert sorted(tmp_path.iterdir()) == files
    assert [path.read_bytes() for path in files] == before


def test_second_channel_that_cannot_be_opened_closes_the_first(tmp_path):
    (tmp_path / "a_ch2.hdf5").mkdir()
    with (
        pytest.raises(OutputError, match=r"a_ch2\.hdf5: a folder of this name"),
        open_writer(tmp_path / "a.hdf5", "MULTIFILE_HDF5", shape=(4, 10, 10, 2), dtype="uint8"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a_ch2.hdf5"]


def test_blocks_of_another_channel_count_are_refused(tmp_path):
    with (
        pytest.raises(InputError, match="2 files of one"),
        open_writer(tmp_path / "a.mat", "MULTIFILE_MAT", shape=(4, 10, 10, 2), dtype="uint8") as w,
    ):
        w.write(np.zeros((4, 10, 10, 1), np.uint8))
    with pytest.raises(InputError, match="2 channel names are given for 3"):
        open_writer(
            tmp_path / "a.mat", "MULTIFILE_MAT", shape=(4, 10, 10, 3), dtype="uint8", metadata=KNOWN
        )


def test_results_of_two_formats_in_one_folder_are_not_guessed(tmp_path):
    export(tmp_path, "MULTIFILE_TIFF", recording())
    export(tmp_path, "SUITE2P_TIFF", recording())
    with pytest.raises(InputError, match=r"several results: compensated\.tif, compensated_ch1"):
        open_video(tmp_path)


# -- suite2p's own binary files ------------------------------------------------------------------


def write_binary(folder: Path, video, **settings):
    for channel, name in zip(range(video.shape[3]), ("data.bin", "data_chan2.bin"), strict=False):
        video[..., channel].astype("<i2").tofile(folder / name)
    ops = {"Ly": video.shape[1], "Lx": np.int64(video.shape[2]), "fs": 20.0, **settings}
    np.save(folder / "ops.npy", ops, allow_pickle=True)


def test_binary_file_of_suite2p(tmp_path):
    video = recording(dtype="int16")
    write_binary(tmp_path, video, meanImg=np.ones((11, 13)), save_path=tmp_path)
    for given in (tmp_path, tmp_path / "data.bin"):
        source = open_source(given)
        assert source.metadata.frame_interval_s == 0.05
        np.testing.assert_array_equal(source.read(1, 4), video[1:4])
    assert source.identity() != {}


def cut_by(path, count):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - count)


@pytest.mark.parametrize("lost", [11 * 13 * 2, 2 * 11 * 13 * 2, 3, 11 * 13 * 2 + 4])
@pytest.mark.parametrize("name", ["data.bin", "data_chan2.bin"])
def test_a_file_of_suite2p_that_was_cut_lacks_its_last_frames(tmp_path, name, lost):
    video = recording(dtype="int16")
    write_binary(tmp_path, video, nframes=len(video))
    np.testing.assert_array_equal(open_source(tmp_path).read(0, 5), video)
    cut_by(tmp_path / name, lost)
    left = 5 - -(-lost // (11 * 13 * 2))
    with pytest.raises(UnreadableFileError, match=rf"nframes=5, but {left} are .*frame.? {left}"):
        open_source(tmp_path)
    source = open_source(tmp_path / "data.bin", missing="mask")
    assert source.shape == video.shape
    assert source.absent == tuple(range(left, 5))
    np.testing.assert_array_equal(source.read(0, 5)[:left], video[:left])
    assert not source.read(left, 5).any()
    with pytest.raises(InputError, match="not for suite2p"):
        open_source(tmp_path, missing="fill")


def test_more_frames_than_suite2p_names_are_read_and_told(tmp_path, caplog):
    video = recording(dtype="int16")
    write_binary(tmp_path, video, nframes=3)
    np.testing.assert_array_equal(open_source(tmp_path).read(0, 5), video)
    assert "holds 5 frames, and ops.npy names nframes=3" in caplog.text
    caplog.clear()
    for unknown in (0, None):
        write_binary(tmp_path, video, nframes=unknown)
        assert open_source(tmp_path).shape == video.shape
    write_binary(tmp_path, video)
    cut_by(tmp_path / "data.bin", 11 * 13 * 2)
    with pytest.raises(UnreadableFileError, match="another number than of the other channel"):
        open_source(tmp_path, missing="mask")
    assert not caplog.text


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_settings_of_suite2p_execute_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_binary(tmp_path, recording(dtype="int16"), other=Harmful())
    assert open_source(tmp_path).shape == (5, 11, 13, 2)
    assert not (tmp_path / "harm").exists()


def test_damaged_files_of_suite2p_are_refused(tmp_path):
    write_binary(tmp_path, recording(dtype="int16"))
    with (tmp_path / "data.bin").open("ab") as file:
        file.write(b"xx")
    with pytest.raises(UnreadableFileError, match="no whole number of frames of 11 × 13"):
        open_source(tmp_path)
    (tmp_path / "ops.npy").write_bytes(b"\x93NUMPY nothing")
    with pytest.raises(UnreadableFileError, match="Ly and Lx cannot be read"):
        open_source(tmp_path)
    (tmp_path / "ops.npy").unlink()
    with pytest.raises(InputNotFoundError, match=r"Copy ops\.npy"):
        open_source(tmp_path)


SUITE2P = """
import os, sys
import suite2p
from suite2p.io import tiff_to_binary
path, channels, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
ops = suite2p.default_ops()
ops |= {"data_path": [os.path.dirname(path)], "tiff_list": [os.path.basename(path)]}
ops |= {"save_path0": out, "fast_disk": out, "nchannels": channels, "nplanes": 1}
tiff_to_binary(ops)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("SCOPEFLOW_SUITE2P_PYTHON"), reason="SCOPEFLOW_SUITE2P_PYTHON names none"
)
@pytest.mark.parametrize("dtype", ["int16", "uint16"])
@pytest.mark.parametrize("channels", [1, 2])
def test_suite2p_itself_reads_the_file(tmp_path, dtype, channels):
    # Its own reader makes its own binary file, and we read that: the circle is closed.
    video = recording((9, 32, 40, channels), dtype)
    source = tmp_path / "in"
    source.mkdir()
    (path,) = export(source, "SUITE2P_TIFF", video, metadata=None)
    python = os.environ["SCOPEFLOW_SUITE2P_PYTHON"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", SUITE2P, str(path), str(channels), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = open_video(tmp_path / "suite2p" / "plane0").to_numpy()
    expected = video // 2 if dtype == "uint16" else video
    np.testing.assert_array_equal(found, expected.astype(np.int16))


def test_uninstalled_pyav_is_a_clear_error(tmp_path):
    path = tmp_path / "a.avi"
    path.write_bytes(b"RIFF0000AVI LIST" + bytes(100))
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from scopeflow.io.open import open_source\n"
        f"open_source({str(path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "InputError" in done.stderr
    assert "pip install 'scopeflow[video]'" in done.stderr


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_tiff_that_another_program_appended_to_block_by_block(tmp_path, channels):
    # Each call begins a series, the last one is shorter; a single page has no frame axis at all.
    video = recording((10, 11, 13, channels))
    path = tmp_path / "a.tif"
    for start, stop in [(0, 4), (4, 8), (8, 9), (9, 10)]:
        block = video[start:stop] if channels > 1 else video[start:stop, ..., 0]
        tifffile.imwrite(
            path,
            block,
            append=start > 0,
            photometric="minisblack",
            planarconfig="contig" if channels > 1 else None,
            bigtiff=True,
        )
    with tifffile.TiffFile(path) as file:
        assert len(file.series) > 1
    source = open_source(path)
    np.testing.assert_array_equal(source.read(0, 10), video)
    np.testing.assert_array_equal(source.read(7, 9), video[7:9])
