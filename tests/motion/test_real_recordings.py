"""Real recordings: what correction must reach, with the figures that PyFlowReg reaches."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from benchmarks.quality import recording_quality
from scopeflow.flow.flow import get_displacement
from scopeflow.images.warp import warp
from scopeflow.io.recording import open_video
from scopeflow.motion.arrays import compensate_arr
from scopeflow.motion.correct import compensate_recording
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.report.metrics import endpoint_error


def test_a_raw_two_photon_recording_becomes_steady_and_sharp(shared_data, quiet, tmp_path):
    source = shared_data / "optinist_mouse2p" / "mouse2p_frames1350-1869.tif"
    raw = tifffile.imread(source)[..., None]
    before = recording_quality(raw, border=10)
    assert before.mean_correlation == pytest.approx(0.909, abs=0.001)
    assert before.low_correlation == pytest.approx(0.795, abs=0.001)
    options = OFOptions(
        input_file=source,
        output_path=tmp_path,
        quality_setting="balanced",
        sigma=[[1, 1, 0.5]],
        buffer_size=260,
        reference_frames=raw[250:350].mean(axis=0),
    )
    compensate_recording(options, config=quiet(parallelization="threading"))
    corrected = open_video(tmp_path / "compensated.zarr").values
    after = recording_quality(corrected, border=10)
    # PyFlowReg: 0.964, 0.948, 24 %.
    assert after.mean_correlation >= 0.960
    assert after.low_correlation >= 0.945
    assert after.crispness >= 1.20 * before.crispness


def test_a_recording_without_motion_is_left_alone(shared_data, quiet):
    source = shared_data / "thunder_mouse2p" / "mouse_64x64_500frames.tif"
    video = tifffile.imread(source)[:120, ..., None]
    reference = video.mean(axis=0)
    options = OFOptions(quality_setting="balanced", alpha=8)
    registered, flow = compensate_arr(video, reference, options, registration_config=quiet())
    assert np.abs(flow.mean(axis=(1, 2))).max() < 1.0
    assert np.linalg.norm(flow, axis=-1).mean() < 0.6
    quality = recording_quality(video), recording_quality(registered)
    assert quality[1].mean_correlation >= quality[0].mean_correlation - 0.002


def test_large_real_shifts_are_found_from_a_rigid_start(shared_data, quiet):
    video = tifffile.imread(shared_data / "pystackreg_pc12" / "pc12-unreg.tif")[..., None]
    options = OFOptions(quality_setting="balanced", cc_initialization=True, cc_up=4)
    registered, _ = compensate_arr(video, video[0], options, registration_config=quiet())
    first = video[0, 15:-15, 15:-15].astype(float).ravel()

    def correlation(frame):
        return np.corrcoef(first, frame[15:-15, 15:-15].astype(float).ravel())[0, 1]

    before = [correlation(frame) for frame in video[1:]]
    after = [correlation(frame) for frame in registered[1:]]
    # StackReg's translation reaches 0.92 to 0.93.
    assert max(before) < 0.80
    assert min(after) > 0.92


@pytest.fixture
def rubber_whale(shared_data):
    folder = shared_data / "middlebury_flow"
    from skimage.io import imread

    frames = [imread(folder / f"RubberWhale_frame{n}.png").astype(float) for n in (10, 11)]
    frames = [frame.mean(axis=-1) if frame.ndim == 3 else frame for frame in frames]
    header = np.fromfile(folder / "RubberWhale_flow10.flo", np.int32, 3)
    truth = np.fromfile(folder / "RubberWhale_flow10.flo", np.float32, offset=12)
    truth = truth.reshape(header[2], header[1], 2)
    return frames, np.where(np.abs(truth) < 1e3, truth, np.nan)  # unknown flow is stored as 1e9


def test_warping_by_the_true_flow_brings_a_real_scene_to_match(rubber_whale):
    (first, second), truth = rubber_whale
    known = np.isfinite(truth).all(axis=-1)
    flow = np.where(known[..., None], truth, 0).astype(np.float32)
    warped = warp(second[..., None], flow, first[..., None])[..., 0]
    assert np.abs(second - first)[known].mean() == pytest.approx(5.58, abs=0.15)
    # The provenance of the data gives 1.28 grey levels for this check.
    assert np.abs(warped - first)[known].mean() < 1.4


@pytest.mark.parametrize(
    ("min_level", "peer_error"), [(6, 0.3813), (4, 0.2726), (0, 0.1666)], ids=str
)
def test_the_flow_of_a_real_scene_is_as_close_to_the_truth_as_the_peers(
    rubber_whale, min_level, peer_error
):
    # Errors of PyFlowReg on the same images, see docs/accuracy.md.
    from scopeflow.images.filters import gaussian_filter, intensity_range, normalize

    (first, second), truth = rubber_whale
    low, high = intensity_range(first[..., None], joint=True)
    fixed, moving = (
        gaussian_filter(normalize(frame[..., None], low, high), [(1, 1, 0)])
        for frame in (first, second)
    )
    flow = get_displacement(fixed, moving, alpha=(1.5, 1.5), min_level=min_level, levels=100)
    error = float(np.nanmean(endpoint_error(flow, truth, border=8)))
    assert error <= 1.03 * peer_error + 0.003
