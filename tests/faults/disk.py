"""A disk whose power may fail: follows what of a folder is safe at every step of a run.

The content of a file is safe as it was at its last sync; names in a folder are safe as they were
when that folder was last synced. Nothing else is promised by POSIX, whatever some file systems do.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.workloads import LOG, run

State = dict[str, tuple[bytes, int] | None]
"""Path: content and time of change, or None for a folder."""

_RESTART_NS = 600 * 10**9
NAMES_LOST = "names lost"  # all that no folder has synced is undone, also removals
CONTENT_LOST = "content lost"  # all names stand, content that was not synced has 0 bytes
CONTENT_TORN = "content torn"  # as before, but the first half of it arrived


@dataclass(frozen=True)
class Moment:
    """One state that a power cut may leave: after which step, and what of the rest is lost.

    `completed`: pieces of work that had been recorded by then.
    """

    number: int
    step: str
    loss: str
    state: State
    completed: tuple[str, ...] = ()


class Disk:
    """What of a folder is safe; learns of it by wrapping functions of `os` in this process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.moments: list[Moment] = []
        self.last: list[Moment] = []
        self._lock = threading.RLock()
        self._numbers: dict[tuple[int, int], int] = {}
        self._next = 0
        self._content: dict[int, tuple[bytes, int]] = {}  # of each file, when last synced
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}  # of each folder, likewise
        self._read: dict[tuple[int, int, int], bytes] = {}
        self._known: set[int] = set()
        self._steps = 0
        self._sync_all()

    # Every file has a number of its own: inodes are used again as soon as one is free.
    def _number(self, found: os.stat_result) -> int:
        key = (found.st_dev, found.st_ino)
        if key not in self._numbers:
            self._numbers[key] = self._next
            self._next += 1
        return self._numbers[key]

    def _forget(self, path: Any, dir_fd: int | None) -> None:
        try:
            found = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        except OSError:
            return
        if stat.S_ISDIR(found.st_mode) or found.st_nlink == 1:
            self._numbers.pop((found.st_dev, found.st_ino), None)

    def _now(self, path: str, found: os.stat_result) -> bytes:
        key = (self._number(found), found.st_mtime_ns, found.st_size)
        if key not in self._read:
            with open(path, "rb") as file:
                self._read[key] = file.read()
        return self._read[key]

    def _sync_all(self) -> None:
        self._sync(str(self.root))
        for folder, folders, names in os.walk(self.root):
            for name in (*folders, *names):
                self._sync(os.path.join(folder, name))

    def _sync(self, path: str) -> None:
        found = os.stat(path, follow_symlinks=False)
        number = self._number(found)
        if stat.S_ISDIR(found.st_mode):
            self._names[number] = {
                one.name: (
                    self._number(one.stat(follow_symlinks=False)),
                    one.is_dir(follow_symlinks=False),
                )
                for one in os.scandir(path)
            }
        elif stat.S_ISREG(found.st_mode):
            self._content[number] = (self._now(path, found), found.st_mtime_ns)

    def _safe(
        self, folder: int, prefix: str = ""
    ) -> Iterator[tuple[str, tuple[bytes, int] | None]]:
        for name, (number, is_folder) in self._names.get(folder, {}).items():
            if is_folder:
                yield prefix + name, None
                yield from self._safe(number, f"{prefix}{name}/")
            else:
                yield prefix + name, self._content.get(number, (b"", 0))

    def _live(self, torn: bool) -> State:
        state: State = {}
        for folder, folders, names in os.walk(self.root):
            prefix = os.path.relpath(folder, self.root)
            prefix = "" if prefix == "." else f"{prefix}/"
            state |= dict.fromkeys((f"{prefix}{name}" for name in folders), None)
            for name in names:
                path = os.path.join(folder, name)
                found = os.stat(path, follow_symlinks=False)
                if not stat.S_ISREG(found.st_mode):
                    continue
                content, safe = self._now(path, found), self._content.get(self._number(found))
                if torn and (safe is None or safe[0] != content):
                    rest = b"" if safe is None else safe[0][len(content) // 2 :]
                    safe = (content[: len(content) // 2] + rest, found.st_mtime_ns)
                state[prefix + name] = safe or (b"", found.st_mtime_ns)
        return state

    def _step(self, step: str) -> None:
        self._steps += 1
        log = self.root.parent / LOG
        done = tuple(log.read_text().splitlines()) if log.exists() else ()
        self.last = [
            Moment(self._steps, step, loss, state, done)
            for loss, state in (
                (NAMES_LOST, dict(self._safe(self._number(os.stat(self.root))))),
                (CONTENT_LOST, self._live(torn=False)),
                (CONTENT_TORN, self._live(torn=True)),
            )
        ]
        for moment in self.last:
            plain = frozenset((path, one and one[0]) for path, one in moment.state.items())
            mark = hash(plain)
            if mark not in self._known:
                self._known.add(mark)
                self.moments.append(moment)

    def watch(self) -> None:
        """Begin to follow this process: all functions of `os` that change names or sync."""
        self._step("nothing")
        for name in ("replace", "rename", "mkdir", "unlink", "remove", "rmdir", "link"):
            setattr(os, name, self._changing(name, getattr(os, name)))
        for name in ("fsync", "fdatasync"):
            setattr(os, name, self._syncing(name, getattr(os, name)))
        os.sync = self._syncing_all("sync", os.sync)
        # Functions of the system that Python has no name for are found through ctypes.
        find = ctypes.CDLL.__getattr__

        def found(library: ctypes.CDLL, name: str) -> Any:
            function = find(library, name)
            return self._syncing_all(name, function) if name in ("syncfs", "sync") else function

        ctypes.CDLL.__getattr__ = found

    def _changing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*words: Any, **more: Any) -> Any:
            with self._lock:
                if name in ("unlink", "remove", "rmdir"):
                    before = dict(self._numbers)
                    self._forget(words[0], more.get("dir_fd"))
                    try:
                        result = function(*words, **more)
                    except BaseException:
                        self._numbers = before  # it stands
                        raise
                else:
                    if name in ("replace", "rename"):
                        self._forget(words[1], more.get("dst_dir_fd"))
                    result = function(*words, **more)
                target = words[1] if name in ("replace", "rename", "link") else words[0]
                self._step(f"{name} {os.path.basename(os.fspath(target))}")
                return result

        return changed

    def _syncing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def synced(descriptor: Any) -> Any:
            with self._lock:
                result = function(descriptor)
                number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
                path = os.readlink(f"/proc/self/fd/{number}")
                inside = path == str(self.root) or path.startswith(f"{self.root}{os.sep}")
                if inside and os.path.exists(path):
                    self._sync(path)
                    self._step(f"{name} {os.path.basename(path)}")
                return result

        return synced

    def _syncing_all(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def synced(*words: Any) -> Any:
            with self._lock:
                result = function(*words)
                self._sync_all()
                self._step(name)
                return result

        return synced


def record(name: str, inputs: str, root: str, target: str) -> None:
    """Do a workload, and write every state that a power cut could leave, as a pickle."""
    disk = Disk(Path(root))
    disk.watch()
    run(name, inputs, root)
    Path(target).write_bytes(pickle.dumps((disk.moments, disk.last)))


def restore(state: State, root: Path) -> None:
    """Make a folder what a power cut left of it."""
    shutil.rmtree(root)
    root.mkdir()
    for name in sorted(state):
        held, path = state[name], root / name
        if held is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(held[0])
        # The machine starts again minutes later: what was a sign of life is an old one.
        changed = held[1] - (_RESTART_NS if ".lock/" in name else 0)
        os.utime(path, ns=(changed, changed))
