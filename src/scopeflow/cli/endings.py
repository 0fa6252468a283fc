"""How a command ends: one message for every failure and signal, and its exit code."""

from __future__ import annotations

import logging
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from scopeflow.cli.terminal import Terminal, complain
from scopeflow.errors import ScopeflowError

INTERRUPTED = "interrupted; run the same command again to resume"
TERMINATED = "terminated; run the same command again to resume"

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # SIGHUP: the terminal was closed; Windows has none


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end; everything stops as it does by Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let signals that ask the process to end stop what runs, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # One that is ignored stays so: nohup.
    taken = [number for number in _SIGNALS if signal.getsignal(number) == signal.SIG_DFL]

    def end(number: int, _: FrameType | None) -> None:
        # Batch systems repeat themselves; what is being put away now is not disturbed.
        for each in taken:
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def report(error: BaseException, debug: bool) -> int:
    """Say on standard error why a command ends; return its exit code."""
    if debug:
        Terminal(stderr=True, soft_wrap=True).print(
            "".join(traceback.format_exception(error)), soft_wrap=True, highlight=False
        )
    if isinstance(error, Terminated):
        complain(TERMINATED)
        return 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        complain(INTERRUPTED)
        return 130
    expected = isinstance(error, (ScopeflowError, OSError, MemoryError, ImportError))
    reason = _reason(error)
    if expected:
        complain(f"error: {reason}")
    else:
        again = "" if debug else "; run the same command with --debug to see where"
        complain(
            f"error: unexpected {type(error).__name__}: {reason}. This is a mistake in scopeflow "
            f"or in a package that it uses{again}"
        )
    return 1


def _reason(error: BaseException) -> str:
    try:
        return str(error).strip() or type(error).__name__
    except Exception:  # errors of others may have no text
        return type(error).__name__


@contextmanager
def quiet_threads(debug: bool) -> Iterator[None]:
    """Say what ends a thread in one line, as all else that fails."""
    before = threading.excepthook

    def show(failed: Any) -> None:
        if debug:
            before(failed)
        else:
            logging.getLogger(__name__).warning(
                "a thread ended: %s: %s", failed.exc_type.__name__, _reason(failed.exc_value)
            )

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = before
