"""Frames of one block as the solver sees them: checked, normalised, filtered in space and time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scopeflow._shapes import FrameYXC, VideoTYXC
from scopeflow.errors import InputError
from scopeflow.images.filters import preprocess_frame
from scopeflow.images.temporal import filter_in_time, temporal_radius, temporal_weight_table
from scopeflow.motion.grid import reflected_frame
from scopeflow.motion.parameters import PreprocessParameters

FrameFunction = Callable[[FrameYXC], FrameYXC]
"""``f(frame (H,W,C)) -> (H,W,C)``, given by the user, called before normalisation."""


@dataclass(frozen=True)
class Normalization:
    """Intensity range that maps raw values to about [0, 1], one pair for each channel.

    `low`, `high`: ``(C,)`` float64, values that map to 0 and 1.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class PreprocessStage:
    """One normalisation and filter; a reference is built with one more of them than usual."""

    normalization: Normalization
    parameters: PreprocessParameters


@dataclass(frozen=True)
class RawFrames:
    """The frames that a block reads, and what is done to them before they are solved.

    `frames`: ``(n, H, W, C)``, raw frames from `read_start` on.
    `read_start`: number of the first of them in the recording.
    `limits`: frames between which temporal filters reflect: the ends of the recording or of the
        batch.
    `stages`: normalisations and filters, applied one after the other.
    """

    frames: VideoTYXC
    read_start: int
    limits: tuple[int, int]
    stages: tuple[PreprocessStage, ...]
    frame_function: FrameFunction | None = None

    @property
    def reach(self) -> int:
        """How far behind the newest frame others may still be needed."""
        return 2 * sum(temporal_radius(one.parameters.sigma) for one in self.stages) + 2

    def raw(self, index: int) -> FrameYXC:
        """Return frame `index` of the recording."""
        frame: FrameYXC = self.frames[index - self.read_start]
        return frame

    def changed(self, index: int) -> FrameYXC:
        """Return frame `index` after the user function."""
        frame = self.raw(index)
        if self.frame_function is None:
            return frame
        changed = np.asarray(self.frame_function(frame))
        if changed.shape != frame.shape:
            raise InputError(
                f"preproc_funct returned shape {changed.shape} for a frame of {frame.shape}; "
                "it must keep the shape (H, W, C)"
            )
        return changed


def non_finite_pixels(
    frames: VideoTYXC, first_frame: int | Sequence[int], policy: str
) -> NDArray[np.bool_] | None:
    """Find NaN and infinite pixels.

    `frames`: ``(n, H, W, C)``, raw frames.
    `first_frame`: index of the first of them in the recording, or of each, for the message.
    `policy`: ``{"error", "mask"}``, raise, or return where they are.
    Returns: ``(n, H, W)`` bool, True where any channel is not finite; None if all are.
    Raises InputError: if there are any and the policy is "error".
    """
    if frames.dtype.kind != "f":
        return None
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(frames).all(axis=-1))
    if finite.all():
        return None
    if policy == "error":
        bad = np.flatnonzero(~finite.all(axis=(1, 2)))
        count = int((~finite[bad[0]]).sum())
        position = int(bad[0])
        number = first_frame + position if isinstance(first_frame, int) else first_frame[position]
        raise InputError(
            f"frame {number} has {count} pixels that are NaN or infinite "
            f"({bad.size} such frames nearby); clean the recording, or set non_finite='mask' to "
            "fill them from the reference and mark them invalid"
        )
    return ~finite


class FramePreprocessor:
    """Frames of one block as the solver sees them, each computed once and kept while needed."""

    def __init__(self, source: RawFrames) -> None:
        self._source = source
        self._cache: list[dict[int, NDArray[np.float32]]] = [{} for _ in source.stages]
        self._reach = source.reach
        sigmas = [stage.parameters.sigma for stage in source.stages]
        channels = source.frames.shape[-1]
        self._weights = [temporal_weight_table(sigma, channels) for sigma in sigmas]

    def frame(self, index: int) -> NDArray[np.float32]:
        """Return frame `index` of the recording after all stages."""
        return self._filtered(len(self._cache) - 1, index)

    def _spatial(self, stage: int, index: int) -> NDArray[np.float32]:
        cache = self._cache[stage]
        if index not in cache:
            normalization = self._source.stages[stage].normalization
            parameters = self._source.stages[stage].parameters
            frame = self._source.changed(index) if stage == 0 else self._filtered(stage - 1, index)
            cache[index] = preprocess_frame(
                frame, normalization.low, normalization.high, parameters.sigma
            )
            # Frames are asked for in order of time: what lies far behind is not needed again.
            for old in [known for known in cache if known < index - self._reach]:
                del cache[old]
        return cache[index]

    def _filtered(self, stage: int, index: int) -> NDArray[np.float32]:
        weights = self._weights[stage]
        radius = len(weights) // 2
        if radius == 0:
            return self._spatial(stage, index)
        window = [
            self._spatial(stage, reflected_frame(index + offset, *self._source.limits))
            for offset in range(-radius, radius + 1)
        ]
        return filter_in_time(window, weights)


@dataclass
class PrefilterSums:
    """What a first pass over reference frames returns: sums and extremes of one block.

    `raw_sum`: ``(H, W, C)`` float64, sum of the raw frames.
    `filtered_sum`: ``(H, W, C)`` float64, sum of the filtered frames.
    `low`, `high`: ``(C,)`` float64, extremes of the filtered frames.
    """

    raw_sum: NDArray[np.float64]
    filtered_sum: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def measure_prefiltered(
    frames: VideoTYXC,
    *,
    read_start: int,
    start: int,
    stop: int,
    filter_limits: tuple[int, int],
    parameters: PreprocessParameters,
    frame_function: FrameFunction | None = None,
    non_finite: str = "error",
) -> PrefilterSums:
    """Sum raw and smoothed frames of one block, and find the range of the smoothed ones.

    `frame_function`: user function that comes before the filter.
    `non_finite`: ``{"error", "mask"}``, NaN and infinite pixels raise, or count as the block's
        mean.
    """
    channels = frames.shape[-1]
    not_finite = non_finite_pixels(frames, read_start, non_finite)
    if not_finite is not None:
        masked = np.where(not_finite[..., None], np.nan, frames.astype(np.float64))
        replacement = np.nan_to_num(np.nanmean(masked, axis=(0, 1, 2)))
        frames = np.where(not_finite[..., None], replacement, masked).astype(frames.dtype)
    identity = Normalization(np.zeros(channels), np.ones(channels))
    stages = (PreprocessStage(identity, parameters),)
    preprocessed = FramePreprocessor(
        RawFrames(frames, read_start, filter_limits, stages, frame_function)
    )
    shape = frames.shape[1:]
    sums = PrefilterSums(
        np.zeros(shape), np.zeros(shape), np.full(channels, np.inf), np.full(channels, -np.inf)
    )
    for index in range(start, stop):
        filtered = preprocessed.frame(index)
        sums.raw_sum += frames[index - read_start]
        sums.filtered_sum += filtered
        planes = np.moveaxis(filtered, -1, 0).reshape(channels, -1)  # as they lie in memory
        sums.low = np.minimum(sums.low, planes.min(axis=1))
        sums.high = np.maximum(sums.high, planes.max(axis=1))
    return sums
