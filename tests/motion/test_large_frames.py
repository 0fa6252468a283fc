"""Frames that cannot fit into memory are refused by the plan, before anything is made of them."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from scopeflow.engine.memory import memory_limit
from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import MemoryLimitError
from scopeflow.motion.graph.memory import check_frames, project_correction
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.plan import plan_correction


def sparse(path, side):
    """A file of two frames that takes no room on the disk."""
    options = {"dtype": "uint8", "photometric": "minisblack", "bigtiff": True}
    tifffile.imwrite(path, shape=(2, side, side), **options)
    return path


def test_huge_frames_are_refused_with_needed_and_available_memory(tmp_path):
    movie = sparse(tmp_path / "huge.tif", 60_000)
    options = OFOptions(input_file=str(movie), output_path=str(tmp_path / "out"))
    with pytest.raises(MemoryLimitError) as error:
        plan_correction(options)
    message = str(error.value)
    assert "huge.tif: frames of 60000 × 60000 px with 1 channels need about" in message
    assert f"{memory_limit() / 1e9:.2f} GB are available" in message
    assert "crop or downsample" in message
    assert [path.name for path in tmp_path.iterdir()] == ["huge.tif"]


def test_limit_of_the_user_counts_and_what_fits_is_planned(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 64, 64), "uint8"), photometric="minisblack")
    options = OFOptions(input_file=str(tmp_path / "a.tif"), output_path=str(tmp_path / "out"))
    needed = plan_correction(options).memory.total + 64 * 64 * 8
    plan_correction(options, RegistrationConfig(memory_limit_bytes=needed))
    with pytest.raises(MemoryLimitError, match="for one block alone"):
        plan_correction(options, RegistrationConfig(memory_limit_bytes=needed - 1))
    # What workers on other machines may use is known when they are there.
    away = RegistrationConfig(scheduler_address="tcp://nowhere:1", memory_limit_bytes=needed - 1)
    plan_correction(options, away)
    assert not (tmp_path / "out").exists()


def test_numbers_do_not_overflow():
    shape = (2**40, 2**40, 3)
    projection = project_correction(shape, (2**40, 2**40), 4, 4, 10, 2)
    with pytest.raises(MemoryLimitError, match="for one block alone"):
        check_frames("a.tif", shape, projection, 2**62)
