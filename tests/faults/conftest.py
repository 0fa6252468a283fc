from __future__ import annotations

import os

import pytest

from tests.faults.workloads import contents, prepare, write_inputs
from tests.fuzz.server import ForkServer

# Faults are injected into children that are forked, and looked at by way of /proc.
if not os.path.isdir("/proc/self/fd"):
    collect_ignore_glob = ["test_power_loss.py", "test_io_errors.py"]


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory):
    with ForkServer(tmp_path_factory.mktemp("server")) as running:
        yield running


class Place:
    """Inputs and the folder of a workload, the same for every run; what an undisturbed one made."""

    def __init__(self, folder, server):
        self.inputs, self.root = folder / "inputs", folder / "root"
        self._server = server
        self._expected = {}
        write_inputs(self.inputs)

    def run(self, name, function="tests.faults.workloads:run", *more):
        words = (name, str(self.inputs), str(self.root), *more)
        return self._server.call(function, *words, folder=self.root.parent)

    def prepare(self, name):
        prepare(name, self.inputs, self.root)

    def expected(self, name):
        if name not in self._expected:
            self.prepare(name)
            ended = self.run(name)
            assert ended.code == 0, ended.err
            self._expected[name] = contents(self.root)
        return self._expected[name]


@pytest.fixture(scope="session")
def place(tmp_path_factory, fork_server):
    return Place(tmp_path_factory.mktemp("workloads").resolve(), fork_server)
