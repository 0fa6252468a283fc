"""A recording that another process changes during a run: the run fails and keeps no mixture."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from scopeflow import open_video
from scopeflow.errors import InputError, OutputError, UnreadableFileError
from scopeflow.motion.correct import compensate_recording
from scopeflow.motion.motion import compute_motion

CHANGES = {
    "zarr": """
import numpy as np, zarr
array = zarr.open_array(PATH, mode="r+")
array[8:12] = np.asarray(array[8:12])[:, ::-1]
""",
    "hdf5": """
import h5py
with h5py.File(PATH, "r+") as file:
    file["mov"][20:] = file["mov"][20:][:, ::-1]
""",
    "tiff": """
import numpy as np, os
with open(PATH, "r+b") as file:
    file.seek(os.path.getsize(PATH) - 400)
    file.write(b"\\1" * 400)
""",
    "compressed": """
import tifffile
frames = tifffile.imread(PATH)
tifffile.imwrite(PATH, frames[:, ::-1], photometric="minisblack", compression="zlib")
""",
}


def write(kind, folder, video):
    frames = video[..., 0]
    if kind == "zarr":
        path = folder / "movie.zarr"
        array = zarr.create_array(
            str(path), shape=frames.shape, dtype=frames.dtype, chunks=(4, *frames.shape[1:])
        )
        array[...] = frames
    elif kind == "hdf5":
        path = folder / "movie.h5"
        with h5py.File(path, "w") as file:
            file["mov"] = frames
    else:
        path = folder / "movie.tif"
        compression = "zlib" if kind == "compressed" else None
        tifffile.imwrite(path, frames, photometric="minisblack", compression=compression)
    return path


def change(kind, path):
    """Change the recording in another process, as another program would."""
    code = f"PATH = {str(path)!r}\n{CHANGES[kind]}"
    # As on network mounts: the lock of our reader stops nobody.
    unlocked = {**os.environ, "HDF5_USE_FILE_LOCKING": "FALSE"}
    subprocess.run([sys.executable, "-c", code], check=True, env=unlocked)


def at_the_end_of(frames, action):
    done = []

    def callback(count, total):
        if count == frames and not done:
            done.append(count)
            action()

    return callback


@pytest.fixture
def video(small_recording):
    return np.round(small_recording.video[..., :1]).astype(np.uint16)


@pytest.mark.parametrize("output_format", ["ZARR", "HDF5", "ARRAY"])
@pytest.mark.parametrize("kind", CHANGES)
def test_a_recording_that_changes_in_the_middle_fails_the_run(
    kind, output_format, video, quick_options, quiet, tmp_path
):
    if output_format != "ZARR" and kind in ("tiff", "compressed"):
        pytest.skip("the same as with zarr")
    path = write(kind, tmp_path, video)
    options = quick_options(
        input_file=str(path),
        output_path=tmp_path / "out",
        output_format=output_format,
        reference_frames=[0, 1, 2],
    )
    hook = at_the_end_of(20, lambda: change(kind, path))
    config = quiet(parallelization="sequential", block_length=4)
    with pytest.raises(InputError, match="changed") as caught:
        compensate_recording(options, config=config, progress_callback=hook)
    assert path.name in str(caught.value)
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_chunk_that_was_already_read_is_named_and_nothing_is_reused(
    video, quick_options, quiet, tmp_path
):
    path = write("zarr", tmp_path, video)
    kept = tmp_path / "kept.zarr"
    shutil.copytree(path, kept)  # with times
    options = quick_options(
        input_file=str(path), output_path=tmp_path / "out", reference_frames=[0, 1, 2]
    )
    config = quiet(parallelization="sequential", block_length=4)
    hook = at_the_end_of(len(video), lambda: change("zarr", path))
    with pytest.raises(InputError, match="taken back, of frames 8 to 11") as caught:
        compensate_recording(options, config=config, progress_callback=hook)
    assert "movie.zarr" in str(caught.value)
    assert not list((tmp_path / "out" / ".scopeflow").glob("*/ledger/block-*"))

    shutil.rmtree(path)
    shutil.copytree(kept, path)
    compensate_recording(options, config=config)
    clean = options.model_copy(update={"output_path": tmp_path / "clean"})
    compensate_recording(clean, config=config)
    mine, others = (open_video(tmp_path / name).to_numpy() for name in ("out", "clean"))
    assert np.array_equal(mine, others)


def test_a_chunk_of_the_same_size_and_an_older_time_is_seen(video, quick_options, quiet, tmp_path):
    path = tmp_path / "movie.zarr"
    zarr.create_array(
        str(path),
        shape=video.shape[:3],
        dtype=video.dtype,
        chunks=(4, *video.shape[1:3]),
        compressors=None,
    )[...] = video[..., 0]
    options = quick_options(
        input_file=str(path), output_path=tmp_path / "out", reference_frames=[0, 1, 2]
    )

    def replace():
        chunk = path / "c" / "5" / "0" / "0"
        new = chunk.with_name("new")
        new.write_bytes(chunk.read_bytes()[::-1])
        os.utime(new, ns=(1, 10**18))
        new.replace(chunk)

    config = quiet(parallelization="sequential", block_length=4)
    with pytest.raises(InputError, match="taken back, of frames 20 to 23"):
        compensate_recording(
            options, config=config, progress_callback=at_the_end_of(len(video), replace)
        )


@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
def test_motion_is_not_saved_from_two_recordings(kind, video, quick_options, quiet, tmp_path):
    path = write(kind, tmp_path, video)
    changed = []

    class Changing:
        """Solves nothing; changes the recording at the twentieth frame."""

        def __init__(self):
            self.count = 0

        def __call__(self, reference, moving, *, uv, weight, **parameters):
            self.count += 1
            if self.count == 40:
                change(kind, path)
                changed.append(self.count)
            return np.zeros((*moving.shape[:2], 2), np.float32)

    options = quick_options(get_displacement_impl=Changing())
    motion = compute_motion(str(path), video[0], options)
    config = quiet(parallelization="sequential", block_length=4)
    with pytest.raises(InputError, match="changed"):
        motion.save(tmp_path / "motion.zarr", config)
    assert changed


def test_a_recording_that_stays_is_finished_and_records_say_what_was_read(
    video, quick_options, quiet, tmp_path
):
    path = write("zarr", tmp_path, video)
    options = quick_options(
        input_file=str(path), output_path=tmp_path / "out", reference_frames=[0, 1, 2]
    )
    config = quiet(parallelization="sequential", block_length=4)
    compensate_recording(options, config=config)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("c/*/*/*/*")}
    compensate_recording(options, config=config)  # all of it reused
    assert times == {p: p.stat().st_mtime_ns for p in times}


def test_shards_that_vanish_during_the_run_fail_it_and_are_made_again(
    video, quick_options, quiet, tmp_path
):
    store = tmp_path / "out" / "compensated.zarr"
    options = quick_options(
        input_file=video, output_path=tmp_path / "out", reference_frames=[0, 1, 2]
    )
    config = quiet(parallelization="sequential", block_length=4)
    hook = at_the_end_of(20, lambda: shutil.rmtree(store / "registered" / "c" / "1"))
    with pytest.raises(OutputError, match="registered/c/1/0/0/0 was removed"):
        compensate_recording(options, config=config, progress_callback=hook)
    with pytest.raises(UnreadableFileError, match="unfinished: 10 of 11 blocks"):
        open_video(tmp_path / "out")
    compensate_recording(options, config=config)
    assert open_video(tmp_path / "out").to_numpy()[4:8].any()
