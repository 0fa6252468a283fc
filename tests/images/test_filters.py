"""Normalisation and Gaussian filters against scipy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from scopeflow.errors import InputError, OptionsError
from scopeflow.images.filters import (
    gaussian_filter,
    intensity_range,
    normalize,
    preprocess_frame,
)
from scopeflow.images.temporal import (
    filter_in_time,
    temporal_radius,
    temporal_weight_table,
    temporal_weights,
)


@pytest.mark.parametrize("shape", [(10, 33), (41, 12), (3, 5)])
@pytest.mark.parametrize("sigma", [(1.0, 1.0, 0.1), (2.5, 0.7, 0), (0.0, 1.2, 0), (3.0, 3.0, 9.0)])
def test_spatial_filter_matches_scipy_with_x_along_columns(shape, sigma):
    frame = np.random.default_rng(2).random((*shape, 2))
    expected = ndimage.gaussian_filter(frame, (sigma[1], sigma[0], 0), mode="reflect", truncate=4.0)
    np.testing.assert_allclose(gaussian_filter(frame, sigma), expected, atol=2e-6)


def test_each_channel_has_its_row_and_the_last_row_repeats():
    frame = np.random.default_rng(2).random((20, 22, 3))
    out = gaussian_filter(frame, [(1, 1, 0), (2, 3, 0)])
    for c, (sx, sy) in enumerate([(1, 1), (2, 3), (2, 3)]):
        expected = ndimage.gaussian_filter(frame[..., c], (sy, sx))
        np.testing.assert_allclose(out[..., c], expected, atol=2e-6)


@pytest.mark.parametrize(
    "dtype",
    ["bool", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32", "float64"],
)
def test_preprocessing_of_every_dtype(dtype):
    rng = np.random.default_rng(4)
    top = 2 if dtype == "bool" else 100
    frame = rng.integers(0, top, (16, 18, 2)).astype(dtype)
    lo, hi = intensity_range(frame, joint=False)
    ours = preprocess_frame(frame, lo, hi, (1, 1, 0.1))
    scaled = (frame.astype(float) - lo) / (hi - lo + 1e-8)
    np.testing.assert_allclose(ours, ndimage.gaussian_filter(scaled, (1, 1, 0)), atol=2e-6)
    assert ours.dtype == np.float32


def test_large_offsets_do_not_eat_the_signal():
    frame = (2_000_000_000 + np.arange(256).reshape(16, 16, 1)).astype(np.uint32)
    lo, hi = intensity_range(frame, joint=True)
    np.testing.assert_allclose(normalize(frame, lo, hi).ravel(), np.arange(256) / 255, atol=1e-6)


def test_joint_and_separate_ranges():
    reference = np.stack([np.full((4, 4), 3.0), np.arange(16.0).reshape(4, 4)], axis=-1)
    assert [b.tolist() for b in intensity_range(reference, True)] == [[0, 0], [15, 15]]
    assert [b.tolist() for b in intensity_range(reference, False)] == [[3, 0], [3, 15]]
    with pytest.raises(InputError, match="NaN"):
        intensity_range(np.full((4, 4, 1), np.nan), True)


def test_temporal_filter_matches_scipy_at_the_centre_frame():
    sigma = [(1, 1, 0.8), (1, 1, 0.0)]
    movie = np.random.default_rng(8).random((15, 6, 7, 2)).astype(np.float32)
    radius = temporal_radius(sigma)
    assert radius == int(4 * 0.8 + 0.5)
    table = temporal_weight_table(sigma, 2)
    ours = filter_in_time(movie[7 - radius : 8 + radius], table)
    expected = ndimage.gaussian_filter1d(movie[..., 0].astype(float), 0.8, axis=0)[7]
    np.testing.assert_allclose(ours[..., 0], expected, atol=1e-6)
    np.testing.assert_array_equal(ours[..., 1], movie[7, ..., 1])
    one = filter_in_time(movie[7 - radius : 8 + radius], temporal_weights(0.8))
    np.testing.assert_allclose(one[..., 0], expected, atol=1e-6)
    assert temporal_radius((1, 1, 0.1)) == 0


def test_wrong_sigma_and_weights_are_refused():
    with pytest.raises(OptionsError, match="sigma_x"):
        gaussian_filter(np.zeros((10, 10, 1)), (1, 1))
    with pytest.raises(OptionsError, match="negative"):
        gaussian_filter(np.zeros((10, 10, 1)), (1, -1, 0))
    with pytest.raises(InputError, match="one weight"):
        filter_in_time(np.zeros((3, 4, 4, 1)), temporal_weights(0.8))
    with pytest.raises(InputError, match="one shape"):
        filter_in_time([np.zeros((4, 4, 1)), np.zeros((4, 5, 1))], np.ones(2))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_frames_at_any_address_are_preprocessed(dtype):
    # A view into a mapped file may begin at any byte.
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 100, (12, 15, 2)).astype(dtype)
    moved = np.frombuffer(b"x" + frame.tobytes(), dtype, offset=1).reshape(frame.shape)
    np.testing.assert_array_equal(
        preprocess_frame(moved, 3, 90, (1, 1, 0)), preprocess_frame(frame, 3, 90, (1, 1, 0))
    )
