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
