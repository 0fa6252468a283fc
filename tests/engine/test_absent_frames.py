"""Frames whose pixels are not there are never taken for black ones."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from scopeflow import OFOptions
from scopeflow.cells.plan import plan_workflow
from scopeflow.errors import InputError
from scopeflow.io.open import FrameSelection
from scopeflow.motion.motion import Motion, compute_motion
from scopeflow.report.preview import write_preview
from tests.absent_source import with_gaps


@pytest.fixture
def gaps(tmp_path):
    video = np.random.default_rng(0).integers(90, 110, (8, 24, 32, 1)).astype(np.uint16)
    return with_gaps(tmp_path, video, (2, 3, 6))


def test_lazy_motion_names_the_absent_frames_and_takes_the_others(gaps):
    options = OFOptions(quality_setting="fast", iterations=5)
    image = gaps.read(0, 1)[0].astype(float)
    with pytest.raises(InputError, match=r"3 of its 8 frames are not there \(frames 2 to 3 and 6"):
        compute_motion(gaps, image, options)
    present = FrameSelection(gaps, (0, 1, 4, 5, 7))
    motion = compute_motion(present, image, options)
    assert motion.n_frames == 5


def test_motion_is_not_applied_to_absent_frames(gaps):
    motion = Motion(da.zeros((8, 24, 32, 2), np.float32, chunks=(1, -1, -1, -1)), (24, 32))
    with pytest.raises(InputError, match="frames 2 to 3 and 6"):
        motion.apply(gaps, fill=0)


def test_a_preview_does_not_show_absent_frames(gaps, tmp_path):
    with pytest.raises(InputError, match="frames 2 to 3 and 6"):
        write_preview(gaps, tmp_path / "look.mp4")
    assert not (tmp_path / "look.mp4").exists()


def test_cells_are_not_searched_in_absent_frames(gaps, tmp_path):
    with pytest.raises(InputError, match="frames 2 to 3 and 6"):
        plan_workflow(gaps, tmp_path / "out", {"channels": {"pc": 0}})
