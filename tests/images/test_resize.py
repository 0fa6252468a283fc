"""Pyramid sizes and resampling against hand-counted values and the plain twin."""

from __future__ import annotations

import numpy as np
import pytest

from scopeflow.errors import InputError
from scopeflow.flow.parameters import FlowParameters
from scopeflow.flow.pyramid import motion_grid_shape, pyramid_levels
from scopeflow.images.resize import resize_image, upsample_flow
from tests.oracles import naive_flow


@pytest.mark.parametrize(("length", "top"), [(64, 9), (128, 12), (256, 15), (512, 18), (1024, 21)])
def test_depth_counts_the_step_that_falls_below_ten_pixels(length, top):
    levels = pyramid_levels((length, length), FlowParameters())
    assert [level.index for level in levels] == list(range(top, -1, -1))
    assert levels[0].rows == 9


def test_short_axis_stops_shrinking_and_the_long_one_is_capped():
    levels = pyramid_levels((12, 400), FlowParameters())
    # Depth of 12 px is 1 (12 * 0.8 rounds to 10, then 8 counts): 2 steps; the cap is four times.
    assert {level.rows for level in levels} == {12, 10, 8}
    assert levels[0].index == 8
    assert levels[0].rows == 8
    assert levels[0].cols == round(400 * 0.8**8)
    assert levels[0].h_col == pytest.approx(400 / levels[0].cols)


def test_smoothness_is_scaled_on_all_levels_but_the_finest():
    levels = pyramid_levels((100, 80), FlowParameters(min_level=3, eta=0.7))
    assert levels[-1].alpha_scale == 1.0
    assert levels[-2].alpha_scale == pytest.approx(0.7 ** (-0.5 * 4))


def test_min_level_beyond_the_top_solves_one_step_below_it():
    params = FlowParameters(min_level=50)
    assert [level.index for level in pyramid_levels((64, 64), params)] == [9, 8]
    assert motion_grid_shape((64, 64), params) == (11, 11)


def test_too_small_frames_are_refused():
    with pytest.raises(InputError, match="10 × 10"):
        pyramid_levels((9, 64), FlowParameters())


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((24, 31), (9, 9)),
        ((24, 31), (19, 25)),
        ((9, 11), (12, 13)),
        ((20, 20), (20, 9)),
        ((13, 17), (12, 17)),
    ],
)
def test_resize_matches_the_plain_twin(shape, size):
    image = np.random.default_rng(3).random(shape)
    ours = resize_image(image, size)
    np.testing.assert_allclose(ours, naive_flow.resize(image, size), atol=2e-6)


def test_resize_to_the_same_size_changes_nothing():
    image = np.random.default_rng(3).random((15, 13, 2)).astype(np.float32)
    np.testing.assert_array_equal(resize_image(image, (15, 13)), image)


@pytest.mark.parametrize("size", [(30, 41), (12, 99), (11, 13)])
def test_upsampled_flow_matches_the_plain_twin(size):
    motion = np.random.default_rng(4).normal(size=(11, 13, 2)).astype(np.float32)
    ours = upsample_flow(motion, size)
    for c in range(2):
        np.testing.assert_allclose(
            ours[..., c], naive_flow.upsample(motion[..., c], size), atol=3e-6
        )


def test_upsampled_flow_keeps_constants_and_identity():
    motion = np.full((11, 13, 2), [1.25, -3.5], np.float32)
    full = upsample_flow(motion, (50, 60))
    np.testing.assert_allclose(full, np.broadcast_to([1.25, -3.5], (50, 60, 2)), rtol=1e-6)
    assert upsample_flow(motion, (11, 13)).dtype == np.float32
    with pytest.raises(InputError, match="h, w, 2"):
        upsample_flow(motion[..., 0], (50, 60))
