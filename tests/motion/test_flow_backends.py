"""The backend `diso`: right on known motion, and clear about what it cannot do."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from scopeflow import OFOptions, compensate_arr
from scopeflow.flow.backends.registry import get_backend
from scopeflow.testing.synthetic import synthetic_recording


@pytest.fixture(scope="module")
def shifted():
    image = synthetic_recording(1, 112, 116, 1, seed=5, photons=None).frame(0)
    return image[8:104, 8:108], image[10:106, 5:105], np.array([3, -2], np.float32)


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
