"""One session on every scheduler: always the same bytes in every file."""

from __future__ import annotations

import shutil

import pytest

from scopeflow import RegistrationConfig, SessionConfig, run_session
from tests.faults.test_session_kill import contents
from tests.sessions.session_data import true_session, write_session


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("session")
    write_session(true_session(frames=9, height=48, width=64, channels=2, count=3), folder)
    return folder


def run(root, **execution):
    for name in ("compensated_outputs", "final_results"):
        shutil.rmtree(root / name, ignore_errors=True)
    config = SessionConfig(
        root=root,
        center="auto",
        flow_options={"quality_setting": "fast", "iterations": 10, "buffer_size": 4},
    )
    run_session(config, execution=RegistrationConfig(progress=False, **execution))
    return contents(root)


@pytest.fixture(scope="module")
def expected(root):
    return run(root, parallelization="sequential")


@pytest.mark.parametrize(
    "execution",
    [
        {"parallelization": "threading", "n_jobs": 2},
        {"parallelization": "threading", "n_jobs": 5, "block_length": 2},
        {"parallelization": "multiprocessing", "n_jobs": 2},
    ],
    ids=lambda execution: "-".join(map(str, execution.values())),
)
def test_schedulers_of_this_machine(root, expected, execution):
    assert run(root, **execution) == expected


def test_a_cluster(root, expected, cluster_client):
    assert run(root, client=cluster_client) == expected
