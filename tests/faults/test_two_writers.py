"""Two runs on one output: one works, the other is told who, waits, or takes over from the dead."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import threading
import time

import pytest

from scopeflow.errors import OutputError
from tests.faults.workloads import USUAL, WORKLOADS, contents
from tests.fuzz.server import ForkServer

REFUSED = re.compile(r"^error: .*\bis being written by another run, process (\d+) on (\S+),")


@pytest.fixture(scope="module")
def other_server(tmp_path_factory):
    with ForkServer(tmp_path_factory.mktemp("other")) as running:
        yield running


class First:
    """A run that stops before one of its calls, in a process of its own."""

    def __init__(self, server, place, name, number, folder):
        self._folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        words = (name, str(place.inputs), str(place.root), number, str(folder))
        self._ended = []

        def run():
            self._ended.append(
                server.call("tests.faults.hooks:held_up", *words, folder=place.root.parent)
            )

        self._thread = threading.Thread(target=run)
        self._thread.start()
        while not (folder / "stopped").exists() and self._thread.is_alive():
            time.sleep(0.005)
        assert (folder / "stopped").exists(), self._ended
        self.pid = int((folder / "stopped").read_text())

    def go_on(self):
        (self._folder / "go").touch()
        self._thread.join()
        return self._ended[0]

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self._thread.join()


def begin(place, other_server, name, number, tmp_path):
    place.expected(name)
    place.prepare(name)
    return First(other_server, place, name, number, tmp_path / "signals")


def middle(calls):
    """Return a call that writes, in the middle of the run."""
    writes = [n for n, call in enumerate(calls) if call.startswith("replace ")]
    return writes[len(writes) // 2]


def test_a_locked_output_is_an_error_of_outputs():
    from scopeflow.errors import OutputLockedError

    assert issubclass(OutputLockedError, OutputError)


@pytest.mark.parametrize("name", USUAL)
def test_the_second_is_refused_and_told_who(place, calls, other_server, tmp_path, name):
    first = begin(place, other_server, name, middle(calls(name)), tmp_path)
    try:
        second = place.run(name)
    finally:
        ended = first.go_on()
    assert second.code == 1, second.out
    told = REFUSED.match(second.err.splitlines()[-1])
    assert told is not None, second.err
    assert told.groups() == (str(first.pid), socket.gethostname())
    assert len([line for line in second.err.splitlines() if line.startswith("error")]) == 1
    assert ended.code == 0, ended.err
    assert contents(place.root) == place.expected(name)


@pytest.mark.parametrize("name", USUAL)
def test_the_second_may_wait(place, calls, other_server, tmp_path, name):
    first = begin(place, other_server, name, middle(calls(name)), tmp_path)
    timer = threading.Timer(0.5, (tmp_path / "signals" / "go").touch)
    timer.start()
    second = place.run(name, "tests.faults.workloads:run", True)
    ended = first.go_on()
    timer.join()
    assert (ended.code, second.code) == (0, 0), ended.err + second.err
    assert contents(place.root) == place.expected(name)


@pytest.mark.parametrize("name", USUAL)
def test_a_killed_run_keeps_nobody_out(place, calls, other_server, tmp_path, name):
    first = begin(place, other_server, name, middle(calls(name)), tmp_path)
    first.kill()
    second = place.run(name)
    assert second.code == 0, second.err
    assert contents(place.root) == place.expected(name)


def race(place, other_server, name, number, tmp_path):
    """The first is held up as by a slow disk; whichever works, both may not."""
    first = begin(place, other_server, name, number, tmp_path)
    try:
        second = place.run(name)
    finally:
        ended = first.go_on()
    for run in (ended, second):
        assert run.code == 0 or REFUSED.match(run.err.splitlines()[-1]), run.err
    assert 0 in (ended.code, second.code)
    assert contents(place.root) == place.expected(name)


@pytest.mark.parametrize(
    "share", [0.02, 0.2, *(pytest.param(n, marks=pytest.mark.fuzz) for n in (0.0, 0.05, 0.1, 0.9))]
)
@pytest.mark.parametrize("name", ["correct to zarr", "cells"])
def test_held_up_between_looking_and_creating(place, calls, other_server, tmp_path, name, share):
    race(place, other_server, name, int(share * len(calls(name))), tmp_path)


@pytest.mark.fuzz
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", WORKLOADS)
def test_held_up_anywhere(place, calls, other_server, tmp_path, name):
    count = len(calls(name))
    for number in sorted({*range(0, min(30, count), 2), *range(0, count, max(1, count // 25))}):
        race(place, other_server, name, number, tmp_path)


@pytest.mark.parametrize(
    "name", ["correct to zarr", "correct to HDF5", "session", "cells", "motion"]
)
def test_ten_at_the_same_time(place, name):
    place.expected(name)
    place.prepare(name)
    ended = place.run(name, "tests.faults.hooks:together", 10)
    lines = ended.out.splitlines()
    assert len(lines) == 10, ended.err
    worked = [line for line in lines if "exit 0" in line]
    assert worked, lines
    for line in lines:
        last = line.removesuffix(" | ").split(" | ")
        assert line in worked or REFUSED.match(last[-2]), line
    assert contents(place.root) == place.expected(name)
