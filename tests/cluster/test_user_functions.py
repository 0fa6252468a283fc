"""A displacement function of the user is the one that runs, wherever blocks are computed."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from scopeflow import OFOptions, RegistrationConfig, compensate_arr


@pytest.fixture(scope="module")
def video():
    return np.random.default_rng(0).integers(50, 200, (5, 16, 20)).astype(np.uint16)


def configurations(client):
    yield RegistrationConfig(parallelization="sequential", progress=False)
    yield RegistrationConfig(parallelization="threading", n_jobs=2, progress=False)
    yield RegistrationConfig(client=client, progress=False, block_length=2)


def test_functions_and_factories_run_on_every_scheduler(cluster_client, video):
    # Defined here, so that workers cannot import them.
    def constant(reference, moving, *, uv, weight, **parameters):
        return np.full((*reference.shape[:2], 2), (1.0, parameters["iterations"]))

    def factory(shift=0.0):
        return lambda reference, moving, **_: np.full((*reference.shape[:2], 2), shift)

    options = OFOptions(iterations=3, quality_setting="fast", buffer_size=2)
    for config in configurations(cluster_client):
        registered, flow = compensate_arr(
            video, video[0], options, get_displacement=constant, registration_config=config
        )
        assert (flow == (1, 3)).all()
        np.testing.assert_array_equal(registered[:, :-3, :-1], video[:, 3:, 1:])
        _, flow = compensate_arr(
            video,
            video[0],
            options,
            get_displacement_factory=factory,
            backend_params={"shift": 2.0},
            registration_config=config,
        )
        assert (flow == 2).all()


def test_a_function_that_cannot_travel_is_named(cluster_client, video):
    lock = threading.Lock()

    def locked(reference, moving, **_):
        with lock:
            return np.zeros((*reference.shape[:2], 2))

    config = RegistrationConfig(client=cluster_client, progress=False)
    with pytest.raises(ValueError, match=r"get_displacement cannot be sent to workers.*lock"):
        compensate_arr(video, video[0], get_displacement=locked, registration_config=config)
    here = RegistrationConfig(parallelization="threading", progress=False)
    _, flow = compensate_arr(video, video[0], get_displacement=locked, registration_config=here)
    assert not flow.any()
