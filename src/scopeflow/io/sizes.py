"""Sizes as people read them."""

from __future__ import annotations

__all__ = ["bytes_text"]


def bytes_text(count: float) -> str:
    """Return a number of bytes in the unit that fits it, three digits.

    Examples
    --------
    >>> [bytes_text(n) for n in (0, 4096, 2_500_000, 3.21e9)]
    ['0 bytes', '4.1 kB', '2.5 MB', '3.21 GB']
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{int(count)} bytes"
