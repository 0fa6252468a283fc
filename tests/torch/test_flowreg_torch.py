"""The backend `flowreg_torch`: whole frames on a device, with the arithmetic of `flowreg`."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from scopeflow import FlowRegLive, OFOptions, compensate_arr, compute_motion
from scopeflow.flow.backends.registry import get_backend
from scopeflow.flow.flow import get_displacement
from scopeflow.images.filters import intensity_range, preprocess_frame
from scopeflow.images.power import positive_power
from scopeflow.motion.block.correct import correct_block, make_reference
from scopeflow.motion.block.preprocess import PreprocessStage
from scopeflow.motion.block.values import BatchStart, BlockRequest
from scopeflow.motion.options.parameters import correction_parameters, weight_map
from scopeflow.testing.synthetic import synthetic_recording
from tests.conftest import same_bits

LARGEST, MEAN = 0.01, 0.001
"""Pixels by which displacements may differ from those of `flowreg` at most, and on average.

Of the presets fast and balanced, and of a few sweeps at any level.
"""


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch", reason="flowreg_torch needs torch (extra 'torch')")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recording():
    return synthetic_recording(7, 40, 52, 2, seed=3, translation_px=2.0, nonrigid_px=0.7)


@pytest.fixture(scope="module")
def frames(recording):
    low, high = intensity_range(recording.video[0], True)
    return np.stack([preprocess_frame(f, low, high, (1, 1, 0)) for f in recording.video[:4]])


def make(torch, **parameters):
    return get_backend("flowreg_torch")(**{"device": "cpu", **parameters})


def assert_close_flow(found, expected):
    difference = np.linalg.norm(np.asarray(found, float) - expected, axis=-1)
    assert difference.max() < LARGEST
    assert difference.mean() < MEAN
    assert np.abs(expected).max() > 0.1


# --------------------------------------------------------------------------------- two frames
@pytest.mark.parametrize(
    "changes",
    [
        {"min_level": 0},
        {"min_level": 5, "const_assumption": "gray", "alpha": (0.05, 0.05)},
        {"min_level": 5, "const_assumption": "cs", "update_lag": 3, "a_data": (0.4, 0.6)},
        {"min_level": 5, "alpha": (3.0, 1.0), "weight": [0.8, 0.2]},
        {"min_level": 5, "weight": np.linspace(0, 1, 40 * 52 * 2).reshape(40, 52, 2)},
        {"min_level": 4, "a_smooth": 0.5, "update_lag": 1},
        {"min_level": 5, "gnc_schedule": (0.0, 0.5, 1.0), "warping_steps": 2},
        {"min_level": 6, "gnc_schedule": (0.0, 1.0), "warping_steps": 1, "a_smooth": 0.6},
        {"min_level": 5, "iterations": 3, "update_lag": 7},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_it_does_the_arithmetic_of_the_builtin_method(torch, frames, changes):
    options = {"iterations": 12, "alpha": (1.5, 1.5), **changes}
    start = np.full((40, 52, 2), 0.3, np.float32)
    flows = make(torch).many(frames[0], frames[1:], uv=start, **options)
    for frame, flow in zip(frames[1:], flows, strict=True):
        assert_close_flow(flow, get_displacement(frames[0], frame, uv=start, **options))
    # Together or one by one, also after a pickle: the same bits.
    alone = pickle.loads(pickle.dumps(make(torch, frames_at_once=1)))
    assert same_bits(alone.many(frames[0], frames[1:], uv=start, **options), flows)
    assert same_bits(alone(frames[0], frames[2], uv=start, **options), flows[1])


def test_full_resolution_differs_no_more_than_rounding_does(torch):
    """Fifty sweeps carry rounding far there, in the built-in solver as well."""
    recording = synthetic_recording(2, 128, 128, 1, seed=1, nonrigid_px=1.5)
    low, high = intensity_range(recording.reference, True)
    fixed, moving = (
        preprocess_frame(image, low, high, (1, 1, 0))
        for image in (recording.reference, recording.video[1])
    )
    options = {"alpha": (1.5, 1.5), "iterations": 50, "min_level": 0}
    expected = get_displacement(fixed, moving, **options)
    noise = np.random.default_rng(0).standard_normal(moving.shape).astype(np.float32)
    shaken = get_displacement(fixed, moving * (1 + np.float32(1e-7) * noise), **options)
    rounding = np.linalg.norm(shaken - expected, axis=-1)
    found = np.linalg.norm(make(torch)(fixed, moving, **options) - expected, axis=-1)
    assert found.mean() < 0.01
    assert found.mean() < 5 * rounding.mean() + 1e-4
    assert np.percentile(found, 99) < 5 * np.percentile(rounding, 99) + 1e-3


def test_double_precision_is_as_close(torch, frames):
    options = {"iterations": 8, "alpha": (1.5, 1.5), "min_level": 5}
    flow = make(torch, dtype="float64")(frames[0][..., 0], frames[1][..., 0], **options)
    assert_close_flow(flow, get_displacement(frames[0][..., 0], frames[1][..., 0], **options))


def test_powers_are_those_of_the_builtin_solver(torch):
    from scopeflow_torch.planes import power

    values = np.exp(np.random.default_rng(0).normal(0, 8, 5001)).astype(np.float32)
    for exponent in (-0.55, -1.0, 0.3):
        found = power(torch.as_tensor(values), exponent).numpy()
        np.testing.assert_allclose(found, positive_power(values, exponent), rtol=4e-6)
        np.testing.assert_allclose(found, values.astype(float) ** exponent, rtol=1e-5)


# ---------------------------------------------------------------------------------- whole blocks
def corrected(video, options, backend=None, *, dtype=None, frames=None, **request):
    """Result of a block of all frames, as `correct_block` gives it."""
    channels = video.shape[-1]
    parameters = correction_parameters(options, channels)
    weight = weight_map(options, *video.shape[1:])
    reference = make_reference(video[0], parameters.preprocess, weight)
    wanted = BlockRequest(
        parameters, str(dtype or video.dtype), displacement_function=backend, **request
    )
    start, stop = frames or (0, len(video))
    grid = wanted.motion_shape(*video.shape[1:3])
    motion = np.full((*grid, 2), 0.2, np.float32)
    return correct_block(
        video,
        read_start=0,
        start=start,
        stop=stop,
        filter_limits=(0, len(video)),
        reference=reference,
        batch_start=BatchStart(motion),
        request=wanted,
        seed_tail_start=start + 1,
        reference_tail_start=start + 2,
    )


def assert_close_blocks(found, expected, counts):
    assert found.registered.dtype == expected.registered.dtype
    assert found.motion.shape == expected.motion.shape
    assert_close_flow(found.motion, expected.motion)
    difference = np.abs(found.registered.astype(float) - expected.registered.astype(float))
    assert difference.mean() < 0.002 * counts
    # Pixels at the border, whose position is outside by less than the tolerance, may change sides.
    assert (found.valid != expected.valid).mean() < 0.002
    for name, values in expected.statistics.items():
        np.testing.assert_allclose(found.statistics[name], values, atol=LARGEST, rtol=1e-3)
    assert np.abs(found.clipped - expected.clipped).max() <= 3
    for name, total in expected.tail.items():
        mean = np.abs(found.tail[name] - total).mean() / 2**32
        assert mean < 0.01


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({}, "uint16"),
        ({"interpolation_method": "linear", "constancy_assumption": "gray"}, "uint8"),
        ({"interpolation_method": "nearest", "constancy_assumption": "cs"}, "int16"),
        ({"sigma": [[1, 2, 0.6], [0.5, 0.5, 1.0]], "a_smooth": 0.5}, "float32"),
        ({"cc_initialization": True, "cc_hw": 32, "cc_up": 4}, "int32"),
        ({"gnc_schedule": (0.0, 1.0), "warping_steps": 1}, "float64"),
        ({"channel_normalization": "separate", "weight": [0.7, 0.3]}, "int8"),
    ],
    ids=["uint16", "linear", "nearest", "in-time", "rigid", "gnc", "separate"],
)
def test_whole_blocks_are_those_of_the_builtin_method(torch, recording, changes, dtype):
    options = OFOptions(quality_setting="fast", iterations=6, **changes)
    counts = float(recording.video.max())
    video = recording.video.astype(np.float64)
    if dtype in ("uint8", "int8"):  # some values are too large for the type
        counts = 2.0 * np.iinfo(dtype).max
        video = video * counts / video.max()
    video = video.astype(np.float32 if dtype in ("uint8", "int8") else dtype)
    expected = corrected(video, options, dtype=dtype)
    found = corrected(video, options, make(torch, frames_at_once=3), dtype=dtype)
    assert_close_blocks(found, expected, counts)
    if dtype in ("uint8", "int8"):
        assert expected.clipped.sum() > 20
    # Blocks and groups do not change a bit.
    for position in range(0, len(video), 2):
        part = (position, min(position + 2, len(video)))
        some = corrected(video, options, make(torch), dtype=dtype, frames=part)
        assert same_bits(some.motion, found.motion[slice(*part)])
        assert same_bits(some.registered, found.registered[slice(*part)])
        assert same_bits(some.valid, found.valid[slice(*part)])
        for name, values in some.statistics.items():
            assert same_bits(values, found.statistics[name][slice(*part)])


def test_a_reference_is_built_with_all_filters(torch, recording):
    """Two stages of filters in time, sums of registered frames, user function, NaN masked."""
    video = recording.video.astype(np.float32)
    video[3, 10:14, 10:14] = np.nan
    options = OFOptions(quality_setting="fast", iterations=6, sigma=[1, 1, 0.5])
    parameters = correction_parameters(options, 2)
    reference = make_reference(
        video[0], parameters.preprocess, weight_map(options, *video.shape[1:])
    )
    more = {
        "sum_registered": True,
        "non_finite": "mask",
        "frame_function": lambda frame: frame * 2,
        "prefilter": PreprocessStage(
            reference.normalization, replace(parameters.preprocess, sigma=((1.5, 1.5, 0.8),) * 2)
        ),
    }
    expected = corrected(video, options, **more)
    found = corrected(video, options, make(torch, frames_at_once=3), **more)
    assert_close_blocks(found, expected, float(np.nanmax(video)))
    assert not expected.valid[3].all()
    total = expected.registered_sum
    assert np.abs(found.registered_sum - total).mean() < 0.002 * total.mean()


def test_displacements_alone(torch, recording):
    options = OFOptions(quality_setting="fast", iterations=4)
    result = corrected(recording.video, options, make(torch), register=False)
    assert result.registered.shape[0] == 0
    assert result.motion.shape[0] == len(recording.video)


# --------------------------------------------------------------------------------- recordings
def test_recordings_batches_and_motion(torch, recording, quiet):
    settings = {
        "quality_setting": "fast",
        "iterations": 5,
        "buffer_size": 3,
        "update_reference": True,
    }
    options = OFOptions(flow_backend="flowreg_torch", backend_params={"device": "cpu"}, **settings)
    video = recording.video
    ours, flow = compensate_arr(video, video[0], OFOptions(**settings), registration_config=quiet())
    registered, other = compensate_arr(video, video[0], options, registration_config=quiet())
    assert_close_flow(other, flow)
    assert np.abs(registered.astype(float) - ours).mean() < 0.002 * ours.mean()
    again, same = compensate_arr(
        video,
        video[0],
        options.model_copy(update={"backend_params": {"device": "cpu", "frames_at_once": 2}}),
        registration_config=quiet(block_length=2),
    )
    assert same_bits(again, registered)
    assert same_bits(same, other)
    motion = compute_motion(video, video[0], options)
    assert same_bits(motion.displacement[3:5].to_numpy(), other[3:5])


def test_live_streams_solve_on_the_device(torch, recording):
    streams = [
        FlowRegLive(iterations=5, reference_update_interval=2, **more)
        for more in (
            {},
            {"flow_backend": "flowreg_torch", "backend_params": {"device": "cpu"}},
        )
    ]
    for live in streams:
        live.set_reference(recording.video[0])
    for frame in recording.video[1:]:
        (ours, flow), (corrected, found) = (live(frame) for live in streams)
        assert_close_flow(found, flow)
        assert np.abs(corrected - ours).mean() < 0.002 * ours.mean()


def test_it_names_what_it_cannot_do(torch, frames):
    backend = get_backend("flowreg_torch")
    with pytest.raises(ValueError, match=r"no parameter 'devise'.*Did you mean 'device'"):
        backend(devise="cpu")
    with pytest.raises(ValueError, match="use float32 or float64"):
        backend(dtype="float16")
    with pytest.raises(ValueError, match="device is 'gpu0'"):
        backend(device="gpu0")
    with pytest.raises(ValueError, match="frames_at_once is 0"):
        backend(frames_at_once=0)
    with pytest.raises(ValueError, match="must start at"):
        make(torch)(frames[0], frames[1], gnc_schedule=(0.5, 1.0))
    with pytest.raises(ValueError, match="3 exponents a_data were given for 2 channels"):
        make(torch)(frames[0], frames[1], a_data=(0.4, 0.4, 0.4))
    with pytest.raises(ValueError, match=r"initial displacement of shape \(4, 4, 2\)"):
        make(torch)(frames[0], frames[1], uv=np.zeros((4, 4, 2)))
    bad = frames[1].copy()
    bad[3, 4] = np.nan
    with pytest.raises(ValueError, match="2 values that are NaN"):
        make(torch)(frames[0], bad)
    with pytest.raises(ValueError, match="both need the same shape"):
        make(torch)(frames[0], frames[1][:20])
    if not torch.cuda.is_available():
        with pytest.warns(UserWarning, match=r"'cuda' was asked for, torch sees none: using"):
            assert backend(device="cuda").device == "cpu"


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [{}, {"gnc_schedule": (0.0, 1.0), "warping_steps": 2}])
def test_a_cuda_device_gives_the_same(torch, recording, changes):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    options = OFOptions(quality_setting="fast", iterations=12, **changes)
    expected = corrected(recording.video, options)
    found = corrected(recording.video, options, make(torch, device="cuda", frames_at_once=3))
    assert_close_blocks(found, expected, float(recording.video.max()))
    alone = corrected(recording.video, options, make(torch, device="cuda", frames_at_once=1))
    assert same_bits(alone.registered, found.registered)
    assert same_bits(alone.motion, found.motion)
