"""Text of others where it is shown: nothing in it moves a cursor, breaks a line or is computed."""

from __future__ import annotations

import re

_CONTROL = re.compile(
    # C0, C1, what turns the direction of text around, other line ends, halves of characters.
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_BREAKS = re.compile(r"[ \t]*[\n\r\v\f\x85\u2028\u2029]+\s*|\t")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: str) -> str:
    r"""Return a text whose control characters are written as escapes.

    Examples
    --------
    >>> visible("red\x1b[31m\n")
    'red\\x1b[31m\\n'
    """
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def one_line(text: str) -> str:
    r"""Return a message as one line: blanks in place of line ends, other controls as escapes.

    Examples
    --------
    >>> one_line("first\n  second\x07")
    'first second\\x07'
    """
    return visible(_BREAKS.sub(" ", text).strip())


def defused(text: str) -> str:
    r"""Return a cell of a table that spreadsheet programs take for text.

    What they would take for a formula begins with an apostrophe, which they do not show. Numbers
    stay as they are.

    Examples
    --------
    >>> defused("=1+1"), defused("-1.5"), defused("cell 1\n")
    ("'=1+1", '-1.5', 'cell 1\\n')
    """
    if text.lstrip(" ").startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        text = "'" + text
    return visible(text)
