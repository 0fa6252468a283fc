"""Displacements between averages and alignment, against analytic truth and naive twins."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from scopeflow.errors import InputError
from scopeflow.sessions.align import (
    align_corrected_frames,
    align_raw_frames,
    always_valid,
    sum_frames,
)
from scopeflow.sessions.match import (
    BetweenParameters,
    displacement_between,
    match,
    pair_similarity,
    rigid_between,
)


@pytest.fixture(scope="module")
def scene():
    """Channels with nothing in common, (160, 200, 2)."""
    rng = np.random.default_rng(4)
    planes = [gaussian_filter(rng.random((160, 200)), 2.5) for _ in range(2)]
    return 100 + 5000 * np.stack(planes, axis=-1)


def window(scene, dy, dx, height=90, width=120):
    return scene[35 + dy : 35 + dy + height, 40 + dx : 40 + dx + width]


@pytest.mark.parametrize("shift", [(0, 0), (3, -5), (-20, 30), (33, 12), (-30, -38)])
def test_shifts_up_to_a_third_of_the_frame_are_found(scene, shift):
    dy, dx = shift
    # A window that starts further right shows its content further left.
    w = displacement_between(window(scene, 0, 0), window(scene, dy, dx), BetweenParameters())
    overlap = (
        slice(max(0, dy) + 8, min(90, 90 + dy) - 8),
        slice(max(0, dx) + 8, min(120, 120 + dx) - 8),
    )
    error = np.hypot(w[..., 0] + dx, w[..., 1] + dy)[overlap]
    assert error.mean() < 0.1


def test_subpixel_rigid_shifts(scene):
    from scipy.ndimage import shift as spline_shift

    moved = np.stack([spline_shift(scene[..., c], (2.25, -3.5)) for c in range(2)], axis=-1)
    dx, dy = rigid_between(window(scene, 0, 0), window(moved, 0, 0), 8)
    assert (dx, dy) == pytest.approx((-3.5, 2.25), abs=0.15)


def test_channels_are_never_mixed(scene):
    """A channel that shows nothing in one image must not change what the other channel says."""
    first, second = window(scene, 0, 0).copy(), window(scene, 2, -3).copy()
    first[..., 1] = 7.0
    second[..., 1] = 7.0
    with_flat = displacement_between(first, second, BetweenParameters())
    alone = displacement_between(first[..., :1], second[..., :1], BetweenParameters())
    assert np.hypot(*np.moveaxis(with_flat - alone, -1, 0))[10:-10, 10:-10].mean() < 0.1
    swapped = displacement_between(first[..., ::-1], second[..., ::-1], BetweenParameters())
    assert np.abs(swapped - with_flat).mean() < 1e-3


def test_brightness_of_a_channel_does_not_matter(scene):
    first, second = window(scene, 0, 0), window(scene, 4, 3)
    factor = np.array([1.0, 0.01])
    same = displacement_between(first, second, BetweenParameters())
    dim = displacement_between(first * factor, second * factor, BetweenParameters())
    assert np.abs(dim - same).mean() < 1e-3


def test_flat_averages_give_no_displacement_and_bad_ones_an_error():
    flat = np.full((40, 50, 1), 3.0)
    assert np.abs(displacement_between(flat, flat, BetweenParameters())).max() < 1e-6
    with pytest.raises(InputError, match="same shape"):
        displacement_between(flat, flat[:, 1:], BetweenParameters())
    with pytest.raises(InputError, match="NaN"):
        displacement_between(flat, np.full_like(flat, np.nan), BetweenParameters())

    def broken(*_, **__):
        return np.zeros((3, 3, 2))

    with pytest.raises(InputError, match=r"backend returned shape \(3, 3, 2\)"):
        displacement_between(flat, flat, BetweenParameters(flow_function=broken))


def test_numbers_of_a_good_and_of_a_false_match(scene):
    good = match(window(scene, 0, 0), window(scene, 6, -9), BetweenParameters())
    assert good.similarity_before < 0.3 < 0.98 < good.similarity_after
    assert good.loop_error < 0.15
    # Of 90 x 120 px, 84 x 111 lie in both.
    assert good.overlap == pytest.approx(84 * 111 / (90 * 120), abs=0.02)
    other = np.stack(
        [gaussian_filter(np.random.default_rng(n).random((90, 120)), 2.5) for n in (8, 9)], axis=-1
    )
    false = match(window(scene, 0, 0), other, BetweenParameters())
    assert false.similarity_after < 0.4
    assert not false.loop_error < 2


def test_similarity_of_pairs_counts_content_and_overlap(scene):
    first = window(scene, 0, 0)
    assert pair_similarity(first, first, 1) == pytest.approx(1.0)
    moved = pair_similarity(first, window(scene, 0, 30), 1)
    assert moved == pytest.approx(90 / 120, abs=0.03)
    assert pair_similarity(first, np.zeros_like(first), 1) == 0.0


def test_opposite_motions_give_the_raw_frame_back_in_one_step_only():
    raw = np.random.default_rng(1).integers(0, 60000, (2, 24, 30, 1)).astype(np.uint16)
    motion = np.full((2, 24, 30, 2), 0.5, np.float32)
    between = np.full((24, 30, 2), -0.5)
    fill = np.zeros((24, 30, 1))
    once, clipped = align_raw_frames(raw, motion, between, fill, raw.dtype)
    assert clipped == 0
    # The first row and column come from outside of the corrected frame.
    assert (once[:, 1:, 1:] == raw[:, 1:, 1:]).all()
    corrected, _ = align_raw_frames(raw, motion, 0 * between, fill, np.float32)
    twice, _ = align_corrected_frames(corrected, between, fill, raw.dtype)
    assert np.abs(twice[:, 2:-2, 2:-2].astype(int) - raw[:, 2:-2, 2:-2]).mean() > 1000


def test_what_comes_from_outside_is_the_reference_and_values_are_clipped():
    raw = np.zeros((1, 20, 20, 1), np.uint16)
    raw[0, 8:14, 8:14] = 65535
    between = np.zeros((20, 20, 2))
    between[..., 0] = 2.5
    fill = np.full((20, 20, 1), 77.0)
    for aligned, clipped in (
        align_raw_frames(raw, np.zeros((1, 20, 20, 2), np.float32), between, fill, raw.dtype),
        align_corrected_frames(raw, between, fill, raw.dtype),
    ):
        assert (aligned[0, :, 18:] == 77).all()
        assert clipped > 0
        # Undershoot beside the bright square would wrap to values near 65535.
        assert set(np.unique(aligned[0, :8])) <= {0, 77}


def test_values_that_are_not_finite_are_replaced_by_the_reference():
    raw = np.full((1, 16, 16, 1), 5.0, np.float32)
    raw[0, 4, 4] = np.nan
    zero = np.zeros((1, 16, 16, 2), np.float32)
    aligned, _ = align_raw_frames(raw, zero, zero[0], np.full((16, 16, 1), 9.0), np.float32)
    assert aligned[0, 4, 4, 0] == 9.0
    assert np.isfinite(aligned).all()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "bool", "float32"])
def test_sums_are_those_of_a_naive_loop(dtype):
    frames = np.random.default_rng(2).integers(0, 2, (7, 5, 6, 2)).astype(dtype)
    if dtype == "uint32":
        frames[:] = 2**32 - 1
    total = sum_frames(frames)
    assert total.dtype == (np.float64 if dtype == "float32" else np.int64)
    for y, x, c in np.ndindex(5, 6, 2):
        assert total[y, x, c] == sum(int(frame[y, x, c]) for frame in frames)


def test_sums_refuse_nan_and_masks_are_an_and():
    frames = np.zeros((3, 2, 2, 1), np.float32)
    frames[1, 0, 0] = np.nan
    with pytest.raises(InputError, match="1 pixels"):
        sum_frames(frames)
    masks = np.array([[[[255], [255]]], [[[255], [0]]]], np.uint8)
    assert always_valid(masks).tolist() == [[True, False]]
