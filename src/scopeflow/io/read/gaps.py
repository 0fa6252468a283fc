"""What is said and done about pixels that a file lacks, the same for every format."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from scopeflow.errors import InputError, UnreadableFileError

__all__ = ["absent_or_refused", "frames_text", "merged", "refusal"]

_MOST_ABSENT = 10_000_000
_LEFT_OUT = {
    "zarr": " If the archive leaves out chunks that hold only its fill value, as zarr does unless "
    'told otherwise, pass missing="fill".',
    "HDF5": " If the program that saved it left out chunks that hold only the fill value, pass "
    'missing="fill".',
}


def frames_text(start: int, stop: int) -> str:
    """Name successive frames for people.

    Examples
    --------
    >>> frames_text(3, 4), frames_text(3, 9)
    ('frame 3', 'frames 3 to 8')
    """
    return f"frame {start}" if stop - start <= 1 else f"frames {start} to {stop - 1}"


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
    lost = f"{gap}, so {count} of {n_frames} frames lack pixels, first {frames_text(*spans[0])}"
    if missing != "mask":
        raise refusal(where, lost, fills if missing == "error" else "")
    if count >= n_frames or count > _MOST_ABSENT:
        raise InputError(f"{where}: {lost}. Too few are left to be used. Copy the recording again.")
    return tuple(chain.from_iterable(range(start, stop) for start, stop in spans))
