"""Range text such as ``"0-5, 7"`` to sorted numbers; knows nothing of what they number."""

from __future__ import annotations

import re
from collections.abc import Iterable

from scopeflow.errors import OptionsError
from scopeflow.strict.values import is_integer, is_sequence, plain, shortened

__all__ = ["parse_ranges"]

_MOST = 1_000_000


def parse_ranges(given: str | int | Iterable[int], name: str = "fovs") -> tuple[int, ...]:
    """Return the numbers that a range text names, sorted, each once.

    Numbers and inclusive ranges ``a-b`` are separated by commas; blanks do not matter. `name` says
    in messages what the numbers are.

    Raises OptionsError: for an empty text, an open or falling range, a negative number or another
        separator.

    Examples
    --------
    >>> parse_ranges("0-3, 7, 2")
    (0, 1, 2, 3, 7)
    """
    given = plain(given)
    if isinstance(given, (bool, float)):
        raise OptionsError(
            f"{name}: {shortened(given)} is no number; write numbers such as '0-5, 7'"
        )
    if isinstance(given, int):
        given = [given]
    if not isinstance(given, str):
        if not is_sequence(given) and not isinstance(given, (set, frozenset)):
            raise OptionsError(
                f"{name}: {shortened(given)} names no numbers; write such as '0-5, 7'"
            )
        numbers = list(given)
        for number in numbers:
            if not is_integer(number) or number < 0:
                raise OptionsError(
                    f"{name}: {shortened(number)} is no number from 0; write [0, 1, 7]"
                )
        if not numbers:
            raise OptionsError(f"{name}: the list is empty; name at least one number")
        return tuple(sorted({int(number) for number in numbers}))
    if not given.strip():
        raise OptionsError(f"{name}: the text is empty; write numbers such as '0-5, 7'")
    chosen: set[int] = set()
    for part in given.split(","):
        text = re.sub(r"\s+", "", part)
        # Numbers of more digits than any count has.
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text, re.ASCII)
        if match is None:
            raise OptionsError(
                f"{name}: {shortened(part.strip())} in {shortened(given)} is neither a "
                "number from 0 nor a range; "
                "write numbers and ranges a-b with commas between, such as '0-5, 7'"
            )
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise OptionsError(f"{name}: the range {shortened(text)} falls; write '{last}-{first}'")
        if last - first >= _MOST:
            raise OptionsError(f"{name}: the range {shortened(text)} has more than {_MOST} numbers")
        chosen.update(range(first, last + 1))
    return tuple(sorted(chosen))
