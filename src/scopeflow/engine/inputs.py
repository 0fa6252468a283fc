"""The input is the same at the end of a run as at its beginning, or the run fails; knows no format.

What each piece read is recorded with it as a digest of the sizes and times of its files
(`scopeflow.io.lazy.INPUT`). Records of versions that kept none still count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from scopeflow.io.lazy import INPUT, frames_in_recording
from scopeflow.io.read.gaps import frames_text
from scopeflow.io.read.states import (
    changed_since_opened,
    input_changed,
    looked_at_once,
    state_digest,
    state_of,
)

__all__ = ["check_inputs", "frames_state"]


def check_inputs(
    reads: Iterable[tuple[Any, dict[str, Any]]], take_back: Callable[[], None] | None = None
) -> None:
    """Compare what pieces read with what stands there now, and with what was opened.

    `reads`: a recording, and the values that a piece which read it recorded.
    `take_back`: removes the records of the run, since what depends on a changed frame is not known
        to end with its block: batches start from each other, and all from the reference.
    Raises InputError: names files and frames that changed.
    """
    reads = list(reads)
    frames: list[tuple[int, int]] = []
    files: list[str] = []
    with looked_at_once():
        for source in {id(source): source for source, _ in reads}.values():
            files += changed_since_opened(source)
        for source, values in reads:
            read = _read(values)
            if read is None:
                continue
            start, stop, digest = read
            now = state_of(source, start, stop)
            if state_digest(now) != digest:
                frames += frames_in_recording(source, start, stop)
                files += changed_since_opened(source, now) or list(now)
    if not files:
        return
    if take_back is not None:
        take_back()
    done = "what was made before that is taken back, of" if frames else ""
    raise input_changed(files, frames_text(*frames) if frames else "all frames", done)


def _read(values: dict[str, Any]) -> tuple[int, int, str] | None:
    """Return frames and state of what a piece read; None if it kept none."""
    try:
        start, stop = values[INPUT]["frames"]
        return int(start), int(stop), str(values[INPUT]["state"])
    except (KeyError, TypeError, ValueError):
        return None


def frames_state(source: Any) -> dict[str, Any]:
    """Return what a record keeps of the files of a whole recording, before it is read."""
    frames = source.shape[0]
    state = state_of(source, 0, frames)
    return {INPUT: {"frames": [0, frames], "state": state_digest(state)}}
