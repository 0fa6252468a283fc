from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import tifffile
import xarray as xr
import yaozarrs
import zarr

from scopeflow import Motion, compensate_arr, compensate_recording, compute_motion, open_video
from scopeflow.engine.executor import Executor
from scopeflow.errors import InputError, InputNotFoundError, OutputExistsError, UnreadableFileError
from scopeflow.images.statistics import flow_statistics
from scopeflow.images.warp import valid_mask
from scopeflow.io.metadata import VideoMetadata
from scopeflow.motion.store import saved_motion as motion_store
from tests.conftest import same_bits
from tests.faults import motion_dies

REPOSITORY = Path(__file__).parents[2]
READ: list[tuple[int, int]] = []


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="sync"):
        yield


@dataclass(frozen=True)
class WatchedSource:
    """A recording that writes down which frames are read."""

    name: str
    shape: tuple[int, int, int, int]
    dtype = np.dtype(np.uint16)
    metadata = VideoMetadata(pixel_size_um=(0.5, 0.25), frame_interval_s=0.1)
    frames_per_chunk = 1
    description = "watched"

    @property
    def paths(self):
        return (self.name,)

    def read(self, start, stop):
        READ.append((start, stop))
        return np.load(self.name, mmap_mode="r")[start:stop].copy()

    def identity(self):
        return {"kind": "watched", "name": self.name}


@pytest.fixture(scope="module")
def watched(small_recording, tmp_path_factory):
    path = tmp_path_factory.mktemp("watched") / "video.npy"
    np.save(path, small_recording.video)
    return WatchedSource(str(path), small_recording.video.shape)


@pytest.fixture(scope="module")
def saved(small_recording, tmp_path_factory):
    """Motion of the small recording, saved in blocks of 10 frames, with what arrays give."""
    from scopeflow import OFOptions, RegistrationConfig

    config = RegistrationConfig(progress=False, parallelization="sequential", block_length=10)
    options = OFOptions(quality_setting="fast", iterations=10, buffer_size=20, output_typename=None)
    video, reference = small_recording.video, small_recording.reference
    path = tmp_path_factory.mktemp("motion") / "motion.zarr"
    motion = compute_motion(video, reference, options).save(path, config)
    registered, flow = compensate_arr(video, reference, options, registration_config=config)
    return path, motion, registered, flow


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"update_reference": True, "buffer_size": 15},
        {"update_initialization_w": False, "sigma": [[1, 1, 0.6]], "temporal_boundary": "batch"},
    ],
    ids=["chain", "renewed reference", "no chain, batches"],
)
def test_frames_and_displacements_are_those_of_compensate_arr(
    small_recording, quick_options, quiet, changes
):
    options = quick_options(output_typename=None, **changes)
    video, reference = small_recording.video, small_recording.reference
    registered, flow = compensate_arr(video, reference, options, registration_config=quiet())
    motion = compute_motion(video, reference, options)
    displacement, frames = dask.compute(motion.displacement.data, motion.apply(video).data)
    assert same_bits(displacement, flow)
    assert same_bits(frames, registered)


def test_a_reference_of_frames_is_built_as_compensate_recording_builds_it(
    small_recording, quick_options, quiet, tmp_path
):
    options = quick_options(
        input_file=small_recording.video, output_path=tmp_path, reference_frames=list(range(6))
    )
    raw = compensate_recording(options, config=quiet())
    motion = compute_motion(small_recording.video, None, options, quiet())
    assert same_bits(motion.reference, raw)
    kept = Motion.open(tmp_path)
    assert same_bits(motion.grid_displacement[:3].compute(), kept.grid_displacement[:3].compute())
    assert same_bits(kept.reference, raw)


def test_only_the_frames_that_are_looked_at_are_read_and_resampled(saved, watched):
    _, motion, registered, _ = saved
    applied = motion.apply(watched)
    READ.clear()
    assert same_bits(applied.isel(T=slice(31, 33)).to_numpy(), registered[31:33])
    assert sorted(READ) == [(31, 32), (32, 33)]
    READ.clear()
    assert applied.isel(T=7, C=1).to_numpy().shape == (40, 52)
    assert READ == [(7, 8)]


def test_only_the_frames_that_are_looked_at_are_solved(small_recording, watched, quick_options):
    solved = []

    def watch(frame):
        solved.append(1)
        return frame

    options = quick_options(update_initialization_w=False, preproc_funct=watch)
    motion = compute_motion(watched, small_recording.reference, options)
    READ.clear()
    motion.apply(watched).isel(T=slice(40, 43)).compute()
    assert len(solved) == 3
    assert {frame for start, stop in READ for frame in range(start, stop)} == {40, 41, 42}

    solved.clear()
    chained = compute_motion(watched, small_recording.reference, quick_options(preproc_funct=watch))
    chained.displacement.isel(T=slice(5, 7)).compute()
    # The first start is the mean displacement of 20 frames: all of the first batch.
    assert len(solved) == 20 + 4  # the end of a batch is solved in blocks of four


def test_saved_motion_has_the_bits_of_arrays(saved, small_recording):
    path, motion, registered, flow = saved
    assert same_bits(motion.displacement.to_numpy(), flow)
    assert same_bits(motion.apply(small_recording.video).to_numpy(), registered)
    expected = np.array([flow_statistics(frame) for frame in flow])
    for column, name in enumerate(("mean_disp", "max_disp", "mean_div", "mean_translation")):
        assert motion.statistics[name].values.tolist() == expected[:, column].tolist()
    assert same_bits(motion.valid.to_numpy(), np.array([valid_mask(frame) for frame in flow]))
    assert motion.grid_displacement.shape[1] < flow.shape[1]
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert stored < flow.nbytes / 4


@pytest.mark.parametrize("how", [{"parallelization": "threading", "n_jobs": 3}, {}])
def test_saved_bytes_do_not_depend_on_the_place(
    saved, small_recording, quick_options, quiet, tmp_path, how
):
    path, *_ = saved
    video = small_recording.video
    given = da.from_array(video, chunks=(7, 40, 52, 1)) if not how else video
    options = quick_options(output_typename=None)
    config = quiet(block_length=10, **how)
    compute_motion(given, small_recording.reference, options).save(tmp_path / "m.zarr", config)
    names = sorted(p.relative_to(path) for p in (path / "motion" / "c").rglob("*") if p.is_file())
    assert len(names) == 5
    for name in names:
        assert (tmp_path / "m.zarr" / name).read_bytes() == (path / name).read_bytes()


def test_other_block_lengths_give_the_same_numbers(
    saved, small_recording, quick_options, quiet, tmp_path
):
    _, motion, *_ = saved
    options = quick_options(output_typename=None)
    other = compute_motion(small_recording.video, small_recording.reference, options)
    other = other.save(tmp_path / "m.zarr", quiet(block_length=4))
    assert same_bits(other.grid_displacement.compute(), motion.grid_displacement.compute())


def test_stored_motion_is_copied_a_few_blocks_at_a_time(saved, quiet, tmp_path, monkeypatch):
    monkeypatch.setattr(motion_store, "_FRAMES_SUBMITTED", 8)
    submitted, run = [], Executor.run

    def counted(self, tasks, take):
        submitted.append(len(tasks))
        run(self, tasks, take)

    monkeypatch.setattr(Executor, "run", counted)
    motion = saved[1]
    copy = motion.save(tmp_path / "copy.zarr", quiet(block_length=4))
    assert same_bits(copy.grid_displacement.compute(), motion.grid_displacement.compute())
    assert max(submitted) == 2
    assert sum(submitted) == 11


def test_a_killed_save_goes_on_where_it_stopped(tmp_path):
    command = [sys.executable, str(REPOSITORY / "tests/faults/motion_dies.py")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    path = tmp_path / "motion.zarr"
    died = subprocess.run([*command, str(path), "65"], env=environment, check=False)
    assert died.returncode == 9
    with pytest.raises(UnreadableFileError, match="not complete"):
        Motion.open(path)
    motion_dies.calls = 0
    resumed = motion_dies.motion().save(path, motion_dies.config())
    # 20 frames of the first start and 60 frames; the death costs one block of 5.
    assert 80 - 65 <= motion_dies.calls <= 80 - 65 + 5
    fresh = motion_dies.motion().save(tmp_path / "fresh.zarr", motion_dies.config())
    assert same_bits(resumed.grid_displacement.compute(), fresh.grid_displacement.compute())
    motion_dies.calls = 0
    motion_dies.motion().save(path, motion_dies.config())
    assert motion_dies.calls == 0


def test_other_settings_do_not_overwrite(saved, small_recording, quick_options, quiet, tmp_path):
    path, *_ = saved
    other = compute_motion(small_recording.video, small_recording.reference, quick_options(alpha=7))
    with pytest.raises(OutputExistsError, match="alpha"):
        other.save(path, quiet())
    foreign = tmp_path / "mine.zarr"
    foreign.mkdir()
    with pytest.raises(OutputExistsError, match="no record"):
        other.save(foreign, quiet())


def test_other_channels_parts_and_formats(saved, small_recording, tmp_path):
    _, motion, registered, _ = saved
    video = small_recording.video
    one = motion.apply(video[..., 1], fill=small_recording.reference[..., 1])
    assert same_bits(one.to_numpy()[..., 0], registered[..., 1])

    zeros = motion.apply(video[..., 1], fill=0).to_numpy()[..., 0]
    valid = motion.valid.to_numpy()
    assert not valid.all()
    assert not zeros[~valid].any()
    np.testing.assert_array_equal(zeros[valid], registered[..., 1][valid])

    part = motion.apply(video[:, 10:34, 8:40], origin=(10, 8)).to_numpy()
    # Pixels whose source, with the support of the interpolation, lies inside of the part.
    np.testing.assert_allclose(part[:, 6:-6, 6:-6], registered[:, 16:28, 14:34], rtol=1e-6)
    edge = motion.apply(video[:, 10:34, 8:40], origin=(10, 8), fill=65535).to_numpy()
    assert (edge == 65535).any()

    tiff = tmp_path / "converted.tif"
    scaled = np.clip(video[..., 0], 0, 65535).astype(np.uint16)
    tifffile.imwrite(tiff, scaled, imagej=True, metadata={"axes": "TYX"})
    from_file = motion.apply(tiff, fill=0).isel(T=slice(3, 5)).to_numpy()
    assert from_file.dtype == np.uint16
    assert same_bits(from_file, motion.apply(scaled, fill=0).isel(T=slice(3, 5)).to_numpy())

    later = motion.isel(T=slice(30, None)).apply(video[30:])
    assert same_bits(later.to_numpy(), registered[30:])
    together = motion.apply(video, frames_per_chunk=11)
    assert together.data.npartitions == 4
    assert same_bits(together.to_numpy(), registered)


def test_labels_of_the_recording_are_kept(saved, watched, small_recording, quick_options):
    _, motion, *_ = saved
    applied = motion.apply(watched)
    assert applied.coords["X"].values[1] == 0.25
    given = open_video(watched).assign_coords(C=["green", "red"])
    assert motion.apply(given).coords["C"].values.tolist() == ["green", "red"]
    made = compute_motion(watched, small_recording.reference, quick_options())
    data = made.to_dataset()
    assert isinstance(data, xr.Dataset)
    assert data["displacement"].dims == ("T", "Y", "X", "component")
    assert data["displacement"].coords["T"].values[2] == pytest.approx(0.2)
    assert {"valid", "mean_disp", "reference"} <= set(data.data_vars)
    assert all(hasattr(data[name].data, "dask") for name in ("displacement", "valid", "max_disp"))


def test_metadata_lay_the_grid_over_the_frames(watched, small_recording, quick_options, quiet):
    path = Path(watched.name).with_name("motion.zarr")
    motion = compute_motion(watched, small_recording.reference, quick_options())
    motion.isel(T=slice(0, 2)).save(path, quiet())
    group = zarr.open_group(str(path), mode="r")
    ome = group.attrs["ome"]
    image = ome["multiscales"][0]
    assert [axis["name"] for axis in image["axes"]] == ["t", "component", "y", "x"]
    array = group[image["datasets"][0]["path"]]
    scale, translation = image["datasets"][0]["coordinateTransformations"]
    for axis, pixel, frame in ((2, 0.5, 40), (3, 0.25, 52)):
        middle = (array.shape[axis] - 1) / 2
        placed = middle * scale["scale"][axis] + translation["translation"][axis]
        assert placed == pytest.approx((frame - 1) / 2 * pixel)
    transform = ome["coordinateTransformations"][0]
    assert transform["type"] == "displacements"
    names = {system["name"] for system in ome["coordinateSystems"]}
    # As the schema of NGFF 0.6 has it: references are objects.
    assert {transform["input"]["name"], transform["output"]["name"]} == names
    assert transform["interpolation"] in ("nearest", "linear", "cubic")
    assert group[transform["path"]].shape[1] == len(transform["components"]) == 2
    # The group is an image to an independent validator, arrays on disk included.
    yaozarrs.validate_zarr_store(str(path))
    # And a video of two channels to viewers.
    assert open_video(path).shape == (2, *array.shape[2:], 2)
    reopened = Motion.open(path)
    assert reopened.metadata.pixel_size_um == (0.5, 0.25)


def moved_by(u, v, shape=(3, 48, 64)) -> Motion:
    y, x = np.mgrid[: shape[1], : shape[2]].astype(float)
    field = np.empty((*shape, 2), np.float32)
    field[..., 0], field[..., 1] = u(x, y), v(x, y)
    return Motion(da.from_array(field, chunks=(1, -1, -1, -1)), shape[1:])


def test_composition_is_exact_for_linear_displacements():
    first = moved_by(lambda x, y: 0.02 * x - 1, lambda x, y: 0.01 * (x + y))
    second = moved_by(lambda x, y: 2 + 0 * x, lambda x, y: -0.03 * y)
    total = first.compose(second).displacement.to_numpy()[0]
    y, x = np.mgrid[:48, :64].astype(float)
    px, py = x + 2, y - 0.03 * y
    expected = np.stack([2 + 0.02 * px - 1, -0.03 * y + 0.01 * (px + py)], axis=-1)
    outside = px > 63
    assert np.isnan(total[px >= 64]).all()
    np.testing.assert_allclose(total[~outside], expected[~outside], atol=1e-5)


def test_composed_motion_registers_with_one_interpolation(tmp_path, quiet):
    y, x = np.mgrid[:48, :64].astype(float)

    def image(x, y):
        return 100 + 40 * np.sin(x / 9) * np.cos(y / 7)

    video = np.repeat(image(x, y)[None, ..., None], 3, axis=0).astype(np.float32)
    first = moved_by(lambda x, y: 1.3 + 0.02 * y, lambda x, y: 0.4 * np.sin(x / 20))
    second = moved_by(lambda x, y: -0.7 + 0 * x, lambda x, y: 0.02 * x)
    both = first.compose(second)
    px, py = x - 0.7, y + 0.02 * x
    truth = image(px + 1.3 + 0.02 * py, py + 0.4 * np.sin(px / 20))[8:-8, 8:-8]
    once = both.apply(video, fill=0).to_numpy()
    twice = second.apply(first.apply(video, fill=0), fill=0).to_numpy()
    error_once, error_twice = (
        np.abs(frames[0, 8:-8, 8:-8, 0] - truth).mean() for frames in (once, twice)
    )
    assert error_once < 0.15
    assert error_once < error_twice
    kept = both.save(tmp_path / "both.zarr", quiet(block_length=2))
    assert same_bits(kept.apply(video, fill=0).to_numpy(), once)
    expected = np.nanmax(np.linalg.norm(both.displacement.to_numpy(), axis=-1), axis=(1, 2))
    np.testing.assert_allclose(kept.statistics["max_disp"], expected, rtol=1e-6)


def test_motion_of_other_programs_is_opened(tmp_path):
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 1, (4, 20, 24, 2)).astype(np.float32)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["u"], file["v"] = flow[..., 0], flow[..., 1]
    np.save(tmp_path / "reference_frame.npy", np.full((20, 24), 7.0))
    for given in (tmp_path, tmp_path / "w.h5"):
        motion = Motion.open(given)
        assert same_bits(motion.displacement.to_numpy(), flow)
        assert motion.reference.shape == (20, 24, 1)


def test_motion_on_the_solver_grid_is_opened(small_recording, quick_options, quiet, tmp_path):
    options = quick_options(
        input_file=small_recording.video[:20],
        output_path=tmp_path,
        output_format="NULL",
        save_motion=True,
        save_w=True,
    )
    compensate_recording(options, small_recording.reference, quiet())
    coarse, fine = Motion.open(tmp_path / "motion.h5"), Motion.open(tmp_path / "w.h5")
    assert coarse.grid_displacement.shape < fine.grid_displacement.shape
    assert same_bits(coarse.displacement.to_numpy(), fine.displacement.to_numpy())
    (tmp_path / "reference_frame.npy").unlink()
    with pytest.raises(UnreadableFileError, match=r"reference_frame\.npy"):
        Motion.open(tmp_path / "motion.h5")


def test_what_does_not_fit_is_refused_before_anything_is_read(saved, small_recording, tmp_path):
    _, motion, *_ = saved
    video = small_recording.video
    with pytest.raises(InputError, match=r"motion\.isel"):
        motion.apply(video[:-1])
    with pytest.raises(InputError, match="origin"):
        motion.apply(video[:, :30, :30])
    with pytest.raises(InputError, match="not inside"):
        motion.apply(video[:, :30, :30], origin=(11, 0))
    with pytest.raises(InputError, match="1 channels, the reference of the motion 2"):
        motion.apply(video[..., :1])
    with pytest.raises(InputError, match="fill has shape"):
        motion.apply(video, fill=np.zeros((3, 3)))
    with pytest.raises(InputError, match="fill is 'mean'"):
        motion.apply(video, fill="mean")
    for impossible in (-5, 70000, np.nan):
        with pytest.raises(InputError, match="uint16"):
            motion.apply(video, fill=impossible)
    with pytest.raises(InputError, match="composed"):
        motion.compose(motion.isel(T=slice(3)))
    with pytest.raises(InputError, match="at least one"):
        motion.isel(T=slice(90, 99))
    with pytest.raises(InputNotFoundError):
        Motion.open(tmp_path / "nothing")
    with pytest.raises(UnreadableFileError, match="holds no motion"):
        Motion.open(tmp_path)
