"""A recording in a real file some of whose frames have no pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scopeflow.io.metadata import VideoMetadata


@dataclass(frozen=True)
class WithGaps:
    """A ``.npy`` file; what is in it at absent frames is never handed out."""

    name: str
    shape: tuple[int, int, int, int]
    absent: tuple[int, ...]
    pixel_type: str = "uint16"
    metadata = VideoMetadata()
    frames_per_chunk = 1
    description = "recording with gaps"

    @property
    def dtype(self):
        return np.dtype(self.pixel_type)

    @property
    def paths(self):
        return (self.name,)

    def read(self, start, stop):
        frames = np.load(self.name, mmap_mode="r")[start:stop].copy()
        for frame in self.absent:
            if start <= frame < stop:
                frames[frame - start] = 0
        return frames

    def identity(self):
        facts = {"kind": "gaps", "name": Path(self.name).name, "shape": list(self.shape)}
        return {**facts, "absent": list(self.absent)} if self.absent else facts


def with_gaps(folder, video, absent, name="video.npy"):
    """Write a video ``(T, H, W, C)`` and return it as a recording without some frames."""
    np.save(folder / name, video)
    return WithGaps(str(folder / name), video.shape, tuple(absent), str(video.dtype))
