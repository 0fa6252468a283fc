"""The numbers of ``benchmarks/quality.py`` are those of their definitions and as published."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from tifffile import imread

from benchmarks import quality
from scopeflow.report.metrics import correlation_with_mean, crispness


@pytest.fixture
def stored(tmp_path):
    """A zarr archive of 23 frames, 40 × 46 px, 2 channels, and the same in memory."""
    video = np.random.default_rng(4).integers(100, 4000, (23, 40, 46, 2)).astype(np.uint16)
    array = zarr.create_array(
        tmp_path / "video.zarr", shape=video.shape, chunks=(4, 40, 46, 2), dtype="uint16"
    )
    array[:] = video
    return array, video


def test_the_mean_image_of_any_blocks(stored, monkeypatch):
    array, video = stored
    for frames in (256, 5):
        monkeypatch.setattr(quality, "FRAMES", frames)
        np.testing.assert_allclose(quality.mean_image(array), video.mean(axis=0), rtol=1e-12)


def test_one_channel_with_a_frame_that_has_no_contrast(stored):
    array, video = stored
    array[3], video[3] = 7, 7
    found = quality.recording_quality(array, border=6, channel=1, smooth_frames=0)
    expected = correlation_with_mean(video[..., 1], border=6, smooth_pixels=1.0)
    expected = expected[np.isfinite(expected)]
    assert len(expected) == 22
    assert found.mean_correlation == pytest.approx(expected.mean())
    assert found.low_correlation == pytest.approx(np.percentile(expected, 5))
    assert found.crispness == pytest.approx(crispness(video[..., 1].mean(axis=0), border=6))


def test_a_raw_real_recording_has_the_published_numbers(shared_data):
    """The acceptance of motion correction starts from 0.909 and 0.795 on this file."""
    path = shared_data / "optinist_mouse2p" / "mouse2p_frames1350-1869.tif"
    if not path.is_file():
        pytest.skip(f"{path.name} is not present")
    found = quality.recording_quality(imread(path))
    assert found.mean_correlation == pytest.approx(0.909, abs=5e-4)
    assert found.low_correlation == pytest.approx(0.795, abs=5e-4)
