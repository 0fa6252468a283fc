"""What became of one bad input: the kinds that the table counts, and which of them are allowed."""

from __future__ import annotations

import re
from enum import StrEnum

from tests.fuzz.server import Ended


class Verdict(StrEnum):
    """Kinds of endings; the names are the columns of the table."""

    ACCEPTED = "accepted"  # exit 0, and the same bytes where they can be compared
    CLEAR = "clear error"  # exit 1 or 2 and one message
    UNCLEAR = "unclear"  # no message, several, or "out of memory" alone
    WRONG = "wrong bytes"  # exit 0 and not the bytes of an undisturbed run
    TRACEBACK = "traceback"
    HANG = "hang"
    CRASH = "crash"
    EXECUTED = "ran code"


ALLOWED = frozenset({Verdict.ACCEPTED, Verdict.CLEAR})

# Tells neither which file it was nor what to do.
_MEMORY = re.compile(r"^error: (MemoryError|Unable to allocate|.*bad_alloc)", re.MULTILINE)


def verdict_of(ended: Ended, *, executed: bool) -> Verdict:
    """Say what an ending was, from exit code and messages."""
    if executed:
        return Verdict.EXECUTED
    if ended.code is None:
        return Verdict.HANG
    if ended.code < 0:
        return Verdict.CRASH
    if "Traceback (most recent call last)" in ended.err + ended.out:
        return Verdict.TRACEBACK
    if ended.code == 0:
        return Verdict.ACCEPTED
    if ended.code not in (1, 2) or _MEMORY.search(ended.err):
        return Verdict.UNCLEAR
    return Verdict.CLEAR if messages(ended) == 1 else Verdict.UNCLEAR


def messages(ended: Ended) -> int:
    """Return how many errors standard error tells of."""
    lines = [line for line in ended.err.splitlines() if line.strip()]
    if ended.code == 2:  # wrong usage is told in a box, below the usage
        return sum(line.startswith(("╭─ Error", "Error:")) for line in lines)
    return sum(line.startswith("error: ") for line in lines)
