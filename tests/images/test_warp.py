"""Warp, masks and casts against plain loops and exact cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from scopeflow.errors import InputError
from scopeflow.images.warp import cast_frames, valid_mask, warp, warp_mask
from tests.oracles import naive_flow


@pytest.fixture
def case():
    rng = np.random.default_rng(11)
    moving, fill = rng.random((2, 14, 19, 2)).astype(np.float32)
    flow = rng.normal(scale=4, size=(14, 19, 2)).astype(np.float32)
    flow[3, 4] = 0
    flow[5, 18] = [0.75, 0]  # between the last pixel and the edge: inside
    flow[6, 0] = [-1e-3, 0]  # just outside
    return moving, flow, fill


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("interpolation", ["cubic", "linear", "nearest"])
def test_warp_matches_plain_loops(case, interpolation, rounded):
    moving, flow, fill = case
    ours = warp(moving, flow, fill, interpolation, round_positions=rounded)
    assert ours.dtype == np.float32
    for c in range(2):
        twin = naive_flow.warp(
            moving[..., c].astype(float),
            flow[..., 0],
            flow[..., 1],
            fill[..., c],
            rounded,
            interpolation,
        )
        np.testing.assert_allclose(ours[..., c], twin, atol=3e-6)


def test_linear_warp_matches_scipy_inside(case):
    moving, flow, fill = case
    y, x = np.mgrid[0:14, 0:19]
    positions = [np.float32(y + flow[..., 1]), np.float32(x + flow[..., 0])]
    inside = valid_mask(flow)
    expected = map_coordinates(moving[..., 0].astype(float), positions, order=1, mode="nearest")
    ours = warp(moving, flow, fill, "linear")[..., 0]
    np.testing.assert_allclose(ours[inside], expected[inside], atol=2e-6)
    np.testing.assert_array_equal(ours[~inside], fill[..., 0][~inside])


@pytest.mark.parametrize("interpolation", ["cubic", "linear", "nearest"])
def test_whole_pixel_shifts_copy_exactly(case, interpolation):
    moving, _, fill = case
    flow = np.full((14, 19, 2), [3, -2], np.float32)
    out = warp(moving, flow, fill, interpolation)
    np.testing.assert_array_equal(out[2:, :-3], moving[:-2, 3:])
    np.testing.assert_array_equal(out[:2], fill[:2])
    np.testing.assert_array_equal(out[:, -3:], fill[:, -3:])


def test_undefined_and_huge_displacements_take_the_fill(case):
    moving, flow, fill = case
    for bad in (np.nan, np.inf, -np.inf, 3e38, -3e38):
        wild = np.full_like(flow, bad)
        np.testing.assert_array_equal(warp(moving, wild, fill), fill)
        assert not valid_mask(wild).any()


def test_nan_in_a_frame_stays_within_the_reach_of_the_interpolation(case):
    moving, _, fill = case
    moving[7, 9] = np.nan
    flow = np.full((14, 19, 2), 0.5, np.float32)
    for interpolation, count in (("nearest", 1), ("linear", 4), ("cubic", 16)):
        bad = np.isnan(warp(moving, flow, fill, interpolation)[..., 0])
        assert bad.sum() <= count


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int16", "uint16", "uint32", "float16", "float64"]
)
def test_every_dtype_can_be_warped(dtype):
    frame = np.random.default_rng(0).integers(0, 2, (12, 13, 1)).astype(dtype)
    out = warp(frame, np.zeros((12, 13, 2), np.float32), frame)
    np.testing.assert_array_equal(out, frame.astype(np.float32))


def test_wrong_shapes_and_names_are_refused(case):
    moving, flow, fill = case
    with pytest.raises(InputError, match="Did you mean 'cubic'"):
        warp(moving, flow, fill, "cubik")
    with pytest.raises(InputError, match="H, W, C"):
        warp(moving, flow[:-1], fill)


def test_masks_follow_the_nearest_pixel():
    mask = np.zeros((6, 8), bool)
    mask[2, 3] = True
    flow = np.zeros((6, 8, 2), np.float32)
    flow[..., 0] = 0.5  # half to even: column 2 looks at 2, column 3 at 4
    assert not warp_mask(mask, flow)[2, 2]
    assert not warp_mask(mask, flow)[2, 3]
    flow[..., 0] = 1
    assert np.argwhere(warp_mask(mask, flow)).tolist() == [[2, 2]]
    assert not warp_mask(np.ones((6, 8), bool), flow)[:, -1].any()


@pytest.mark.parametrize(
    ("values", "dtype", "expected", "clipped"),
    [
        (
            [-3.0, 0.5, 1.5, 2.5, 254.5, 255.4, 256.0, np.nan],
            "uint8",
            [0, 0, 2, 2, 254, 255, 255, 0],
            3,
        ),
        ([-40000.0, -0.5, 32767.4, 32768.0], "int16", [-32768, 0, 32767, 32767], 2),
        (
            [-1.0, 4294967295.0, 4294967296.0, 5e9],
            "uint32",
            [0, 4294967295, 4294967295, 4294967295],
            3,
        ),
        ([-1e30, 2147483648.0, 7.0], "int32", [-2147483648, 2147483647, 7], 2),
        ([-1e30, 1e30, 7.0], "int64", [-(2**63), 2**63 - 1, 7], 2),
        ([0.4, 0.5, 0.6], "bool", [False, False, True], 0),
        ([1e6, -1e6, 1.0], "float16", [65504.0, -65504.0, 1.0], 2),
    ],
)
def test_casts_round_clip_and_count(values, dtype, expected, clipped):
    array, count = cast_frames(np.array(values), dtype)
    assert array.dtype == dtype
    assert array.tolist() == expected
    assert count == clipped


def test_casts_of_float32_next_to_the_integer_limits():
    array, count = cast_frames(np.array([4294967296.0, 4294967040.0], np.float32), "uint32")
    assert array.tolist() == [4294967295, 4294967040]
    assert count == 1


def test_float_casts_keep_infinity_and_nan():
    array, count = cast_frames(np.array([np.inf, -np.inf, np.nan]), "float16")
    assert count == 0
    assert np.isinf(array[:2]).all()
    assert np.isnan(array[2])
