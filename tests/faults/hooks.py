"""What happens at the calls of the system that a run makes: counted, failed, or held up.

Everything that Python code does to files passes through a few functions; those are wrapped in the
process of a run. What libraries in C do by themselves is not seen.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FUNCTIONS = (
    *("open", "replace", "rename", "mkdir", "unlink", "rmdir", "link", "fsync", "listdir"),
    *("scandir", "write"),
)

Seen = Callable[[str, str], None]


def watch(root: str, seen: Seen) -> None:
    """Call a function, with the name of the call and its path, before each that concerns a folder.

    Writing counts for Python's own files: each `write` of a stream that was opened in the folder.
    """

    def concerns(value: Any) -> str | None:
        if isinstance(value, int):
            try:
                value = os.readlink(f"/proc/self/fd/{value}")
            except OSError:
                return None
        try:
            path = os.path.abspath(os.fspath(value))
        except (TypeError, ValueError):
            return None
        inside = isinstance(path, str) and (path == root or path.startswith(root + os.sep))
        return path if inside else None

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **more: Any) -> Any:
            for word in words[:2]:
                path = concerns(word)
                if path is not None:
                    seen(name, path)
                    break
            return function(*words, **more)

        return call

    class Stream(io.FileIO):
        """A file whose writes are seen."""

        def write(self, data: Any) -> int | None:
            seen("write", str(self.name))
            return super().write(data)

    opened = io.open

    def open_(file: Any, mode: str = "r", *words: Any, **more: Any) -> Any:
        path = concerns(file)
        if path is None or isinstance(file, int):
            return opened(file, mode, *words, **more)
        seen("open", path)
        if "b" not in mode or not set(mode) & set("wax+"):
            return opened(file, mode, *words, **more)
        raw = Stream(file, mode.replace("b", ""))
        buffering = words[0] if words else more.get("buffering", -1)
        if buffering == 0:
            return raw
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    for name in FUNCTIONS:
        setattr(os, name, wrapped(name, getattr(os, name)))
    builtins.open = io.open = open_


def _run(name: str, inputs: str, root: str, wait: bool = False) -> None:
    from tests.faults.workloads import run

    run(name, inputs, root, wait)


def counted(name: str, inputs: str, root: str, target: str) -> None:
    """Do a workload, and write the names of all calls, one a line."""
    calls: list[str] = []
    watch(root, lambda call, path: calls.append(f"{call} {path}"))
    _run(name, inputs, root)
    Path(target).write_text("\n".join(calls))


def failing(name: str, inputs: str, root: str, number: int, code: str) -> None:
    """Do a workload whose call of this number, from 0, ends with an error of the system."""
    count = [0]

    def seen(call: str, path: str) -> None:
        count[0] += 1
        if count[0] == number + 1:
            value = getattr(errno, code)
            raise OSError(value, os.strerror(value), path)

    watch(root, seen)
    _run(name, inputs, root)


def killed(name: str, inputs: str, root: str, number: int) -> None:
    """Do a workload that is killed before the call of this number."""
    count = [0]

    def seen(call: str, path: str) -> None:
        count[0] += 1
        if count[0] == number + 1:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(root, seen)
    _run(name, inputs, root)


def held_up(name: str, inputs: str, root: str, number: int, folder: str) -> None:
    """Do a workload that stops before the call of this number until told to go on.

    It writes its process number to ``stopped`` in a folder, and waits for ``go`` there.
    """
    count, place = [0], Path(folder)

    def seen(call: str, path: str) -> None:
        count[0] += 1
        if count[0] == number + 1:
            (place / "stopped.part").write_text(str(os.getpid()))
            (place / "stopped.part").rename(place / "stopped")
            while not (place / "go").exists():
                time.sleep(0.01)

    watch(root, seen)
    _run(name, inputs, root)


def together(name: str, inputs: str, root: str, count: int) -> None:
    """Do a workload in many processes that begin at the same moment; print how each ended."""
    gate_out, gate_in = os.pipe()
    ends = []
    for _ in range(count):
        out, into = os.pipe()
        if os.fork() == 0:
            os.dup2(into, 2)
            os.close(gate_in)
            os.read(gate_out, 1)
            code = 1
            try:
                _run(name, inputs, root)
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os.write(into, f"exit {code}\n".encode())
                os._exit(code)
        os.close(into)
        ends.append(out)
    os.close(gate_out)
    os.close(gate_in)  # all of them read the end of the pipe now
    for out in ends:
        with os.fdopen(out) as stream:
            print(stream.read().replace("\n", " | "))
