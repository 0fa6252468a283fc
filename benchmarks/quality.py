"""How well a recording is registered, in three numbers for tables of benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scopeflow.report.metrics import VideoLike, correlation_with_mean, crispness

FRAMES = 256  # read at a time


@dataclass(frozen=True)
class RecordingQuality:
    """Comparable before and after on the same crop."""

    mean_correlation: float  # of frames with their mean
    low_correlation: float  # 5th percentile of these: the frames that moved most
    crispness: float  # of the mean image


def mean_image(video: VideoLike) -> NDArray[np.float64]:
    """Mean over frames of (T, H, W) or (T, H, W, C), read in blocks."""
    total = np.zeros(video.shape[1:])
    for start in range(0, video.shape[0], FRAMES):
        total += np.asarray(video[start : start + FRAMES], np.float64).sum(axis=0)
    return total / video.shape[0]


def recording_quality(
    video: VideoLike,
    *,
    border: int = 10,
    smooth_frames: float = 2.0,
    smooth_pixels: float = 1.0,
    channel: int = 0,
) -> RecordingQuality:
    """Correlation with the mean, smoothed, and crispness, not smoothed, of one channel."""
    correlation = correlation_with_mean(
        video,
        border=border,
        smooth_frames=smooth_frames,
        smooth_pixels=smooth_pixels,
        channel=channel,
    )
    mean = mean_image(video)
    return RecordingQuality(
        # Frames without contrast are left out.
        float(np.nanmean(correlation)),
        float(np.nanpercentile(correlation, 5)),
        crispness(mean[..., channel] if mean.ndim == 3 else mean, border=border),
    )
