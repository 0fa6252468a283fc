"""One writer for each output: the second is refused, or waits, and a dead one is recognised.

Beside an output, ``.scopeflow/NAME.lock`` holds one small file, which says who writes it. A file of
the next free number is created exclusively, whole, and only then is the folder looked through: who
finds a living file of somebody else withdraws. Since each looks after its own file stands there,
two never both go on, and since a number is taken once, one of those who come at the same time
does. Nothing but exclusive creation is needed, which network file systems have, and object stores
with conditional writes.

Who holds a lock touches its file all the while. A holder on this machine is dead when its process
is; one elsewhere, when its file was not touched for the time of the lease.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from scopeflow.engine.lock_files import LockFiles, lock_files
from scopeflow.errors import OutputLockedError
from scopeflow.io.files import sweep_partials, writing
from scopeflow.io.folders import refuse_existing
from scopeflow.io.locations import Location

__all__ = ["LEASE_S", "Lock", "one_writer", "only_writer_of_new"]

logger = logging.getLogger(__name__)

LEASE_S = 120.0
"""Seconds without a sign after which a holder on another machine counts as dead."""

_BEAT_S = 15.0
_ATTEMPTS = 200


@dataclass(frozen=True)
class Holder:
    """Who writes an output.

    `machine`: what tells machines, their starts and their containers apart, beside the name.
    `born`: when the process began, in a unit of that machine; process numbers are used again.
    """

    host: str
    machine: str
    pid: int
    born: float
    since: str
    token: str

    def encoded(self) -> bytes:
        """Return the content of a lock file."""
        return json.dumps(asdict(self)).encode()


def _holder(content: bytes) -> Holder | None:
    """Return who a lock file names; None for what is no lock file of ours."""
    try:
        facts = json.loads(content)
        return Holder(
            str(facts["host"]),
            str(facts["machine"]),
            int(facts["pid"]),
            float(facts["born"]),
            str(facts["since"]),
            str(facts["token"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


@dataclass(eq=False)
class Lock:
    """Locks that this run holds."""

    _held: list[_HeldFile]

    def check(self) -> None:
        """Refuse to go on after another run has taken over, since this one gave no sign for long.

        Raises OutputLockedError: names the output.
        """
        for one in self._held:
            if one.lost:
                raise OutputLockedError(
                    f"{one.target}: this run gave no sign for {LEASE_S:.0f} s or its lock was "
                    "removed, so another may write there now. Look whether one does, then run the "
                    "same command again"
                )


@contextlib.contextmanager
def one_writer(*targets: Location, wait: bool = False) -> Iterator[Lock]:
    """Be the only one who writes some outputs, until the block ends.

    A block inside another of the same thread may ask for what that holds.

    `wait`: for a run that writes there, instead of refusing.
    Raises OutputLockedError: another run writes there, and is named.
    Raises OutputError: the folder of an output cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from scopeflow.io.locations import location
    >>> target = location(tempfile.mkdtemp()) / "compensated.zarr"
    >>> with one_writer(target) as lock:
    ...     lock.check()
    ...     sorted(path.name for path in target.parent.glob(".scopeflow/*"))
    ['compensated.zarr.lock']
    >>> list(target.parent.iterdir())
    []
    """
    outside = _mine.get()
    wanted = {str(target): target for target in targets if str(target) not in outside}
    with contextlib.ExitStack() as stack:
        # In one order, so that no two runs wait for each other.
        held = [stack.enter_context(_hold(wanted[name], wait)) for name in sorted(wanted)]
        before = _mine.set(outside | wanted.keys())
        try:
            yield Lock(held)
        finally:
            _mine.reset(before)


@contextlib.contextmanager
def only_writer_of_new(paths: list[Path], *, overwrite: bool, wait: bool = False) -> Iterator[None]:
    """Be the only one who writes files or folders that do not exist yet, or may be replaced.

    Raises OutputExistsError: one of them exists.
    Raises OutputLockedError: another run writes one of them.
    """
    if not wait:
        refuse_existing(paths, overwrite)
    with one_writer(*paths, wait=wait):
        refuse_existing(paths, overwrite)
        for path in paths:
            sweep_partials(path)
        yield


_mine: ContextVar[frozenset[str]] = ContextVar("_mine", default=frozenset())


@dataclass(eq=False)
class _HeldFile:
    target: Location
    files: LockFiles
    number: int
    holder: Holder
    lost: bool = False

    def beat(self) -> None:
        """Give a sign, and notice when the file is not ours any more."""
        try:
            content = self.files.read(self.number)
            if content is None or _holder(content) != self.holder:
                self.lost = True
            elif _living(self.files, above=self.number) is not None:
                self.lost = True  # in a store without conditions, ours may have come back
            else:
                self.files.touch(self.number, content)
        except Exception:  # a store that cannot be reached now may be there at the next beat
            logger.debug("%s: no sign could be given", self.target, exc_info=True)


@contextlib.contextmanager
def _hold(target: Location, wait: bool) -> Iterator[_HeldFile]:
    files = lock_files(target)
    me = _myself()
    _tokens.add(me.token)
    try:
        with writing(target):
            held = _HeldFile(target, files, _acquire(target, files, me, wait), me)
        _heart.add(held)
        try:
            yield held
        finally:
            _heart.remove(held)
            # The output is done: what is left of its lock is no reason to fail, and seen as dead.
            with contextlib.suppress(Exception):
                if not held.lost:
                    files.remove(held.number)
                files.tidy()
    finally:
        _tokens.discard(me.token)


def _acquire(target: Location, files: LockFiles, me: Holder, wait: bool) -> int:
    """Return the number of the file that is ours now."""
    waiting = False
    for _ in range(_ATTEMPTS):
        while (other := _living(files)) is not None:
            if not wait:
                raise OutputLockedError(_refusal(target, *other))
            if not waiting:
                waiting = True
                logger.warning("Waiting: %s", _sentence(target, *other))
            time.sleep(files.look_s)
        number = max(files.numbers(), default=0) + 1
        if not files.create(number, me.encoded()):
            continue  # somebody was faster
        if _living(files, but=number) is None:
            # Files of the dead go once ours stands: who takes one of their numbers now sees ours.
            for old in files.numbers():
                if old != number:
                    files.remove(old)
            return number
        files.remove(number)
        time.sleep(random.uniform(0.01, 0.2))  # so that two do not meet again
    raise OutputLockedError(f"{target}: many runs want to write there at the same time. Try again")


def _living(
    files: LockFiles, but: int | None = None, above: int = 0
) -> tuple[Holder | None, float | None] | None:
    """Return who else holds a lock; None for nobody.

    With the seconds since its last sign, where this machine cannot see whether its process runs.
    `above`: of later holders only.
    """
    for number in sorted(files.numbers()):
        if number == but or number <= above:
            continue
        content = files.read(number)
        if content is None:
            continue  # it went away meanwhile
        holder, age = _holder(content), None
        if holder is None or holder.machine != _machine():
            age = files.age(number)
            alive = age < LEASE_S
        else:
            alive = _is_running(holder)
        if alive:
            return holder, age
    return None


def _sentence(target: Location, holder: Holder | None, age: float | None) -> str:
    if holder is None:
        who = "a run that cannot be told from its lock file"
    else:
        who = f"another run, process {holder.pid} on {holder.host}, since {holder.since}"
    heard = ""
    if age is not None:
        heard = f" (last sign {max(0.0, age):.0f} s ago; it counts as dead after {LEASE_S:.0f} s)"
    return f"{target} is being written by {who}{heard}"


def _refusal(target: Location, holder: Holder | None, age: float | None) -> str:
    return (
        f"{_sentence(target, holder, age)}. Let it end, wait for it with --wait (wait=True), or "
        "choose another output"
    )


_tokens: set[str] = set()
"""Locks that this process holds or asks for."""


def _is_running(holder: Holder) -> bool:
    if holder.pid == os.getpid():
        return holder.token in _tokens
    return _born(holder.pid) == holder.born


def _myself() -> Holder:
    pid = os.getpid()
    return Holder(
        socket.gethostname(),
        _machine(),
        pid,
        _born(pid) or 0.0,
        time.strftime("%Y-%m-%d %H:%M:%S"),
        os.urandom(8).hex(),
    )


@lru_cache(maxsize=1)
def _machine() -> str:
    """Return what two processes have in common when they can see each other."""
    facts = [socket.gethostname()]
    # Containers of one machine may share its name, and number their processes from 1.
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(facts)


def _born(pid: int) -> float | None:
    """Return when a process began; None if there is none, or it waits only to be forgotten."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if Path("/proc/self/stat").exists():
            # In ticks since the start of the machine: psutil's time moves when clocks are set.
            state, *fields = stat.read_text().rpartition(")")[2].split()
            return None if state in "ZX" else float(fields[18])
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time())
    except (OSError, psutil.Error, ValueError, IndexError):
        return None


class _Heart:
    """The thread that gives signs for all locks of this process, while there are any."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._held: list[_HeldFile] = []
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def add(self, held: _HeldFile) -> None:
        with self._changing:
            self._held.append(held)
            if self._thread is None or not self._thread.is_alive():
                self._wake = threading.Event()
                arguments: Any = (self._wake,)
                self._thread = threading.Thread(
                    target=self._run, args=arguments, name="scopeflow-lock", daemon=True
                )
                self._thread.start()

    def remove(self, held: _HeldFile) -> None:
        with self._changing:
            self._held.remove(held)
            if not self._held:
                self._wake.set()
                self._thread = None

    def _run(self, wake: threading.Event) -> None:
        while not wake.wait(_BEAT_S):
            with self._changing:
                held = list(self._held)
            for one in held:
                one.beat()


_heart = _Heart()
