"""A fork server: imports scopeflow once, then runs the real command in a forked child per case.

As a script it reads one request a line, as JSON, and answers each with one line. Children have a
process group, a memory limit and a time limit of their own, so that nothing that an input does
reaches the next case.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scopeflow

ROOT = Path(__file__).resolve().parents[2]
_SOURCES = Path(scopeflow.__file__).resolve().parents[1]
MEMORY_LIMIT = 6 * 2**30  # address space, bytes
TIME_LIMIT = 60.0
_KEPT = 20_000  # characters of each stream


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, negative for a signal, None if it had to be stopped."""

    code: int | None
    out: str
    err: str
    seconds: float


class ForkServer:
    """Runs commands of ``scopeflow`` in children of one warm process; a context manager."""

    def __init__(self, scratch: Path, *, time_limit: float = TIME_LIMIT) -> None:
        self._time_limit = time_limit
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(_SOURCES), str(ROOT), *sys.path]),
            "TMPDIR": str(scratch),
            "COLUMNS": "200",
            "NO_COLOR": "1",
            # Threads before a fork are what a fork server cannot have.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "NUMBA_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
            start_new_session=True,
        )
        self._answer()  # it is warm

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(TIME_LIMIT)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def run(self, words: Sequence[str], folder: Path) -> Ended:
        """Run ``scopeflow WORDS`` in a folder."""
        return self._ask({"words": list(words)}, folder)

    def call(self, function: str, *arguments: Any, folder: Path) -> Ended:
        """Call ``module:function`` with arguments that JSON has; an exception is a traceback."""
        return self._ask({"function": function, "arguments": arguments}, folder)

    def _ask(self, request: dict[str, Any], folder: Path) -> Ended:
        request |= {"folder": str(folder), "limit": self._time_limit}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Ended(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the fork server ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _warm() -> None:
    """Import everything that a command imports, and load its kernels; starts no thread."""
    for name in (
        "scopeflow.cli.app",
        "scopeflow.motion.correct",
        "scopeflow.motion.run",
        "scopeflow.sessions.run",
        "scopeflow.cells.workflow",
        "scopeflow.cells.results.merge",
        "scopeflow.io.open",
        "scopeflow.io.recording",
        "scopeflow.warm_up",
        "scipy.io",
        "tifffile",
        "h5py",
        "zarr",
        "numcodecs",
    ):
        importlib.import_module(name)
    for name in ("av", "nd2", "pandas", "pylibCZIrw.czi"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from scopeflow.warm_up import warm_up

    warm_up()


def _limit_memory() -> None:
    import resource

    with contextlib.suppress(ValueError, OSError):  # not every system limits address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _do(request: dict[str, Any]) -> None:
    if "function" in request:
        module, name = request["function"].split(":")
        getattr(importlib.import_module(module), name)(*request["arguments"])
        return
    sys.argv = ["scopeflow", *request["words"]]
    from scopeflow.cli.app import main

    main()


def _child(request: dict[str, Any], out: int, err: int) -> None:
    """Become the command; never returns."""
    code = 70
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, number in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(descriptor, number)
        # Streams of Python that belong to these descriptors, whatever the parent did with its own.
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
            for number in (1, 2)
        )
        os.chdir(request["folder"])
        os.environ["HOME"] = request["folder"]
        _limit_memory()
        try:
            _do(request)
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(child: int, limit: float) -> int | None:
    """Return the exit code of a child, or None after it had to be killed."""
    end, pause = time.monotonic() + limit, 0.001
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(pause)
        pause = min(pause * 1.3, 0.02)


def _text(file: Any) -> str:
    file.seek(0)
    text: str = file.read(_KEPT * 4).decode("utf-8", "backslashreplace")
    return text if len(text) <= _KEPT else text[: _KEPT // 2] + "\n…\n" + text[-_KEPT // 2 :]


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    _warm()
    answer({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        if "function" in request:
            # Once here, and not in every child; it starts no thread either.
            module = request["function"].partition(":")[0]
            importlib.import_module(module)
            if module.startswith("tests.faults."):
                importlib.import_module("tests.faults.workloads")
        started = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                _child(request, out.fileno(), err.fileno())
            code = _wait(child, request["limit"])
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)  # what the command may have left behind
            seconds = time.monotonic() - started
            answer({"code": code, "out": _text(out), "err": _text(err), "seconds": seconds})


if __name__ == "__main__":
    _serve()
