"""Registration of raw frames against the single steps that it puts together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from scopeflow.images.register import FrameRegistration
from scopeflow.images.resize import upsample_flow
from scopeflow.images.statistics import flow_statistics
from scopeflow.images.warp import cast_frames, valid_mask, warp

SHAPES = [(10, 10), (11, 37), (127, 13), (64, 96)]


def problem(height, width, channels, grid, dtype=np.uint16):
    rng = np.random.default_rng(3)
    limits = (-1, 1) if np.dtype(dtype).kind == "f" else (0, 250)
    frame, fill = rng.uniform(*limits, (2, height, width, channels)).astype(dtype)
    motion = rng.normal(0, 3, (*grid, 2)).astype(np.float32)
    return frame, fill, motion


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic"])
def test_it_is_what_the_single_steps_make(shape, channels, interpolation):
    grid = tuple(max(5, n // 2) for n in shape)
    frame, fill, motion = problem(*shape, channels, grid)
    registration = FrameRegistration(fill, interpolation)
    registration.set_motion(motion)
    out, valid = np.empty(frame.shape, np.uint16), np.empty(shape, bool)
    total = np.zeros(frame.shape)
    clipped = registration.register(frame, out, total)
    registration.valid(valid)

    flow = upsample_flow(motion, shape)
    values = warp(frame, flow, fill, interpolation)
    expected, count = cast_frames(values, np.uint16)
    np.testing.assert_array_equal(registration.flow(), flow)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(total, values)
    np.testing.assert_array_equal(valid, valid_mask(flow))
    assert clipped == count
    assert registration.statistics() == flow_statistics(flow)


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int16", "int8", "uint32", "float32", "float64", "bool"]
)
def test_every_dtype_is_rounded_and_clipped_as_by_the_plain_cast(dtype):
    frame, fill, motion = problem(20, 33, 2, (20, 33), np.float32)
    frame *= np.float32(1e5)  # beyond the range of small integers
    registration = FrameRegistration(fill, "cubic")
    registration.set_motion(motion)
    out = np.empty(frame.shape, dtype)
    clipped = registration.register(frame, out)
    expected, count = cast_frames(warp(frame, motion, fill, "cubic"), dtype)
    np.testing.assert_array_equal(out, expected)
    assert clipped == count


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "dtypes",
    [("uint16", "uint16"), ("uint8", "int16"), ("int16", "uint8"), ("float32", "uint16"),
     ("float64", "uint16"), ("uint16", "float32")],
)  # fmt: skip
def test_all_steps_at_once_are_the_steps(dtypes, channels, chained):
    # Often enough that the calls are recorded and then repeated, with other arrays each time.
    height, width = 21, 33
    rng = np.random.default_rng(5)
    fill = rng.uniform(0, 250, (height, width, channels))
    then = rng.normal(0, 2, (height, width, 2)) if chained else None
    at_once = FrameRegistration(fill, "cubic", then)
    steps = FrameRegistration(fill, "cubic", then)
    for n in range(5):
        motion = rng.normal(0, 3, (10, 17, 2)).astype(np.float32)
        frame = rng.uniform(0, 300, (height, width, channels)).clip(0, 255).astype(dtypes[0])
        if n == 4:  # a view into a mapped file may begin at any byte
            frame = np.frombuffer(b"x" + frame.tobytes(), dtypes[0], offset=1).reshape(frame.shape)
        out, expected = np.empty((2, height, width, channels), dtypes[1])
        valid, valid_expected = np.empty((2, height, width), bool)
        total, total_expected = np.full((2, height, width, channels), float(n))
        clipped = at_once.apply(motion, frame, out, valid=valid, total=total)
        steps.set_motion(motion)
        assert clipped == steps.register(frame, expected, total_expected)
        steps.valid(valid_expected)
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(valid, valid_expected)
        np.testing.assert_array_equal(total, total_expected)
        np.testing.assert_array_equal(at_once.flow(), steps.flow())
        if not chained:
            assert at_once.statistics() == steps.statistics()
        plain = np.empty_like(out)
        assert at_once.apply(motion, frame, plain) == clipped
        np.testing.assert_array_equal(plain, expected)


def test_nothing_is_written_to_arrays_that_are_read_only():
    frame, fill, motion = problem(16, 16, 1, (16, 16))
    registration = FrameRegistration(fill, "cubic")
    out = np.empty(frame.shape, np.uint16)
    for _ in range(3):
        registration.apply(motion, frame, out)
    before = np.zeros_like(out)
    before.flags.writeable = False
    with pytest.raises((TypeError, ValueError)):
        registration.apply(motion, frame, before)
    assert not before.any()


def test_values_that_are_not_numbers_are_counted():
    frame, fill, motion = problem(16, 16, 1, (16, 16), np.float32)
    frame[3, 4] = np.nan
    registration = FrameRegistration(fill, "linear")
    registration.set_motion(np.zeros_like(motion))
    out = np.empty(frame.shape, np.uint8)
    assert (
        registration.register(frame, out)
        == cast_frames(warp(frame, np.zeros_like(motion), fill, "linear"), np.uint8)[1]
    )
    assert out[3, 4, 0] == 0


def test_a_chain_of_displacements_equals_a_naive_twin():
    rng = np.random.default_rng(0)
    height, width = 9, 11
    within = gaussian_filter(rng.normal(0, 5, (height, width, 2)), (2, 2, 0)).astype(np.float32)
    between = gaussian_filter(rng.normal(0, 9, (height, width, 2)), (2, 2, 0))
    chain = FrameRegistration(np.zeros((height, width, 1)), "cubic", then=between)
    chain.set_motion(within)
    found = chain.flow()
    for y in range(height):
        for x in range(width):
            px = np.float32(x) + np.float32(between[y, x, 0])
            py = np.float32(y) + np.float32(between[y, x, 1])
            if not (0 <= px < width and 0 <= py < height):
                assert np.isnan(found[y, x]).all()
                continue
            px, py = min(px, width - 1), min(py, height - 1)
            x0, y0 = int(px), int(py)
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            fx, fy = px - x0, py - y0
            upper = (1 - fx) * within[y0, x0] + fx * within[y0, x1]
            lower = (1 - fx) * within[y1, x0] + fx * within[y1, x1]
            expected = between[y, x] + (1 - fy) * upper + fy * lower
            assert found[y, x] == pytest.approx(expected, abs=1e-4)
