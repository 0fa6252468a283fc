"""Rigid shifts of real translations, on frames that are not square."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from scopeflow.errors import InputError, OptionsError
from scopeflow.images.xcorr import rigid_shift


def pair(shape, dx, dy, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    big = gaussian_filter(rng.random((shape[0] + 80, shape[1] + 80, channels)), (2.5, 2.5, 0))
    fixed = big[40 : 40 + shape[0], 40 : 40 + shape[1]]
    moving = big[40 - dy : 40 - dy + shape[0], 40 - dx : 40 - dx + shape[1]]
    return fixed, moving


@pytest.mark.parametrize(
    ("shape", "dx", "dy"), [((128, 512), -10, 4), ((300, 200), -13, 3), ((96, 97), 8, -5)]
)
def test_content_moved_by_dx_dy_is_found_as_dx_dy(shape, dx, dy):
    found = rigid_shift(*pair(shape, dx, dy), upsample_factor=8)
    assert np.allclose(found, (dx, dy), atol=0.5)
    assert all(isinstance(value, np.float32) for value in found)


def test_full_resolution_is_exact_for_whole_pixels():
    assert rigid_shift(*pair((90, 140), 12, -7), target_shape=None) == (12, -7)


@pytest.mark.parametrize("kind", ["none", "channel", "map", "channel map"])
def test_channels_and_weights(kind):
    fixed, moving = pair((100, 130), 6, -9, channels=2)
    moving = moving.copy()
    moving[..., 1] = np.random.default_rng(1).random((100, 130)) * 0.01  # says nothing
    weights = {
        "none": None,
        "channel": [1.0, 0.0],
        "map": np.ones((100, 130)),
        "channel map": np.broadcast_to([1.0, 0.0], (100, 130, 2)),
    }[kind]
    assert np.allclose(rigid_shift(fixed, moving, weights=weights), (6, -9), atol=1)


def test_blank_frames_do_not_move():
    fixed, _ = pair((64, 64), 0, 0)
    assert rigid_shift(fixed, np.zeros_like(fixed)) == (0, 0)


def test_wrong_input_is_refused():
    fixed, moving = pair((64, 64), 1, 1)
    with pytest.raises(InputError, match="same shape"):
        rigid_shift(fixed, moving[:-1])
    with pytest.raises(InputError, match="NaN"):
        rigid_shift(fixed, np.full_like(moving, np.nan))
    with pytest.raises(OptionsError, match="upsample_factor"):
        rigid_shift(fixed, moving, upsample_factor=0)
    with pytest.raises(InputError, match="Weights"):
        rigid_shift(*pair((64, 64), 1, 1, channels=2), weights=[1.0, 2.0, 3.0])
