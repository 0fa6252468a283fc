"""The frames of a video by their times: how many were declared, which are there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["VideoIndex", "completed_times", "dependent_frames"]

_LONGEST_ORDER = 16  # frames between decoding and showing, the most that a codec allows
_NUMBER_OFF = 0.3  # of the time between frames; times of some containers are whole milliseconds


@dataclass(frozen=True)
class VideoIndex:
    """What one pass through the packets of a stream found; times are in its units.

    `packets`: time of each frame in the order of decoding.
    `keys`: times of frames that need no other.
    `cut`: times of frames whose bytes are not all there.
    `declared`: frames that the container declares, 0 where it does not.
    `found`: frames that the container holds, those included that are not shown.
    `room`: evenly spaced frames for which the duration has room, 0 where unknown.
    `step`: time between frames, 0 where unknown.
    `lacks_beginning`: whether frames before the first one that was found are lost.
    """

    packets: tuple[int, ...]
    keys: frozenset[int]
    cut: tuple[int, ...] = ()
    declared: int = 0
    found: int = 0
    room: int = 0
    step: float = 0.0
    lacks_beginning: bool = False
    times: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", np.unique(np.array(self.packets, np.int64)))

    @property
    def key_times(self) -> NDArray[np.int64]:
        """Times of key frames in ascending order."""
        return np.array(sorted(self.keys), np.int64)

    @property
    def is_reordered(self) -> bool:
        """Whether frames are decoded in another order than they are shown."""
        return list(self.packets) != sorted(self.packets)

    def _is_even(self) -> bool:
        spaces = np.diff(self.times)
        return self.step > 0 and (len(spaces) == 0 or float(spaces.max()) <= 1.5 * self.step + 1)

    def problem(self) -> str:
        """Return what contradicts the container, for people; an empty string where nothing does."""
        if self.declared > self.found:
            return f"it declares {self.declared} frames, but {self.found} were found"
        # Cameras leave out frames, but not the last ones only.
        if self._is_even() and self.room > len(self.times) + 1:
            return f"its duration has room for {self.room} frames, but {self.found} were found"
        if self.cut:
            number = int(np.searchsorted(self.times, self.cut[0]))
            return f"the bytes of {len(self.cut)} frames are not all there, first of frame {number}"
        if len(self.times) < len(self.packets):
            return (
                f"{len(self.packets)} frames have only {len(self.times)} different times, so that "
                "they cannot be told apart"
            )
        return ""


def completed_times(index: VideoIndex) -> tuple[NDArray[np.int64], frozenset[int]]:
    """Return the times of all declared frames of a damaged file, and those of frames that lack.

    Frames at even times get the place that their times say. Otherwise those that were not found are
    the last, and of frames in another order than that of decoding nobody knows which ones they are.
    """
    times = index.times
    step = index.step or (float(np.median(np.diff(times))) if len(times) > 1 else 1.0)
    numbers = np.rint((times - times[0]) / step).astype(np.int64)
    off = np.abs(times - times[0] - numbers * step).max()
    is_even = off <= max(_NUMBER_OFF * step, 1) and bool((np.diff(numbers) > 0).all())
    wanted = len(times) + index.declared - index.found if index.declared else index.room
    if is_even and wanted > numbers[-1]:
        every = times[0] + np.rint(np.arange(wanted) * step).astype(np.int64)
        every[numbers] = times
        return every, frozenset(every.tolist()) - frozenset(times.tolist())
    later = np.rint(np.arange(1, wanted - len(times) + 1) * max(step, 1.0)).astype(np.int64)
    unsure = times[-_LONGEST_ORDER:] if index.is_reordered else times[:0]
    lost = frozenset((times[-1] + later).tolist()) | frozenset(unsure.tolist())
    return np.concatenate([times, times[-1] + later]), lost


def dependent_frames(
    index: VideoIndex, bad: frozenset[int], keys: frozenset[int]
) -> frozenset[int]:
    """Return the times of the frames whose decoding needs one of the bad ones, and of these.

    A frame may need any that is decoded before it since the last key frame; frames that are shown
    before a key frame but decoded behind it may need what was before that. `keys`: times of frames
    that need no other, as decoding showed; containers may be wrong about them.
    """
    spoiled: set[int] = set(bad)
    present = frozenset(index.packets)
    lost = sorted(bad - present)
    is_spoiled = was_spoiled = False
    key: int | None = None
    for time in index.packets:
        lost_before = bool(lost) and lost[0] < time
        if lost_before:
            lost = [one for one in lost if one > time]
        if time in keys:
            was_spoiled, key, is_spoiled = is_spoiled or lost_before, time, time in bad
        else:
            if lost_before or time in bad:
                is_spoiled = True
            leads = key is not None and time < key
            if is_spoiled or (leads and was_spoiled):
                spoiled.add(time)
    return frozenset(spoiled)
