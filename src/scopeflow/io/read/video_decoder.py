"""Frames of a video file by their times, decoded by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.io.read.video_container import avi_frames
from scopeflow.io.read.video_index import VideoIndex

__all__ = ["DamagedFrameError", "Decoder", "Scan", "import_av", "unreadable"]


def import_av() -> Any:
    """Return the module ``av``.

    Raises InputError: PyAV is not installed.
    """
    try:
        import av  # here: an extra, and slow to import
    except ImportError as error:
        raise InputError(
            f"AVI, MP4 and MKV video needs the package PyAV, which cannot be imported ({error}). "
            "Install it with: pip install 'scopeflow[video]'"
        ) from None
    return av


class DamagedFrameError(Exception):
    """The decoder reports damage in the frame of this time."""

    def __init__(self, time: int) -> None:
        super().__init__(time)
        self.time = time


class Scan(NamedTuple):
    """What decoding all frames showed: the first whole one, times of the others, and of keys."""

    first: Any
    bad: frozenset[int]
    keys: frozenset[int]


class Decoder:
    """An open file that gives frames by number and goes on from where it stands."""

    def __init__(self, path: str) -> None:
        self._open(path)
        self._path = path
        self._frames: Any = None
        self._next_time: int | None = None
        self._passes_damage = False
        self._is_spoiled = False

    def _open(self, path: str) -> None:
        av = import_av()
        try:
            self._container = av.open(path)
            self.stream = self._container.streams.video[0]
            if self.stream.codec_context is None:
                raise ValueError("its codec is unknown")
        except (av.error.FFmpegError, IndexError, OSError, ValueError) as error:
            raise unreadable(path, error) from error
        # Checksums are compared; damaged JPEG images are no images, which is not the default.
        strict = "explode" if self.stream.codec_context.name == "mjpeg" else "crccheck"
        self.stream.codec_context.options = {"err_detect": strict}

    def _seek(self, time: int) -> None:
        # Damage leaves traces in a decoder, which its own reset does not take away.
        if self._is_spoiled:
            self.close()
            self._open(self._path)
            self._is_spoiled = False
        self._container.seek(time, stream=self.stream, backward=True)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def index(self) -> VideoIndex:
        """Go through the packets of all frames."""
        packets, keys, cut, found = [], set(), [], 0
        first: Any = None
        self._to_beginning()
        for packet in self._container.demux(self.stream):
            time = _time_of(packet)
            # Packets without bytes repeat the frame before, or end the stream.
            if time is None or packet.size == 0:
                continue
            first, found = first or packet, found + 1
            if packet.is_discard:  # cut away by who edited the movie
                continue
            packets.append(time)
            if packet.is_keyframe:
                keys.add(time)
            if packet.is_corrupt:
                cut.append(time)
        repeated = avi_frames(self._path, self.stream.index)
        rate = float(self.stream.average_rate or 0)
        step = 1 / (rate * float(self.stream.time_base)) if rate > 0 else 0.0
        return VideoIndex(
            tuple(packets),
            frozenset(keys),
            tuple(cut),
            int(self.stream.frames),
            found if repeated is None else max(found, repeated),
            self._room(packets, step),
            step,
            self._container.format.name == "avi" and bool(first is not None and first.dts),
        )

    def _room(self, packets: list[int], step: float) -> int:
        """Return how many evenly spaced frames the duration has room for, 0 where unknown."""
        duration = self._container.duration  # µs
        # That of the container may be the one of the sound.
        if not packets or len(self._container.streams) > 1 or not duration or step <= 0:
            return 0
        base = float(self.stream.time_base)
        return round((duration / 1e6 - max(0, min(packets)) * base) / (step * base))

    def scan(self) -> Scan:
        """Decode everything once."""
        first: Any = None
        bad: set[int] = set()
        shown: set[int] = set()
        wanted: set[int] = set()
        keys: set[int] = set()
        self._to_beginning()
        for packet in self._container.demux(self.stream):
            time = _time_of(packet)
            if time is not None and packet.size and not packet.is_discard:
                wanted.add(time)
                if packet.is_corrupt:
                    bad.add(time)
            for frame in self._decode(packet, True):
                whole = not frame.is_corrupt
                if whole and first is None:
                    first = frame
                at = _time_of(frame)
                if at is not None:
                    keys |= {at} if _is_key(frame) else set()
                    (shown if whole and _kind(frame) == _kind(first) else bad).add(at)
        return Scan(first, frozenset(bad | (wanted - shown)), frozenset(keys))

    def frames(self, times: NDArray[np.int64], passes_damage: bool = False) -> Any:
        """Yield the decoded frames of these times, which follow each other.

        ``passes_damage``: whether damaged frames before and between them are passed over.
        """
        self._passes_damage = passes_damage
        stands_there = self._frames is not None and self._next_time == times[0]
        if not stands_there and not self._go_to(int(times[0])):
            self._restart()
        wanted = iter(times.tolist())
        time = next(wanted)
        for frame in self._frames:
            stamp = _time_of(frame)
            if stamp is None:
                continue
            # Frames on the way count too: those that follow may be made from them.
            if frame.is_corrupt and stamp <= time and not passes_damage:
                self._frames = None
                raise DamagedFrameError(stamp)
            if stamp < time:
                continue
            if stamp > time:
                break
            yield frame
            following = next(wanted, None)
            if following is None:
                self._next_time = None
                return
            time = following
        self._frames = None
        raise DamagedFrameError(time)

    def continue_at(self, time: int | None) -> None:
        """Note the time of the frame that the decoder would give next."""
        self._next_time = time

    def _go_to(self, time: int) -> bool:
        """Seek to the key frame before a time; False where the file cannot seek so."""
        self._seek(time)
        frames = self._decoded()
        first = next(frames, None)
        stamp = None if first is None else _time_of(first)
        if first is None or stamp is None or stamp > time:
            return False
        if self._passes_damage and not _is_key(first):
            return False
        self._frames = chain((first,), frames)
        return True

    def _to_beginning(self) -> None:
        self._frames = None
        self._seek(min(0, self.stream.start_time or 0))

    def _restart(self) -> None:
        self._to_beginning()
        self._frames = self._decoded()

    def _decoded(self) -> Iterator[Any]:
        for packet in self._container.demux(self.stream):
            yield from self._decode(packet, self._passes_damage)

    def _decode(self, packet: Any, passes_damage: bool) -> list[Any]:
        self._is_spoiled |= packet.is_corrupt
        try:
            frames = list(packet.decode())
        except (OSError, ValueError) as error:  # errors of FFmpeg are both
            self._is_spoiled = True
            time = _time_of(packet)
            if passes_damage:
                return []
            if time is None:
                raise
            raise DamagedFrameError(time) from error
        self._is_spoiled |= any(frame.is_corrupt for frame in frames)
        return frames


def _time_of(packet_or_frame: Any) -> int | None:
    time = packet_or_frame.pts if packet_or_frame.pts is not None else packet_or_frame.dts
    return None if time is None else int(time)


def _is_key(frame: Any) -> bool:
    # Where an AVI file has lost its index, all frames have the mark of key frames.
    return bool(frame.key_frame) and int(frame.pict_type) in (0, 1)  # none, I


def _kind(frame: Any) -> tuple[int, int, str]:
    return frame.height, frame.width, frame.format.name


def unreadable(path: str, reason: object) -> UnreadableFileError:
    """Return the error about a file that is no video, or one of an unknown kind."""
    return UnreadableFileError(
        f"{path}: cannot be decoded as video ({reason}). It is truncated or damaged, or its codec "
        "is unknown; copy it again, or convert it, for example to FFV1 in AVI or to TIFF."
    )
