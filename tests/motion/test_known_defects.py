"""What today's programs get wrong and motion correction here must get right.

Defects of readers, options, kernels and writers have their tests beside those parts.
"""

from __future__ import annotations

import dask.array as da
import h5py
import numpy as np
import pytest

from scopeflow.errors import OutputError
from scopeflow.io.recording import open_video
from scopeflow.motion.arrays import compensate_arr
from scopeflow.motion.correct import compensate_recording
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.report.metrics import crispness
from scopeflow.testing.synthetic import synthetic_recording


def test_the_reference_of_an_integer_movie_with_separate_channels_is_registered(
    tmp_path, quick_options, quiet
):
    moved = synthetic_recording(30, 64, 72, 2, seed=5, translation_px=4.0, photons=200.0)
    options = quick_options(
        input_file=moved.video,
        output_path=tmp_path / "o",
        output_format="NULL",
        quality_setting="balanced",
        channel_normalization="separate",
        iterations=50,
        reference_frames=list(range(30)),
    )
    reference = compensate_recording(options, config=quiet())
    assert crispness(reference) > 1.1 * crispness(moved.video.mean(axis=0))


def test_masks_of_a_batch_as_long_as_the_square_frames_are_wide(tmp_path, quick_options, quiet):
    moved = synthetic_recording(80, 40, 40, seed=1, translation_px=3.0)
    options = quick_options(
        input_file=moved.video,
        output_path=tmp_path / "o",
        output_format="HDF5",
        save_valid_idx=True,
        buffer_size=40,
        reference_frames=[0],
        iterations=3,
    )
    compensate_recording(options, config=quiet())
    with h5py.File(tmp_path / "o" / "idx.hdf") as masks:
        assert masks["ch1"].shape == (80, 40, 40)
        assert set(np.unique(masks["ch1"][:])) <= {0, 255}


@pytest.mark.parametrize("n_frames", [3, 25])
def test_a_two_dimensional_reference_can_be_updated(
    small_recording, quick_options, quiet, n_frames
):
    options = quick_options(update_reference=True, buffer_size=10)
    registered, _ = compensate_arr(
        small_recording.video[:n_frames, ..., 0],
        small_recording.reference[..., 0],
        options,
        registration_config=quiet(),
    )
    assert registered.shape == (n_frames, 40, 52)


def test_nearest_interpolation_gives_values_of_the_raw_frame(small_recording, quick_options, quiet):
    options = quick_options(interpolation_method="nearest", output_typename=None)
    video, reference = small_recording.video[:3], np.zeros((40, 52, 2))
    registered, flow = compensate_arr(
        video, reference, options, get_displacement=_one_and_a_bit, registration_config=quiet()
    )
    np.testing.assert_array_equal(registered[:, :-2, :-2], video[:, 1:-1, 2:])
    assert (flow == [1.6, 1.2]).all() or np.allclose(flow, [1.6, 1.2])


def _one_and_a_bit(reference, moving, **_):
    return np.broadcast_to(np.float32([1.6, 1.2]), (*moving.shape[:2], 2))


@pytest.mark.parametrize("dtype", ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "f2", "f4", "f8"])
def test_movies_of_every_dtype_are_corrected_and_keep_it(
    small_recording, tmp_path, quick_options, quiet, dtype
):
    scaled = small_recording.video[:4].astype(float)
    scaled = (scaled - scaled.min()) / np.ptp(scaled)
    kind = np.dtype(dtype)
    largest = 1 if kind.kind == "b" else 1000 if kind.kind == "f" else np.iinfo(kind).max // 2
    video = (scaled * largest).round().astype(kind) if kind.kind != "b" else scaled > 0.5
    options = quick_options(input_file=video, output_path=tmp_path / "o", reference_frames=[0])
    compensate_recording(options, config=quiet())
    found = open_video(tmp_path / "o" / "compensated.zarr").values
    assert found.dtype == kind
    error = np.abs(found[0].astype(float) - video[0].astype(float)).mean()
    assert error < 0.05 * largest


@pytest.mark.parametrize("shape", [(10, 10), (11, 37), (127, 13)])
def test_odd_and_small_frames_are_corrected(quick_options, quiet, shape):
    rng = np.random.default_rng(0)
    frame = rng.normal(100, 10, (*shape, 3))
    registered, flow = compensate_arr(
        np.stack([frame, frame]), frame, quick_options(), registration_config=quiet()
    )
    assert np.abs(flow).max() < 0.05
    np.testing.assert_allclose(registered[0], frame, atol=1)


def test_a_recording_larger_than_the_disk_is_refused_at_once(tmp_path, quick_options, quiet):
    endless = da.zeros((200_000, 4096, 4096), dtype="uint16", chunks=(200, 4096, 4096))
    options = quick_options(
        input_file=endless[:, :, :], output_path=tmp_path / "o", reference_frames=[0]
    )
    with pytest.raises(OutputError, match=r"GB are needed and .* GB are free"):
        compensate_recording(options, config=quiet())
    assert not (tmp_path / "o").exists()


def test_a_folder_without_permission_is_refused(
    small_recording, locked_folder, quick_options, quiet
):
    options = quick_options(
        input_file=small_recording.video, output_path=locked_folder / "o", reference_frames=[0]
    )
    with pytest.raises(OutputError, match="permission is denied"):
        compensate_recording(options, config=quiet())


def test_an_option_file_of_defaults_serves_short_recordings(
    small_recording, tmp_path, quick_options, quiet
):
    saved = quick_options(output_path=tmp_path / "o").save_options(tmp_path / "options.json")
    options = OFOptions.load_options(saved)
    options.input_file = small_recording.video[:5]
    assert compensate_recording(options, config=quiet()).shape == (40, 52, 2)
