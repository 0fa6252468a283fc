"""A recording, or two side by side, as an MP4 to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, OutputExistsError
from scopeflow.io.addresses import local_path
from scopeflow.io.lazy import LazyVideo, load_frames
from scopeflow.io.recording import Recording, open_recording, refuse_absent
from scopeflow.io.write.video import PreviewWriter

_SAMPLES = 50
_GAP = 4
_BLOCK_BYTES = 32 * 2**20
DEFAULT_FPS = 30.0


def write_preview(
    recording: Any,
    path: str | Path,
    *,
    beside: Any = None,
    contrast: tuple[float, float] | None = None,
    fps: float | None = None,
    frames: tuple[int, int] | None = None,
    channel: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[float, float]:
    """Write an 8-bit grey MP4 of a recording, frame by frame; return its contrast.

    `path`: the file to write; its name ends in ``.mp4``.
    `beside`: a second recording of as many frames and rows, shown at the right with the same
        contrast, such as the corrected one.
    `contrast`: intensities shown as black and white. By default the 0.5th and 99.5th percentile of
        50 frames of ``recording``, evenly spaced.
    `fps`: frames shown in a second; by default the recording's own rate, else 30.
    `frames`: first frame, and the one after the last.
    `progress`: ``f(written, all)`` after every block.
    Raises OutputExistsError: the file exists and ``overwrite`` is false.
    Raises InputError: PyAV is missing, or sizes, frames, channel or contrast do not fit.

    Examples
    --------
    >>> import tempfile
    >>> video = np.random.default_rng(0).integers(0, 999, (5, 32, 40)).astype("uint16")
    >>> path = Path(tempfile.mkdtemp()) / "look.mp4"
    >>> write_preview(video, path, contrast=(0, 1000))
    (0.0, 1000.0)
    """
    target = local_path(path, "a preview")
    if target.suffix.lower() != ".mp4":
        raise InputError(f"{target}: a preview is an MP4 file; give a name that ends in .mp4")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists; move it away or choose another name")
    opened = [_opened(each) for each in (recording, beside) if each is not None]
    for each in opened:
        refuse_absent(each, "a preview")
    videos = [each.video for each in opened]
    first = videos[0]
    for video in videos:
        if video.shape[:2] != first.shape[:2]:
            raise InputError(
                f"side by side, recordings need the same frames and rows: {first.shape[:2]} and "
                f"{video.shape[:2]} were given"
            )
        if not 0 <= channel < video.shape[3]:
            raise InputError(f"there is no channel {channel}; give 0 to {video.shape[3] - 1}")
    start, stop = frames or (0, first.shape[0])
    if not 0 <= start < stop <= first.shape[0]:
        raise InputError(f"frames {start}:{stop} are not in the recording of {first.shape[0]}")
    if contrast is not None and not contrast[0] < contrast[1]:
        raise InputError(f"contrast {contrast[0]}:{contrast[1]} must grow from black to white")
    interval = opened[0].metadata.frame_interval_s
    rate = fps or (min(1 / interval, 1000.0) if interval else DEFAULT_FPS)
    width = sum(video.shape[2] for video in videos) + _GAP * (len(videos) - 1)
    shape = (stop - start, first.shape[1], width, 1)
    writer = PreviewWriter(target, shape, fps=max(rate, 0.1))
    low, high = contrast or _percentiles(first, start, stop, channel)
    length = max(1, _BLOCK_BYTES // (8 * shape[1] * width))
    with writer:
        for begin in range(start, stop, length):
            end = min(begin + length, stop)
            blocks = [load_frames(video.frames(begin, end))[..., channel] for video in videos]
            writer.write(_side_by_side(blocks, low, high))
            if progress is not None:
                progress(end - start, stop - start)
    return float(low), float(high)


def _opened(given: Any) -> Recording:
    return given if isinstance(given, Recording) else open_recording(given)


def _percentiles(video: LazyVideo, start: int, stop: int, channel: int) -> tuple[float, float]:
    numbers = np.unique(np.linspace(start, stop - 1, _SAMPLES).astype(int))
    sample = np.stack(
        [load_frames(video.frames(n, n + 1))[0, ..., channel] for n in numbers.tolist()]
    )
    finite = sample[np.isfinite(sample)]
    low, high = np.percentile(finite, (0.5, 99.5)) if finite.size else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1.0


def _side_by_side(blocks: list[NDArray[Any]], low: float, high: float) -> NDArray[np.uint8]:
    """Scale ``[low, high]`` to 0 … 255, not-a-number black, and join with a grey gap."""
    shown: list[NDArray[np.uint8]] = []
    for block in blocks:
        if shown:
            shown.append(np.full((*block.shape[:2], _GAP), 128, np.uint8))
        scaled = (np.nan_to_num(block.astype(np.float64), nan=low) - low) * (255 / (high - low))
        shown.append(np.rint(np.clip(scaled, 0, 255)).astype(np.uint8))
    return np.concatenate(shown, axis=2)[..., np.newaxis]
