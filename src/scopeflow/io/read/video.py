"""Recordings in AVI, MP4, MKV and MOV video, decoded by PyAV; one grey channel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, ScopeflowError, UnreadableFileError
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import check_video
from scopeflow.io.read.files import HandleCache, stamp_file
from scopeflow.io.read.source import FileSource

__all__ = ["VideoFileSource", "import_av", "open_video_file"]

_GREY_16 = ("gray9le", "gray10le", "gray12le", "gray14le", "gray16le")
_LUMA_FULL = ("gray", "yuvj420p", "yuvj422p", "yuvj444p", "yuvj440p", "yuvj411p")
_LUMA = ("yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p", "nv12", "nv21")
_RGB = (
    *("rgb24", "bgr24", "rgba", "bgra", "argb", "abgr", "rgb0", "bgr0", "0rgb", "0bgr"),
    *("gbrp", "gbrap", "pal8", "rgb555le", "rgb565le"),
)
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_LONGEST_CHUNK = 64

# Limited range: 16 is black, 235 white.
_EXPANDED = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)


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


class _Decoder:
    """An open file that gives frames by number and goes on from where it stands."""

    def __init__(self, path: str) -> None:
        av = import_av()
        try:
            self._container = av.open(path)
            self.stream = self._container.streams.video[0]
        except (av.error.FFmpegError, IndexError, OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        self._path = path
        self._frames: Any = None
        self._next_time: int | None = None

    def close(self) -> None:
        self._container.close()

    def index(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the times of all frames in order, and those of key frames, in stream units."""
        times, keys = [], []
        self._frames = None
        self._container.seek(0, backward=True)
        for packet in self._container.demux(self.stream):
            time = packet.pts if packet.pts is not None else packet.dts
            # Packets without bytes repeat the frame before, or end the stream.
            if time is None or packet.size == 0:
                continue
            times.append(time)
            if packet.is_keyframe:
                keys.append(time)
        return np.unique(np.array(times, np.int64)), np.unique(np.array(keys, np.int64))

    def frames(self, times: NDArray[np.int64]) -> Any:
        """Yield the decoded frames of these times, which follow each other."""
        stands_there = self._frames is not None and self._next_time == times[0]
        if not stands_there and not self._go_to(int(times[0])):
            self._restart()
        wanted = iter(times.tolist())
        time = next(wanted)
        for frame in self._frames:
            stamp = frame.pts if frame.pts is not None else frame.dts
            if stamp is None or stamp < time:
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
        raise _unreadable(self._path, f"the frame at {time * self.stream.time_base} s is missing")

    def continue_at(self, time: int | None) -> None:
        """Note the time of the frame that the decoder would give next."""
        self._next_time = time

    def _go_to(self, time: int) -> bool:
        """Seek to the key frame before a time; False where the file cannot seek so."""
        self._container.seek(time, stream=self.stream, backward=True)
        first = next(iter(self._container.decode(self.stream)), None)
        stamp = None if first is None else (first.pts if first.pts is not None else first.dts)
        if stamp is None or stamp > time:
            return False
        self._container.seek(time, stream=self.stream, backward=True)
        self._frames = self._container.decode(self.stream)
        return True

    def _restart(self) -> None:
        self._container.seek(0, backward=True)
        self._frames = self._container.decode(self.stream)


def _unreadable(path: str, reason: object) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path}: cannot be decoded as video ({reason}). It is truncated or damaged, or its codec "
        "is unknown; copy it again, or convert it, for example to FFV1 in AVI or to TIFF."
    )


_FILES: HandleCache[_Decoder] = HandleCache(_Decoder)


def _grey(frame: Any) -> NDArray[Any]:
    """Return a decoded frame as one channel; the rule is that of `open_video_file`."""
    name = frame.format.name
    if name in _GREY_16:
        return _plane(frame, np.dtype("<u2"))
    if name in _LUMA_FULL or (name in _LUMA and int(frame.color_range) == _FULL_RANGE):
        return _plane(frame, np.dtype(np.uint8))
    if name in _LUMA:
        return _EXPANDED[_plane(frame, np.dtype(np.uint8))]
    rgb = frame.to_ndarray(format="rgb24").astype(np.uint32)
    return ((rgb @ np.array([299, 587, 114], np.uint32) + 500) // 1000).astype(np.uint8)


def _plane(frame: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height]
    return np.ascontiguousarray(rows[:, : frame.width * dtype.itemsize]).view(dtype)


@dataclass(frozen=True, kw_only=True)
class VideoFileSource(FileSource):
    """The first video stream of a file, as grey frames: uint8, or uint16 above 8 bits.

    ``times`` holds the time of each frame in units of the stream, int64; a chunk are the frames
    from one key frame to the next.
    """

    times: bytes
    codec: str
    kind: str = "video"

    def _part(self) -> str:
        return self.codec

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        block = np.empty((stop - start, *self.shape[1:]), self.dtype)
        if start == stop:
            return block
        times = np.frombuffer(self.times, np.int64)
        handle = _FILES.get(self.stamp)
        # One decoder has one place in the file.
        with handle.lock:
            decoder = handle.value
            try:
                for position, frame in enumerate(decoder.frames(times[start:stop])):
                    block[position, ..., 0] = _grey(frame)
            except ScopeflowError:
                raise
            except (OSError, ValueError) as error:  # errors of FFmpeg are both
                raise _unreadable(self.stamp.path, error) from error
            decoder.continue_at(int(times[stop]) if stop < len(times) else None)
        return block

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        return {
            "kind": self.kind,
            **self.stamp.facts(),
            "shape": list(self.shape),
            **self._absence(),
        }


def open_video_file(path: str | Path) -> VideoFileSource:
    """Open an AVI, MP4, MKV or MOV file as a recording; nothing is decoded but the first frame.

    The file is read through once for the times of its frames, so that every frame is found by its
    number whatever the codec. Frames become grey by this rule: grey video is taken as it is;
    of YUV video the luma is taken, expanded from 16–235 to 0–255 unless the file says that it has
    the full range; RGB video is weighted 0.299 R + 0.587 G + 0.114 B, which keeps grey exactly.

    Raises InputError: PyAV is not installed, or the pixels are of a kind without a rule.
    Raises UnreadableFileError: the file is damaged or of an unknown codec.

    References
    ----------
    ITU-R BT.601, luma and its range.
    """
    stamp = stamp_file(path)
    handle = _FILES.get(stamp)
    with handle.lock:
        decoder = handle.value
        try:
            times, keys = decoder.index()
            first = next(iter(decoder.frames(times[:1])), None) if len(times) else None
        except ScopeflowError:
            raise
        except (OSError, ValueError) as error:
            raise _unreadable(stamp.path, error) from error
        decoder.continue_at(None)
        if first is None:
            raise _unreadable(stamp.path, "it holds no frame")
        pixels = first.format.name
        stream = decoder.stream
        codec, base = stream.codec_context.name, float(stream.time_base)
        rate = float(stream.average_rate or 0)
    if pixels not in (*_GREY_16, *_LUMA_FULL, *_LUMA, *_RGB):
        raise InputError(
            f"{path}: pixels of the kind {pixels} are not read as grey. Convert the video, for "
            "example with ffmpeg -i IN -c:v ffv1 -pix_fmt gray OUT.avi (or gray16le)."
        )
    shape = (len(times), first.height, first.width, 1)
    dtype = check_video(shape, np.uint16 if pixels in _GREY_16 else np.uint8, str(path))
    gaps = np.diff(np.searchsorted(times, keys))
    together = min(int(np.median(gaps)), _LONGEST_CHUNK) if len(gaps) else _LONGEST_CHUNK
    seconds = (times - times[0]) * base
    uniform = rate > 0 and bool(
        np.abs(seconds - np.arange(len(times)) / rate).max() <= 1.5 * base + 1e-3
    )
    rule = "as stored" if pixels in (*_GREY_16, "gray") else "grey of " + pixels
    origins = (
        ("axes", "TYX, video"),
        ("shape", f"times of frames, {codec} stream"),
        ("dtype", f"{rule}, {codec} stream"),
        ("frame_interval" if uniform else "frame_times", "video stream"),
    )
    metadata = VideoMetadata(
        frame_times_s=None if uniform else tuple(seconds.tolist()),
        frame_interval_s=1 / rate if uniform else None,
        origins=origins,
    )
    return VideoFileSource(
        stamp=stamp,
        shape=shape,
        dtype=dtype,
        metadata=metadata,
        frames_per_chunk=max(1, together),
        times=np.ascontiguousarray(times).tobytes(),
        codec=codec,
    )
