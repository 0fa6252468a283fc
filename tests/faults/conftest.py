from __future__ import annotations

import os

import pytest

from tests.faults.place import Place
from tests.fuzz.server import ForkServer

# Faults are injected into children that are forked, and looked at by way of /proc.
if not os.path.isdir("/proc/self/fd"):
    collect_ignore_glob = ["test_power_loss.py", "test_io_errors.py"]


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory):
    with ForkServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def place(tmp_path_factory, fork_server):
    return Place(tmp_path_factory.mktemp("workloads").resolve(), fork_server)


@pytest.fixture(scope="module")
def calls(place, tmp_path_factory):
    """Return the calls of the system that an undisturbed run makes in its folder."""
    known = {}

    def counted(name):
        if name not in known:
            target = tmp_path_factory.mktemp("calls") / "calls"
            place.prepare(name)
            ended = place.run(name, "tests.faults.hooks:counted", str(target))
            assert ended.code == 0, ended.err
            known[name] = target.read_text().splitlines()
        return known[name]

    return counted
