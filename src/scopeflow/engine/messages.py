"""Log messages of a run: how many of them the user sees."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

_package = logging.getLogger("scopeflow")
_changing = threading.Lock()
_wanted = 0
_level_before = logging.NOTSET


@contextlib.contextmanager
def debug_messages() -> Iterator[None]:
    """Let debug messages of the package through; of several runs at once, until the last ends."""
    global _wanted, _level_before
    with _changing:
        if _wanted == 0:
            _level_before = _package.level
            _package.setLevel(logging.DEBUG)
        _wanted += 1
    try:
        yield
    finally:
        with _changing:
            _wanted -= 1
            if _wanted == 0:
                _package.setLevel(_level_before)
