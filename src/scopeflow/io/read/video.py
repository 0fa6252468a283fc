"""Recordings in AVI, MP4, MKV and MOV video, decoded by PyAV; one grey channel."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, ScopeflowError, UnreadableFileError
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import check_video
from scopeflow.io.read.files import HandleCache, stamp_file
from scopeflow.io.read.source import FileSource
from scopeflow.io.read.video_container import container_damage
from scopeflow.io.read.video_decoder import DamagedFrameError, Decoder, import_av, unreadable
from scopeflow.io.read.video_index import VideoIndex, completed_times, dependent_frames

__all__ = ["VideoFileSource", "import_av", "open_video_file"]

logger = logging.getLogger(__name__)

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


def _incomplete(path: str, problem: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path}: the video is truncated or damaged: {problem}. Copy it again; or use "
        'missing="mask" to mark the frames that are not there as invalid, or give the video a new '
        "container, for example with ffmpeg -i IN -c copy OUT.mkv, if it is known to be whole."
    )


def _damaged_frame(path: str, times: NDArray[np.int64], time: int) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path}: frame {int(np.searchsorted(times, time))} is damaged or missing, it cannot be "
        'decoded as video. Copy the file again, or use missing="mask" to mark the frames concerned '
        "as invalid."
    )


_FILES: HandleCache[Decoder] = HandleCache(Decoder)


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
        absent = frozenset(self.absent)
        handle = _FILES.get(self.stamp)
        # One decoder has one place in the file.
        with handle.lock:
            for is_absent, run in groupby(range(start, stop), absent.__contains__):
                if not is_absent:
                    numbers = list(run)
                    self._decode(handle.value, times, block[numbers[0] - start :], numbers)
        return block

    def _decode(
        self, decoder: Decoder, times: NDArray[np.int64], block: NDArray[Any], numbers: list[int]
    ) -> None:
        """Fill the begin of a block with frames that follow each other."""
        first, end = numbers[0], numbers[-1] + 1
        try:
            frames = decoder.frames(times[first:end], passes_damage=bool(self.absent))
            for position, frame in enumerate(frames):
                block[position, ..., 0] = _grey(frame)
        except ScopeflowError:
            raise
        except DamagedFrameError as error:
            raise _damaged_frame(self.stamp.path, times, error.time) from error
        except (OSError, ValueError) as error:  # errors of FFmpeg are both
            raise unreadable(self.stamp.path, error) from error
        decoder.continue_at(int(times[end]) if end < len(times) else None)

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        return {
            "kind": self.kind,
            **self.stamp.facts(),
            "shape": list(self.shape),
            **self._absence(),
        }


def open_video_file(
    path: str | Path, *, missing: Literal["error", "mask"] = "error"
) -> VideoFileSource:
    """Open an AVI, MP4, MKV or MOV file as a recording; nothing is decoded but the first frame.

    The file is read through once for the times of its frames, so that every frame is found by its
    number whatever the codec. Frames become grey by this rule: grey video is taken as it is;
    of YUV video the luma is taken, expanded from 16–235 to 0–255 unless the file says that it has
    the full range; RGB video is weighted 0.299 R + 0.587 G + 0.114 B, which keeps grey exactly.

    A file that is cut off is no shorter recording: what the container declares (sizes of its parts,
    checksums, number of frames, duration) is compared with what is there, and frames that the
    decoder finds damaged are refused when they are read. With ``missing="mask"`` all frames are
    decoded once, and those that are damaged, need a damaged one, or were declared and not found are
    in ``absent``.

    Raises InputError: PyAV is not installed, or the pixels are of a kind without a rule.
    Raises UnreadableFileError: the file is truncated, damaged, unfinished or of an unknown codec.

    References
    ----------
    ITU-R BT.601, luma and its range.
    """
    if missing not in ("error", "mask"):
        raise InputError(
            f'{path}: missing={missing!r} is not for video; use missing="mask" to mark frames that '
            "are damaged or cut off as invalid"
        )
    stamp = stamp_file(path)
    handle = _FILES.get(stamp)
    with handle.lock:
        decoder = handle.value
        try:
            index = decoder.index()
            problem = container_damage(stamp.path) or index.problem()
            if missing == "error" and problem:
                raise _incomplete(stamp.path, problem)
            times, lost, first = _found(decoder, index, missing, stamp.path, problem)
        except ScopeflowError:
            raise
        except DamagedFrameError as error:
            raise _damaged_frame(stamp.path, index.times, error.time) from error
        except (OSError, ValueError) as error:
            raise unreadable(stamp.path, error) from error
        decoder.continue_at(None)
        if first is None:
            raise unreadable(stamp.path, "it holds no frame")
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
    gaps = np.diff(np.searchsorted(times, index.key_times))
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
        absent=tuple(int(n) for n in np.searchsorted(times, sorted(lost))),
    )


def _found(
    decoder: Decoder, index: VideoIndex, missing: str, path: str, problem: str
) -> tuple[NDArray[np.int64], frozenset[int], Any]:
    """Return the times of all frames, those of frames that lack pixels, and the first whole one."""
    if missing == "error":
        times = index.times
        first = next(iter(decoder.frames(times[:1])), None) if len(times) else None
        return times, frozenset(), first
    # Which numbers the frames have would be a guess.
    if len(index.times) < len(index.packets) or (index.lacks_beginning and problem):
        raise unreadable(path, problem)
    scan = decoder.scan()
    if scan.first is None:
        return index.times, frozenset(), None
    times, lost = completed_times(index) if problem else (index.times, frozenset())
    lost = dependent_frames(index, lost | scan.bad, scan.keys) & frozenset(times.tolist())
    if problem and not index.declared:
        logger.warning(
            "%s: %s. It declares nowhere how many frames it has; the last of those that are "
            "there is taken for the last of the recording.",
            path,
            problem,
        )
    return times, lost, scan.first
