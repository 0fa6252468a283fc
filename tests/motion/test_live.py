"""Frames corrected one by one: equal to the plain loop, right on any scale, of bounded size."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from scopeflow import FlowRegLive, OFOptions
from scopeflow.testing.synthetic import synthetic_recording
from tests.oracles.naive_live import naive_live


@pytest.fixture(scope="module")
def recording():
    return synthetic_recording(16, 40, 52, 2, seed=3, translation_px=2.0, nonrigid_px=0.7)


@pytest.fixture(scope="module")
def video(recording):
    return np.asarray(recording.video)


@pytest.fixture(scope="module")
def shifted():
    """Frames 96 x 100 cut from one image, and the exact displacement of each to the first."""
    image = synthetic_recording(1, 112, 116, 1, seed=5, photons=None).frame(0)
    shifts = [(8, 8), (9, 8), (10, 9), (11, 10), (11, 11), (10, 12), (8, 11), (7, 10)]
    frames = np.stack([image[y : y + 96, x : x + 100] for y, x in shifts])
    truth = np.array([(8 - x, 8 - y) for y, x in shifts], np.float32)
    return frames, truth[:, None, None]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sigma": [[1, 1, 0.6], [1.5, 0.5, 0.1]], "channel_normalization": "separate"},
        {"interpolation_method": "linear", "min_level": 3, "constancy_assumption": "cs"},
    ],
)
def test_equals_the_plain_loop(video, changes):
    options = OFOptions(iterations=10, **changes)
    live = FlowRegLive(options, reference_update_interval=3, reference_update_weight=0.3)
    live.set_reference(video[0])
    results = [live(frame) for frame in video[:8]]
    registered, flows, raw = naive_live(video[:8], video[0], live.options, interval=3, share=0.3)
    np.testing.assert_allclose([w for _, w in results], flows, atol=2e-3)
    np.testing.assert_allclose([c for c, _ in results], registered, atol=2, rtol=2e-3)
    np.testing.assert_allclose(live.reference_raw, raw, atol=1, rtol=1e-3)
    assert results[0][0].dtype == results[0][1].dtype == np.float32


def test_right_on_camera_counts_and_on_unit_range(shifted):
    frames, truth = shifted
    counts, unit = FlowRegLive(), FlowRegLive()
    counts.set_reference(frames[0])
    scale = np.float32(frames[0].max())
    unit.set_reference(frames[0] / scale)
    for frame, displacement in zip(frames, truth, strict=True):
        for live, given in ((counts, frame), (unit, frame / scale)):
            error = np.linalg.norm(live(given)[1] - displacement, axis=-1)[12:-12, 12:-12]
            assert error.mean() < 0.25  # the motion is 1 to 4 px


def test_frames_of_the_reference_are_registered_to_each_other(shifted):
    frames, _ = shifted
    live = FlowRegLive()
    live.set_reference(frames)

    def detail(image):
        return np.abs(np.diff(image[12:-12, 12:-12], axis=0)).mean()

    assert detail(live.reference_raw) > 1.2 * detail(frames.mean(axis=0))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((40, 52), (40, 52)),
        ((40, 52, 1), (40, 52, 1)),
        ((1, 40, 52), (40, 52)),
        ((1, 1, 40, 52, 1), (40, 52, 1)),
    ],
)
def test_shapes_of_references_and_frames(video, shape, expected):
    live = FlowRegLive(iterations=2)
    plane = video[0, ..., 0]
    live.set_reference(plane.reshape(shape))
    assert live.reference_raw.shape == (40, 52, 1)
    corrected, flow = live(plane.reshape(expected))
    assert corrected.shape == expected
    assert flow.shape == (40, 52, 2)


def test_several_frames_keep_their_type_and_are_those_of_single_calls(video):
    one, many = FlowRegLive(iterations=3), FlowRegLive(iterations=3)
    one.set_reference(video[0])
    many.set_reference(video[0])
    registered, flows = many.register_frames(video[:4])
    assert registered.dtype == video.dtype
    for position, frame in enumerate(video[:4]):
        corrected, flow = one(frame)
        np.testing.assert_array_equal(flows[position], flow)
        np.testing.assert_array_equal(registered[position], np.rint(corrected))
    planes, _ = FlowRegLive(iterations=2).register_frames(video[:2, ..., 0])
    assert planes.shape == (2, 40, 52)


def test_without_a_reference_frames_pass_and_make_one_later(video, caplog):
    live = FlowRegLive(reference_buffer_size=3, iterations=3)
    with pytest.raises(ValueError, match="Reference buffer is empty"):
        live.set_reference()
    with caplog.at_level(logging.WARNING, "scopeflow"):
        for frame in video[:5]:
            corrected, flow = live(frame)
            np.testing.assert_array_equal(corrected, frame)
            assert not flow.any()
    assert caplog.text.count("set_reference()") == 1
    assert len(live.reference_buffer) == 3
    live.set_reference()
    assert live(video[5])[1].any()
    live.reset_reference()
    assert live.reference_raw is None
    assert not live(video[6])[1].any()
    live.reset_reference(video[0])
    assert live.frame_count == 0
    np.testing.assert_array_equal(live.reference_raw, video[0])


def test_the_start_can_be_given_and_read(video):
    live = FlowRegLive(iterations=3)
    live.set_reference(video[0])
    assert live.get_current_flow() is None
    start = np.zeros((40, 52, 2), np.float32)
    live.set_flow_init(start + 1)
    np.testing.assert_array_equal(live.get_current_flow(), start + 1)
    with_start = live(video[1])[1]
    live.set_flow_init(None)
    without = live(video[1])[1]
    assert np.abs(with_start - without).max() > 1e-4
    np.testing.assert_array_equal(live.get_current_flow(), without)
    with pytest.raises(ValueError, match=r"needed are finite displacements of shape \(40, 52, 2\)"):
        live.set_flow_init(np.zeros((3, 4, 2)))


def test_a_bad_frame_does_not_spoil_those_that_follow(video):
    live = FlowRegLive(reference_update_interval=0)
    live.set_reference(video[0])
    rng = np.random.default_rng(0)
    undisturbed = FlowRegLive(reference_update_interval=0)
    undisturbed.set_reference(video[0])
    for frame in video[:3]:
        undisturbed(frame)
    live(rng.integers(0, 4000, video[0].shape).astype(np.uint16))
    live(np.zeros_like(video[0]))
    for frame in video[1:3]:
        live(frame)
    difference = np.abs(live.get_current_flow() - undisturbed.get_current_flow())
    assert difference[6:-6, 6:-6].mean() < 0.3


def test_non_finite_pixels_stop_or_are_masked(video):
    frame = video[1].astype(np.float32)
    frame[5, 6] = np.nan
    live = FlowRegLive(iterations=2)
    live.set_reference(video[0])
    with pytest.raises(ValueError, match="NaN or infinite"):
        live(frame)
    masked = FlowRegLive(iterations=2, non_finite="mask")
    masked.set_reference(video[0])
    corrected, flow = masked(frame)
    assert np.isfinite(corrected).all()
    assert np.isfinite(flow).all()


def test_bad_arguments_are_named(video):
    with pytest.raises(ValueError, match=r"unknown option 'alhpa'.*Did you mean 'alpha'"):
        FlowRegLive(alhpa=3)
    for name in ("reference_buffer_size", "reference_update_weight", "truncate"):
        with pytest.raises(ValueError, match=name):
            FlowRegLive(**{name: -1})
    live = FlowRegLive(iterations=2)
    with pytest.raises(ValueError, match="same value everywhere"):
        live.set_reference(np.zeros((40, 52)))
    with pytest.raises(ValueError, match="call set_reference first"):
        live.set_flow_init(None)
    live.set_reference(video[0])
    with pytest.raises(ValueError, match=r"shape \(40, 50, 2\).*reference of shape \(40, 52, 2\)"):
        live(video[0][:, :50])


def test_functions_of_the_user_are_honoured(video):
    def shifted(reference, moving, *, uv, weight, **parameters):
        assert parameters["iterations"] == 7
        return np.full((*reference.shape[:2], 2), (1.0, 0.0))

    live = FlowRegLive(iterations=7, get_displacement_impl=shifted)
    live.set_reference(video[0])
    corrected, flow = live(video[1])
    assert (flow == (1, 0)).all()
    np.testing.assert_allclose(corrected[:, :-1], video[1][:, 1:])


def test_state_does_not_grow(video):
    live = FlowRegLive(iterations=2, reference_update_interval=2, sigma=[1, 1, 0.5])
    live.set_reference(video[0])

    def size():
        import pickle

        state = live._stream
        return len(pickle.dumps([state.reference, state._recent, state.motion]))

    live.register_frames(video[:6])
    before = size()
    live.register_frames(video)
    assert size() == before
    assert live.frame_count == 22
