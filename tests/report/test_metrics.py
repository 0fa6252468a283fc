"""Metrics against slow definitions, analytic values and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from scipy.ndimage import gaussian_filter
from scipy.stats import pearsonr
from skimage.metrics import mean_squared_error

from scopeflow.errors import InputError
from scopeflow.report import metrics


@pytest.fixture
def video() -> np.ndarray:
    rng = np.random.default_rng(4)
    still = gaussian_filter(rng.random((40, 46)), 2) * 4000
    return (still + rng.normal(0, 60, (23, 40, 46))).astype(np.uint16)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # 5 frames of 40 × 46 float64 pixels: several blocks and an incomplete last one.
    monkeypatch.setattr(metrics, "_BLOCK_BYTES", 5 * 40 * 46 * 8)


class TestEndpointError:
    def test_constant_offset(self):
        truth = np.random.default_rng(0).normal(size=(3, 6, 7, 2))
        error = metrics.endpoint_error(truth + np.array([3, -4]), truth)
        np.testing.assert_allclose(error, [5, 5, 5])

    def test_border_is_left_out_on_all_four_sides(self):
        truth = np.zeros((9, 12, 2))
        flow = np.full((9, 12, 2), 100.0)
        flow[2:-2, 2:-2] = [0.6, 0.8]
        assert metrics.endpoint_error(flow, truth, border=2) == pytest.approx(1)
        assert metrics.endpoint_error(flow, truth, border=1) > 2

    def test_unknown_truth_is_left_out(self):
        truth = np.zeros((4, 4, 2))
        truth[0, 0] = np.nan
        flow = np.zeros((4, 4, 2))
        flow[0, 0] = 1e9
        flow[1, 1] = [15, 0]
        assert metrics.endpoint_error(flow, truth) == pytest.approx(1)

    def test_not_a_number_in_the_estimate_is_not_hidden(self):
        flow = np.zeros((4, 4, 2))
        flow[1, 1] = np.nan
        assert np.isnan(metrics.endpoint_error(flow, np.zeros((4, 4, 2))))

    @pytest.mark.parametrize("shape", [(4, 4), (4, 4, 3), (4, 5, 2)])
    def test_wrong_shapes(self, shape):
        with pytest.raises(InputError, match="same shape"):
            metrics.endpoint_error(np.zeros(shape), np.zeros((4, 4, 2)))

    def test_border_that_leaves_nothing(self):
        with pytest.raises(InputError, match="border=2"):
            metrics.endpoint_error(np.zeros((4, 9, 2)), np.zeros((4, 9, 2)), border=2)


class TestCorrelation:
    @pytest.mark.parametrize(("smooth_frames", "smooth_pixels"), [(0, 0), (2, 1), (1.3, 0)])
    def test_equals_the_definition_for_any_blocks(
        self, video, small_blocks, smooth_frames, smooth_pixels
    ):
        whole = gaussian_filter(video.astype(float), (smooth_frames, smooth_pixels, smooth_pixels))
        whole = whole[:, 6:-6, 6:-6]
        mean = whole.mean(axis=0).ravel()
        expected = [pearsonr(frame.ravel(), mean).statistic for frame in whole]
        result = metrics.correlation_with_mean(
            video, border=6, smooth_frames=smooth_frames, smooth_pixels=smooth_pixels
        )
        np.testing.assert_allclose(result, expected, rtol=1e-10)

    def test_reads_one_channel_of_a_zarr_array(self, video, tmp_path):
        channels = np.stack([video[:, ::-1], video], axis=-1)
        stored = zarr.create_array(
            tmp_path / "video.zarr", shape=channels.shape, chunks=(4, 40, 46, 2), dtype="uint16"
        )
        stored[:] = channels
        np.testing.assert_allclose(
            metrics.correlation_with_mean(stored, border=6, channel=1),
            metrics.correlation_with_mean(video, border=6),
            rtol=1e-12,
        )

    def test_frame_without_contrast_is_nan(self, video):
        video = video.copy()
        video[3] = 7
        result = metrics.correlation_with_mean(video, border=6)
        assert np.flatnonzero(np.isnan(result)).tolist() == [3]

    def test_not_finite(self, video):
        broken = video.astype(np.float32)
        broken[2, 20, 20] = np.inf
        with pytest.raises(InputError, match="infinite"):
            metrics.correlation_with_mean(broken, border=6)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [({"channel": 1}, "channels 0 to 0"), ({"border": 20}, "border=20")],
    )
    def test_wrong_arguments(self, video, arguments, message):
        with pytest.raises(InputError, match=message):
            metrics.correlation_with_mean(video, **arguments)


class TestSharpness:
    def test_plane_has_its_slope(self):
        y, x = np.mgrid[0:8, 0:11]
        image = 3.0 * x - 4.0 * y
        assert metrics.crispness(image) == pytest.approx(5 * np.sqrt(88))
        assert metrics.crispness(image, border=2) == pytest.approx(5 * np.sqrt(4 * 7))

    def test_blur_lowers_it(self):
        image = np.random.default_rng(1).random((32, 32))
        assert metrics.crispness(gaussian_filter(image, 1)) < 0.5 * metrics.crispness(image)

    def test_wrong_image(self):
        with pytest.raises(InputError, match="shape"):
            metrics.crispness(np.zeros(5))


class TestRegistrationFactors:
    def test_equals_the_definition_for_any_blocks(self, video, small_blocks):
        corrected = (video // 2 + 500)[..., None]
        raw = video[..., None]
        reference = video.mean(axis=0)[..., None]
        mse, std = [], []
        for movie in (raw, corrected):
            smooth = np.stack([gaussian_filter(f[..., 0].astype(float), 3) for f in movie])
            target = gaussian_filter(reference[..., 0], 3)[9:-9, 9:-9]
            mse.append(np.mean([mean_squared_error(target, f[9:-9, 9:-9]) for f in smooth]))
            std.append(smooth.std(axis=0).mean())
        factors = metrics.registration_factors(raw, corrected, reference, border=9)
        assert factors.mse_factor == pytest.approx(mse[0] / mse[1], rel=1e-9)
        assert factors.std_factor == pytest.approx(std[0] / std[1], rel=1e-9)

    def test_shapes_must_agree(self, video):
        with pytest.raises(InputError, match="equal shapes"):
            metrics.registration_factors(video, video[1:], video[0])
