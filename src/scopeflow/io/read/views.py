"""Recordings made from other recordings: binned, selected, stacked, concatenated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import check_frame_range
from scopeflow.io.read.protocol import Source, absent_frames
from scopeflow.io.read.states import state_of

__all__ = [
    "BinnedSource",
    "ChannelSelection",
    "ConcatenatedFrames",
    "FrameSelection",
    "StackedChannels",
]


def _whole(value: Any, what: str) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise InputError(f"{what} must be a whole number, not {value!r}.")
    return int(value)


def _check_chosen(source: Source, chosen: tuple[int, ...], what: str, count: int) -> None:
    if not chosen:
        raise InputError(f"{source.description}: no {what} was selected; name one.")
    for number in chosen:
        if not 0 <= _whole(number, f"a {what}") < count:
            raise InputError(
                f"{source.description}: there is no {what} {number}; "
                f"its {what}s are 0 to {count - 1}."
            )


def _without(block: NDArray[Any], absent: tuple[int, ...], start: int) -> NDArray[Any]:
    """Set the absent ones of successive frames that begin with ``start`` to zero."""
    first, last = bisect_left(absent, start), bisect_left(absent, start + len(block))
    block[[frame - start for frame in absent[first:last]]] = 0
    return block


@dataclass(frozen=True)
class _View(ABC):
    """What a view of one recording shares with it."""

    source: Source

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the recording."""
        return self.source.dtype

    @property
    def frames_per_chunk(self) -> int:
        """Frames stored together."""
        return self.source.frames_per_chunk

    @property
    def paths(self) -> tuple[str, ...]:
        """Files of the recording."""
        return self.source.paths

    def state(self, start: int, stop: int) -> dict[str, str]:
        """Return what the files that hold some frames look like now."""
        return state_of(self.source, start, stop)

    @cached_property
    def absent(self) -> tuple[int, ...]:
        """Frames of the view that lack pixels, see :func:`absent_frames`."""
        return absent_frames(self.source)

    @abstractmethod
    def _choices(self) -> dict[str, object]:
        """Return the kind of the view, and what was chosen."""

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        return {**self._choices(), "source": self.source.identity()}


@dataclass(frozen=True)
class _Joined:
    """What several recordings have together."""

    sources: tuple[Source, ...]
    _kind: ClassVar[str]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of all recordings."""
        return self.sources[0].dtype

    @property
    def frames_per_chunk(self) -> int:
        """Largest number of frames stored together."""
        return max(source.frames_per_chunk for source in self.sources)

    @property
    def paths(self) -> tuple[str, ...]:
        """Files of all recordings."""
        return tuple(path for source in self.sources for path in source.paths)

    def state(self, start: int, stop: int) -> dict[str, str]:
        """Return what the files that hold some frames look like now."""
        parts = (state_of(source, start, stop) for source in self.sources)
        return {path: text for part in parts for path, text in part.items()}

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        return {"kind": self._kind, "sources": [source.identity() for source in self.sources]}


@dataclass(frozen=True)
class BinnedSource(_View):
    """A recording whose frames are means of ``bin_size`` successive frames.

    Means are taken in float64; integer types are rounded half to even, not truncated. The last
    bin averages the frames that exist. A bin that has a frame without pixels has none itself.
    """

    bin_size: int

    def __post_init__(self) -> None:
        if _whole(self.bin_size, "bin_size") < 1:
            raise InputError(f"bin_size={self.bin_size}: a bin needs at least one frame.")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape ``(ceil(T / bin_size), H, W, C)``."""
        frames, height, width, channels = self.source.shape
        return -(-frames // self.bin_size), height, width, channels

    @property
    def metadata(self) -> VideoMetadata:
        """Facts of the recording, times averaged as the frames."""
        old = self.source.metadata
        times = old.frame_times_s
        size = self.bin_size
        if times is not None:
            starts = range(0, len(times), size)
            times = tuple(float(np.mean(times[start : start + size])) for start in starts)
        interval = None if old.frame_interval_s is None else old.frame_interval_s * size
        origins = (*old.origins, ("bin_size", f"{size} frames averaged, bin_size= argument"))
        return replace(old, frame_times_s=times, frame_interval_s=interval, origins=origins)

    @property
    def frames_per_chunk(self) -> int:
        """Bins that one chunk of the recording touches."""
        return -(-self.source.frames_per_chunk // self.bin_size)

    @property
    def description(self) -> str:
        """Short name for people."""
        return f"{self.source.description}, mean of {self.bin_size} frames"

    @cached_property
    def absent(self) -> tuple[int, ...]:
        """Bins of which a frame lacks pixels."""
        return tuple(sorted({frame // self.bin_size for frame in absent_frames(self.source)}))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return binned frames ``start`` to ``stop``, shape ``(n, H, W, C)``."""
        check_frame_range(start, stop, self.shape[0], self.description)
        frames = self.source.shape[0]
        binned = np.empty((stop - start, *self.shape[1:]), self.dtype)
        # Chunk by chunk: none is decoded for each bin, and memory stays that of one chunk.
        step = self.frames_per_chunk
        for begin in range(start, stop, step):
            end = min(begin + step, stop)
            first = begin * self.bin_size
            raw = self.source.read(first, min(end * self.bin_size, frames))
            for bin_number in range(begin, end):
                offset = bin_number * self.bin_size - first
                mean = raw[offset : offset + self.bin_size].mean(axis=0, dtype=np.float64)
                binned[bin_number - start] = np.rint(mean) if self.dtype.kind in "biu" else mean
        return _without(binned, self.absent, start)

    def state(self, start: int, stop: int) -> dict[str, str]:
        """Return what the files that hold the frames of some bins look like now."""
        last = min(stop * self.bin_size, self.source.shape[0])
        return state_of(self.source, start * self.bin_size, last)

    def _choices(self) -> dict[str, object]:
        return {"kind": "binned", "bin_size": self.bin_size}


@dataclass(frozen=True)
class ChannelSelection(_View):
    """Some channels of a recording, in any order."""

    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_chosen(self.source, self.channels, "channel", self.source.shape[3])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape ``(T, H, W, len(channels))``."""
        return (*self.source.shape[:3], len(self.channels))

    @property
    def metadata(self) -> VideoMetadata:
        """Facts of the recording, names of the selected channels."""
        names = self.source.metadata.channel_names
        if names is not None:
            names = tuple(names[channel] for channel in self.channels)
        return replace(self.source.metadata, channel_names=names)

    @property
    def description(self) -> str:
        """Short name for people."""
        return f"{self.source.description}, channels {', '.join(map(str, self.channels))}"

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames ``start`` to ``stop``, shape ``(n, H, W, len(channels))``."""
        return np.ascontiguousarray(self.source.read(start, stop)[..., list(self.channels)])

    def _choices(self) -> dict[str, object]:
        return {"kind": "channels", "channels": [int(channel) for channel in self.channels]}


@dataclass(frozen=True)
class FrameSelection(_View):
    """Some frames of a recording, in any order."""

    frames: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_chosen(self.source, self.frames, "frame", self.source.shape[0])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape ``(len(frames), H, W, C)``."""
        return (len(self.frames), *self.source.shape[1:])

    @property
    def metadata(self) -> VideoMetadata:
        """Facts of the recording, times of the selected frames."""
        old = self.source.metadata
        times = old.frame_times_s
        if times is not None:
            times = tuple(times[frame] for frame in self.frames)
        steps = {b - a for a, b in zip(self.frames, self.frames[1:], strict=False)}
        interval = old.frame_interval_s
        if interval is not None:
            step = steps.pop() if len(steps) == 1 else 0
            interval = interval * step if step > 0 else None
        origins = (*old.origins, ("selection", f"{len(self.frames)} frames selected"))
        return replace(old, frame_times_s=times, frame_interval_s=interval, origins=origins)

    @property
    def description(self) -> str:
        """Short name for people."""
        return f"{self.source.description}, {len(self.frames)} selected frames"

    @cached_property
    def absent(self) -> tuple[int, ...]:
        """Places of the selection whose frame lacks pixels."""
        absent = set(absent_frames(self.source))
        return tuple(n for n, frame in enumerate(self.frames) if frame in absent)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return selected frames ``start`` to ``stop``, shape ``(n, H, W, C)``."""
        check_frame_range(start, stop, self.shape[0], self.description)
        wanted = self.frames[start:stop]
        selected = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        for begin, end in _runs(wanted):
            selected[begin:end] = self.source.read(wanted[begin], wanted[end - 1] + 1)
        return selected

    def state(self, start: int, stop: int) -> dict[str, str]:
        """Return what the files that hold the selected frames look like now."""
        wanted = self.frames[start:stop]
        found: dict[str, str] = {}
        for begin, end in _runs(wanted):
            found |= state_of(self.source, wanted[begin], wanted[end - 1] + 1)
        return found

    def _choices(self) -> dict[str, object]:
        return {"kind": "frames", "frames": [int(frame) for frame in self.frames]}


def _runs(frames: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the positions ``(begin, end)`` of frames that follow each other in the recording."""
    begin = 0
    while begin < len(frames):
        end = begin + 1
        while end < len(frames) and frames[end] == frames[end - 1] + 1:
            end += 1
        yield begin, end
        begin = end


def _check_equal(sources: Sequence[Source], what: str, axes: slice) -> None:
    if not sources:
        raise InputError("The list of recordings is empty; give at least one.")
    first = sources[0]
    for source in sources[1:]:
        if source.shape[axes] != first.shape[axes]:
            raise InputError(
                f"{source.description} has {what} {source.shape[axes]}, but {first.description} "
                f"has {first.shape[axes]}. They must be equal to be one recording; give files "
                "that belong together."
            )


@dataclass(frozen=True)
class StackedChannels(_Joined):
    """Recordings of the same frames as channels of one, such as one file for each channel.

    Their ``(T, H, W)`` are equal; types are promoted.
    """

    _kind = "stacked"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Promoted type."""
        return np.result_type(*(source.dtype for source in self.sources))

    def __post_init__(self) -> None:
        _check_equal(self.sources, "(frames, height, width)", slice(0, 3))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape ``(T, H, W, C)``, channels added up."""
        return (*self.sources[0].shape[:3], sum(source.shape[3] for source in self.sources))

    @property
    def metadata(self) -> VideoMetadata:
        """Facts of the first recording, names of all channels."""
        names = [source.metadata.channel_names for source in self.sources]
        joined = None
        if all(name is not None for name in names):
            joined = tuple(text for name in names for text in name or ())
        first = self.sources[0].metadata
        origins = (*first.origins, ("channel files", f"{len(self.sources)} recordings stacked"))
        return replace(first, channel_names=joined, origins=origins)

    @property
    def description(self) -> str:
        """Short name for people."""
        return f"channels of {len(self.sources)} recordings: {self.sources[0].description}, …"

    @cached_property
    def absent(self) -> tuple[int, ...]:
        """Frames that lack pixels in any of the recordings."""
        return tuple(sorted({n for source in self.sources for n in absent_frames(source)}))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames ``start`` to ``stop``, shape ``(n, H, W, C)``."""
        check_frame_range(start, stop, self.shape[0], self.description)
        stacked = np.empty((stop - start, *self.shape[1:]), self.dtype)
        channel = 0
        for source in self.sources:
            stacked[..., channel : channel + source.shape[3]] = source.read(start, stop)
            channel += source.shape[3]
        return _without(stacked, self.absent, start)


@dataclass(frozen=True)
class ConcatenatedFrames(_Joined):
    """Recordings that follow each other in time, such as a folder of TIFF files.

    Their ``(H, W, C)`` and types are equal.
    """

    _kind = "concatenated"

    def __post_init__(self) -> None:
        _check_equal(self.sources, "(height, width, channels)", slice(1, 4))
        first = self.sources[0]
        for source in self.sources[1:]:
            if source.dtype != first.dtype:
                raise InputError(
                    f"{source.description} has type {source.dtype}, but {first.description} has "
                    f"{first.dtype}. Files of one recording need one type; check for a file of "
                    "another recording."
                )

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(accumulate(source.shape[0] for source in self.sources))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape ``(T, H, W, C)``, frames added up."""
        return (self._ends[-1], *self.sources[0].shape[1:])

    @property
    def metadata(self) -> VideoMetadata:
        """Facts of the first recording; times only where all recordings have a common clock."""
        first = self.sources[0].metadata
        origins = (
            *(pair for pair in first.origins if pair[0] != "frame_count"),
            ("frame_count", f"sum of {len(self.sources)} files"),
        )
        return replace(first, frame_times_s=None, origins=origins)

    @property
    def description(self) -> str:
        """Short name for people."""
        return f"{len(self.sources)} files in order of time: {self.sources[0].description}, …"

    @cached_property
    def absent(self) -> tuple[int, ...]:
        """Frames that lack pixels, counted over all recordings."""
        begins = (0, *self._ends)
        parts = zip(self.sources, begins, strict=False)
        return tuple(begin + n for source, begin in parts for n in absent_frames(source))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames ``start`` to ``stop``, shape ``(n, H, W, C)``."""
        check_frame_range(start, stop, self.shape[0], self.description)
        frames = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for source, begin, first, last in self._parts(start, stop):
            frames[begin + first - start : begin + last - start] = source.read(first, last)
        return frames

    def state(self, start: int, stop: int) -> dict[str, str]:
        """Return what the files that hold some frames look like now."""
        found: dict[str, str] = {}
        for source, _, first, last in self._parts(start, stop):
            found |= state_of(source, first, last)
        return found

    def _parts(self, start: int, stop: int) -> Iterator[tuple[Source, int, int, int]]:
        """Yield each recording of some frames, its first frame in all, and its own frames."""
        position = start
        number = bisect_right(self._ends, start)
        while position < stop:
            end = min(self._ends[number], stop)
            begin = self._ends[number] - self.sources[number].shape[0]
            yield self.sources[number], begin, position - begin, end - begin
            position, number = end, number + 1
