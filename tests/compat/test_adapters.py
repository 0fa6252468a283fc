from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile
from pydantic import ValidationError

from scopeflow.compat.pyflowreg.core.warping import align_sequence, imregister_wrapper
from scopeflow.compat.pyflowreg.motion_correction import (
    BatchMotionCorrector,
    FlowRegLive,
    OFOptions,
)
from scopeflow.compat.pyflowreg.motion_correction.compensate_recording import RegistrationConfig
from scopeflow.compat.pyflowreg.session import SessionConfig
from scopeflow.compat.pyflowreg.util.io import (
    ArrayReader,
    VideoReader,
    get_video_file_reader,
    get_video_file_writer,
)
from scopeflow.compat.pyflowreg.util.xcorr_prealignment import estimate_rigid_xcorr_2d
from scopeflow.errors import InputError
from scopeflow.motion.options import of_options as native


@pytest.fixture
def video():
    return np.random.default_rng(0).integers(0, 4000, (13, 20, 24)).astype(np.uint16)


def test_readers_have_a_position_and_an_index(video, tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", video, photometric="minisblack")
    reader = get_video_file_reader(str(tmp_path / "v.tif"), buffer_size=5)
    assert reader.has_batch()  # also before anything else was asked
    assert [len(batch) for batch in reader] == [5, 5, 3]
    assert reader.read_batch() is None
    reader.reset()
    np.testing.assert_array_equal(reader.read_batch()[..., 0], video[:5])
    frames = video[..., None]
    for key in (3, -1, np.int64(2), slice(2, 9), slice(None, None, -3), [4, 1], (slice(3), 5)):
        np.testing.assert_array_equal(reader[key], frames[key])
    np.testing.assert_array_equal(reader[np.arange(13) % 4 == 0], frames[::4])
    assert reader[2, 3:5].shape == (1, 2, 24, 1)
    with pytest.raises(IndexError, match="13 out of range for 13"):
        reader[13]
    with pytest.raises(TypeError):
        reader["a"]


def test_bins_are_means(video):
    reader = ArrayReader(video, bin_size=4)
    assert (len(reader), reader.frame_count, reader.shape) == (4, 13, (4, 20, 24, 1))
    np.testing.assert_array_equal(reader[1][..., 0], np.rint(video[4:8].mean(axis=0)))


@pytest.mark.parametrize("output_format", ["HDF5", "TIFF"])
def test_writers_take_frames_without_a_known_length(video, tmp_path, output_format):
    path = tmp_path / "out.file"
    with get_video_file_writer(path, output_format) as writer:
        writer.write_frames(video[:5, ..., None])
        writer.write_frames(video[5:])
        assert not path.exists()
        with pytest.raises(InputError, match="uint8"):
            writer.write_frames(video.astype(np.uint8))
    if output_format == "HDF5":
        with h5py.File(path) as file:
            written = file["ch1"][:]
    else:
        written = tifffile.imread(path)
    np.testing.assert_array_equal(written, video)


def test_unknown_writers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Unsupported output format: PNG"):
        get_video_file_writer(tmp_path / "x", "PNG")
    with pytest.raises(NotImplementedError, match="BEGONIA"):
        get_video_file_writer(tmp_path / "x", "BEGONIA")


def test_a_reader_can_be_the_input(video, tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", video, photometric="minisblack")
    given = {"reference_frames": list(range(4)), "quality_setting": "fast", "iterations": 3}
    options = OFOptions(input_file=VideoReader(tmp_path / "v.tif"), output_format="ARRAY", **given)
    config = RegistrationConfig(parallelization="sequential")
    corrector = BatchMotionCorrector(options, config)
    reference = corrector.run()
    assert corrector.video_writer.get_array().shape == (13, 20, 24, 1)
    assert corrector.w_writer.get_array().shape == (13, 20, 24, 2)
    np.testing.assert_array_equal(
        options.get_reference_frame(options.get_video_reader()), reference
    )


def test_defaults_and_errors_are_those_of_the_other_program(tmp_path):
    assert OFOptions().output_format.value == "MAT"
    assert native.OFOptions().output_format.value == "ZARR"
    with pytest.raises(ValidationError, match=r"unknown option .*alpha"):
        OFOptions(alpah=3)
    with pytest.raises(ValidationError, match="Root directory does not exist"):
        SessionConfig(root=tmp_path / "nowhere")
    assert OFOptions(output_typename="").output_typename is None
    assert RegistrationConfig(n_jobs=0).n_jobs == -1


def test_warps_move_pixels():
    frame = np.arange(20 * 24, dtype=np.float64).reshape(20, 24)
    fill = np.full((20, 24), -1.0)
    moved = imregister_wrapper(frame, 2, -3, fill)
    np.testing.assert_allclose(moved[3:, :-2], frame[:-3, 2:], atol=1e-4)
    assert (moved[:3] == -1).all()
    flow = np.broadcast_to([2.0, -3.0], (20, 24, 2))
    both = align_sequence(np.stack([frame, frame]).astype(np.uint16), flow, fill, "linear")
    assert both.dtype == np.uint16
    np.testing.assert_array_equal(both[1, 3:, :-2], frame[:-3, 2:])
    assert (both[:, :3] == 0).all()  # -1 is clipped, not wrapped around


def test_rigid_shift_of_images_that_are_not_square():
    image = np.random.default_rng(0).random((60, 130))
    shift = estimate_rigid_xcorr_2d(image, np.roll(image, (4, -9), (0, 1)))
    assert shift.tolist() == [-9.0, 4.0]


def test_options_that_the_backend_has_no_use_for_are_refused():
    pytest.importorskip("cv2")
    for changes in ({"constancy_assumption": "cs"}, {"gnc_schedule": (0.0, 1.0)}):
        options = OFOptions(flow_backend="diso", **changes)
        with pytest.raises(ValueError, match="does not support"):
            options.resolve_get_displacement()
    assert callable(OFOptions(flow_backend="diso").resolve_get_displacement())


def test_live_state_is_public_and_a_flat_reference_waits_for_frames(caplog):
    frames = np.random.default_rng(0).uniform(100, 900, (3, 24, 28, 2)).astype(np.float32)
    live = FlowRegLive(sigma=[[1, 1, 0.5]], reference_update_interval=2)
    assert (live.norm_min, live.norm_max, live.last_flow) == (None, None, None)
    assert live.temporal_buffer.maxlen == 3
    live.set_reference(np.full((24, 28, 2), 300.0))
    assert "same value everywhere" in caplog.text
    for frame in frames[:2]:
        corrected, flow = live(frame)
        assert not flow.any()
        np.testing.assert_array_equal(corrected, frame)
    assert len(live.temporal_buffer) == 2
    # The second frame renewed the reference, a fifth of which is now that frame.
    renewed = 0.8 * 300 + 0.2 * frames[1]
    np.testing.assert_allclose(live.reference_raw, renewed, rtol=1e-6)
    np.testing.assert_allclose([live.norm_min, live.norm_max], [renewed.min(), renewed.max()])
    assert np.isfinite(live.reference_proc).all()
    assert -0.2 < live.reference_proc.min() < live.reference_proc.max() < 1.2
    _, flow = live(frames[2])
    assert flow.any()
    assert np.isfinite(flow).all()
    separate = FlowRegLive(channel_normalization="separate")
    separate.set_reference(frames[0])
    assert separate.norm_max == frames[0].max(axis=(0, 1)).tolist()
