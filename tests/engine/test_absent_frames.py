"""Frames whose pixels are not there are never taken for black ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from scopeflow import OFOptions
from scopeflow.cells.plan import plan_workflow
from scopeflow.errors import InputError
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.open import FrameSelection
from scopeflow.motion.plan import plan_correction


@dataclass(frozen=True)
class WithGaps:
    """A recording in a file that lacks some frames."""

    name: str
    shape: tuple[int, int, int, int]
    absent: tuple[int, ...]
    dtype = np.dtype(np.uint16)
    metadata = VideoMetadata()
    frames_per_chunk = 1
    description = "recording with gaps"

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
        return {"kind": "gaps", "absent": list(self.absent)}


@pytest.fixture
def gaps(tmp_path):
    video = np.random.default_rng(0).integers(90, 110, (8, 24, 32, 1)).astype(np.uint16)
    np.save(tmp_path / "video.npy", video)
    return WithGaps(str(tmp_path / "video.npy"), video.shape, (2, 3, 6))


def test_a_correction_names_the_absent_frames_and_takes_the_others(gaps, tmp_path):
    options = OFOptions(input_file=gaps, output_path=tmp_path / "out")
    with pytest.raises(InputError, match=r"3 of its 8 frames are not there \(frames 2 to 3 and 6"):
        plan_correction(options)
    present = FrameSelection(gaps, (0, 1, 4, 5, 7))
    chosen = OFOptions(input_file=present, output_path=tmp_path / "out")
    assert plan_correction(chosen).grid.n_frames == 5
    assert not (tmp_path / "out").exists()


def test_cells_are_not_searched_in_absent_frames(gaps, tmp_path):
    with pytest.raises(InputError, match="frames 2 to 3 and 6"):
        plan_workflow(gaps, tmp_path / "out", {"channels": {"pc": 0}})
