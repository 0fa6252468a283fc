"""Range text such as ``"0-5, 7"`` to sorted numbers; knows nothing of what they number."""

from __future__ import annotations

import re
from collections.abc import Iterable

from scopeflow.errors import OptionsError
from scopeflow.strict.values import is_integer, plain

__all__ = ["parse_ranges"]


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
        raise OptionsError(f"{name}: {given!r} is no number; write numbers such as '0-5, 7'")
    if isinstance(given, int):
        given = [given]
    if not isinstance(given, str):
        numbers = list(given)
        for number in numbers:
            if not is_integer(number) or number < 0:
                raise OptionsError(f"{name}: {number!r} is no number from 0; write [0, 1, 7]")
        if not numbers:
            raise OptionsError(f"{name}: the list is empty; name at least one number")
        return tuple(sorted({int(number) for number in numbers}))
    if not given.strip():
        raise OptionsError(f"{name}: the text is empty; write numbers such as '0-5, 7'")
    chosen: set[int] = set()
    for part in given.split(","):
        text = re.sub(r"\s+", "", part)
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", text, re.ASCII)
        if match is None:
            raise OptionsError(
                f"{name}: {part.strip()!r} in {given!r} is neither a number from 0 nor a range; "
                "write numbers and ranges a-b with commas between, such as '0-5, 7'"
            )
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise OptionsError(f"{name}: the range {text!r} falls; write '{last}-{first}'")
        chosen.update(range(first, last + 1))
    return tuple(sorted(chosen))
