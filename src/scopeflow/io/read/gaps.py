"""What is said and done about pixels that a file lacks, the same for every format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from math import prod

from scopeflow.errors import InputError, MemoryLimitError, UnreadableFileError
from scopeflow.strict.values import excerpt

__all__ = ["absent_or_refused", "check_sizes", "frames_text", "merged", "refusal"]

_MOST_ABSENT = 10_000_000
_LARGEST = 2**63 - 1
_LEFT_OUT = {
    "zarr": " If the archive leaves out chunks that hold only its fill value, as zarr does unless "
    'told otherwise, pass missing="fill".',
    "HDF5": " If the program that saved it left out chunks that hold only the fill value, pass "
    'missing="fill".',
}


def frames_text(*spans: tuple[int, int], most: int = 3) -> str:
    """Name frames for people, the first few of many spans.

    `spans`: pairs of first frame and the one after the last, in any order.

    Examples
    --------
    >>> frames_text((3, 4)), frames_text((3, 9))
    ('frame 3', 'frames 3 to 8')
    >>> frames_text((0, 10), (10, 20), (30, 31))
    'frames 0 to 19 and 30'
    >>> frames_text(*((n, n + 1) for n in range(0, 20, 2)))
    'frames 0, 2, 4 and 7 more'
    """
    joined = merged(spans)
    texts = [f"{a} to {b - 1}" if b - a > 1 else str(a) for a, b in joined]
    if len(texts) > most:
        texts = [*texts[:most], f"{len(texts) - most} more"]
    named = " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
    return f"frames {named}" if sum(b - a for a, b in joined) > 1 else f"frame {named}"


def merged(spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return spans of frames in ascending order; those that touch or overlap become one.

    Examples
    --------
    >>> merged([(4, 6), (0, 2), (2, 3), (5, 9)])
    ((0, 3), (4, 9))
    """
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return tuple(joined)


def refusal(where: str, gap: str, fills: str = "", masks: bool = True) -> UnreadableFileError:
    """Return the error about pixels that a file lacks.

    `gap` is a clause that names the first gap. `fills` is the format, where what is missing may
    have been left out on purpose; `masks` says that the frames can be marked as invalid.
    """
    advice = _LEFT_OUT.get(fills, "")
    if masks:
        advice += ' With missing="mask" these frames are marked invalid.'
    if advice:
        advice += " (On the command line: --missing.)"
    return UnreadableFileError(f"{where}: {gap}. Copy the recording again.{advice}")


def absent_or_refused(
    where: str,
    gap: str,
    spans: Sequence[tuple[int, int]],
    n_frames: int,
    missing: str,
    fills: str = "",
) -> tuple[int, ...]:
    """Return the frames that lack pixels if they are to be masked, and refuse the file otherwise.

    `gap` is a clause that names the first gap; `spans` are pairs of first frame and the one after
    the last.

    Raises UnreadableFileError: unless `missing` is ``"mask"``.
    Raises InputError: no frame is left.
    """
    spans = merged(spans)
    count = sum(stop - start for start, stop in spans)
    lost = f"{gap}, so {count} of {n_frames} frames lack pixels, first {frames_text(spans[0])}"
    if missing != "mask":
        fills = fills if missing == "error" else ""
        raise refusal(where, lost, fills, masks=count < n_frames)
    if count >= n_frames or count > _MOST_ABSENT:
        raise InputError(f"{where}: {lost}. Too few are left to be used. Copy the recording again.")
    return tuple(chain.from_iterable(range(start, stop) for start, stop in spans))


def check_sizes(
    shape: Sequence[int], chunk: Sequence[int] | None, itemsize: int, where: str
) -> None:
    """Refuse what no array can be, before memory is taken for it.

    `chunk`: items that are read together; None where these are single ones.

    Raises UnreadableFileError: sizes that are not positive, or that no file holds.
    Raises MemoryLimitError: a chunk that does not fit into the memory of this machine.
    """
    shape, chunk = tuple(shape), tuple(chunk or (1,) * len(shape))
    if any(n < 0 for n in shape) or any(n < 1 for n in chunk):
        raise UnreadableFileError(
            f"{where}: its metadata give the shape {excerpt(repr(shape))} in chunks of "
            f"{excerpt(repr(chunk))}; sizes must be positive. Copy or export it again."
        )
    if prod(map(int, shape)) * itemsize > _LARGEST:
        raise UnreadableFileError(
            f"{where}: its metadata give the shape {excerpt(repr(shape))}, more than any file "
            "holds. They are damaged; copy or export it again."
        )
    needed = prod(map(int, chunk)) * itemsize
    if needed > 2**30 and needed > _memory():
        raise MemoryLimitError(
            f"{where}: one chunk {excerpt(repr(chunk))} takes {needed / 1e9:.3g} GB of memory, and "
            f"this machine has {_memory() / 1e9:.3g} GB. Store it in smaller chunks, or use a "
            "larger machine"
        )


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return _LARGEST
