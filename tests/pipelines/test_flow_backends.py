"""Other displacement methods: right on known motion, and equal to the built-in one if meant to."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from scopeflow import OFOptions, compensate_arr
from scopeflow.kernels.backends import get_backend
from scopeflow.kernels.filters import intensity_range, preprocess_frame
from scopeflow.kernels.flow import get_displacement
from scopeflow.kernels.warp import warp
from scopeflow.testing.synthetic import synthetic_recording


@pytest.fixture(scope="module")
def recording():
    return synthetic_recording(4, 40, 52, 2, seed=3, translation_px=2.0, nonrigid_px=0.7)


@pytest.fixture(scope="module")
def frames(recording):
    low, high = intensity_range(recording.video[0], True)
    return np.stack([preprocess_frame(f, low, high, (1, 1, 0)) for f in recording.video])


@pytest.fixture(scope="module")
def shifted():
    image = synthetic_recording(1, 112, 116, 1, seed=5, photons=None).frame(0)
    return image[8:104, 8:108], image[10:106, 5:105], np.array([3, -2], np.float32)


# --------------------------------------------------------------------------------------- diso
def test_dis_finds_a_known_motion_on_camera_counts(shifted, quiet):
    reference, frame, truth = shifted
    options = OFOptions(flow_backend="diso", backend_params={"preset": "fast"})
    registered, flow = compensate_arr(frame[None], reference, options, registration_config=quiet())
    assert np.linalg.norm(flow[0] - truth, axis=-1)[16:-16, 16:-16].mean() < 0.3
    error = np.abs(registered[0] - reference)[16:-16, 16:-16].mean()
    assert error < 0.3 * np.abs(frame.astype(float) - reference)[16:-16, 16:-16].mean()


def test_dis_is_pickled_and_starts_from_a_displacement(shifted):
    reference, frame, truth = shifted
    fixed, moving = (image.astype(np.float32) / image.max() for image in (reference, frame))
    function = get_backend("diso")(finest_scale=1)
    again = pickle.loads(pickle.dumps(function))
    np.testing.assert_array_equal(again(fixed, moving), function(fixed, moving))
    assert again.get_params()["finest_scale"] == 1
    start = np.broadcast_to(truth, (96, 100, 2))
    warm = function(fixed, moving, uv=start)
    assert warm.dtype == np.float32
    assert np.linalg.norm(warm - truth, axis=-1)[16:-16, 16:-16].mean() < 0.3


def test_dis_weighs_channels(shifted):
    reference, frame, _ = shifted
    fixed = np.concatenate([reference, reference[::-1]], axis=2) / reference.max()
    moving = np.concatenate([frame, reference[::-1]], axis=2) / reference.max()
    function = get_backend("diso")()
    first = function(fixed, moving, weight=np.array([1.0, 0.0]))
    np.testing.assert_array_equal(first, function(fixed[..., :1], moving[..., :1]))
    still = function(fixed, moving, weight=np.array([0.0, 1.0]))
    assert np.abs(still).mean() < 0.05


def test_dis_names_what_it_cannot_do(shifted):
    reference, frame, _ = shifted
    with pytest.raises(ValueError, match=r"no parameter 'patch_sise'.*'patch_size'"):
        get_backend("diso")(patch_sise=8)
    with pytest.raises(ValueError, match="preset is 'slow'"):
        get_backend("diso")(preset="slow")
    with pytest.raises(ValueError, match="finest_scale is -1"):
        get_backend("diso")(finest_scale=-1)
    with pytest.raises(ValueError, match="its own data term"):
        get_backend("diso")()(reference, frame, const_assumption="cs")
    with pytest.raises(ValueError, match="gnc_schedule"):
        get_backend("diso")()(reference, frame, gnc_schedule=(0.0, 1.0))


# -------------------------------------------------------------------------------------- torch
@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch", reason="flowreg_torch needs torch (extra 'torch')")
    torch.set_num_threads(1)
    return torch


@pytest.mark.parametrize(
    "changes",
    [
        {"min_level": 3},
        {"min_level": 5, "const_assumption": "gray", "alpha": (0.05, 0.05)},
        {"min_level": 5, "const_assumption": "cs", "update_lag": 3, "a_data": (0.4, 0.6)},
        {"min_level": 5, "alpha": (3.0, 1.0), "weight": [0.8, 0.2]},
    ],
)
def test_torch_does_the_arithmetic_of_the_builtin_method(torch, frames, changes):
    options = {"iterations": 12, "alpha": (1.5, 1.5), **changes}
    start = np.full((40, 52, 2), 0.3, np.float32)
    function = get_backend("flowreg_torch")(device="cpu")
    flows = function.many(frames[0], frames[1:], uv=start, **options)
    for frame, flow in zip(frames[1:], flows, strict=True):
        expected = get_displacement(frames[0], frame, uv=start, **options)
        np.testing.assert_allclose(flow, expected, atol=5e-3)
        assert np.abs(expected).max() > 0.1
    one = function(frames[0], frames[1], uv=start, **options)
    np.testing.assert_allclose(one, flows[0], atol=1e-4)


def test_torch_registers_whole_frames_on_the_device(torch, recording, frames):
    video = recording.video
    low, high = intensity_range(video[0], True)
    function = pickle.loads(pickle.dumps(get_backend("flowreg_torch")(device="cpu")))
    options = {"iterations": 5, "min_level": 6, "alpha": (1.5, 1.5)}
    prepared = function.prepare(frames[0], None, **options)
    registered, flows = prepared.register(video[1:], video[0], low, high, (1, 1, 0))
    for position, raw in enumerate(video[1:]):
        expected = get_displacement(frames[0], frames[position + 1], **options)
        np.testing.assert_allclose(flows[position], expected, atol=5e-3)
        moved = warp(raw, flows[position], video[0])
        np.testing.assert_allclose(registered[position], moved, atol=1.0, rtol=1e-3)


def test_torch_corrects_a_recording_frames_together(torch, recording, quiet):
    settings = {"quality_setting": "fast", "iterations": 5}
    options = OFOptions(
        flow_backend="flowreg_torch",
        backend_params={"device": "cpu", "frames_at_once": 3},
        **settings,
    )
    video = recording.video
    ours, flow = compensate_arr(video, video[0], OFOptions(**settings), registration_config=quiet())
    registered, other = compensate_arr(video, video[0], options, registration_config=quiet())
    np.testing.assert_allclose(other, flow, atol=0.02)
    assert np.abs(registered - ours).mean() < 0.01 * ours.mean()


def test_torch_names_what_it_cannot_do(torch, frames):
    make = get_backend("flowreg_torch")
    with pytest.raises(ValueError, match="no parameter 'devise'"):
        make(devise="cpu")
    with pytest.raises(ValueError, match="use float32 or float64"):
        make(dtype="float16")
    with pytest.raises(ValueError, match="device is 'gpu0'"):
        make(device="gpu0")
    with pytest.raises(ValueError, match="no gnc_schedule"):
        make(device="cpu")(frames[0], frames[1], gnc_schedule=(0.0, 1.0))
    if not torch.cuda.is_available():
        with pytest.warns(UserWarning, match="using the CPU"):
            assert make(device="cuda").device == "cpu"


@pytest.mark.gpu
def test_torch_gives_the_same_on_a_cuda_device(torch, frames):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    options = {"iterations": 12, "min_level": 3, "alpha": (1.5, 1.5)}
    flows = get_backend("flowreg_torch")(device="cuda").many(frames[0], frames[1:], **options)
    for frame, flow in zip(frames[1:], flows, strict=True):
        np.testing.assert_allclose(flow, get_displacement(frames[0], frame, **options), atol=5e-3)
