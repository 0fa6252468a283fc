"""Frames without pixels change neither averages nor masks of a session."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr

from scopeflow import (
    RegistrationConfig,
    SessionConfig,
    run_session,
    run_stage1,
    run_stage2,
    run_stage3,
)
from scopeflow.errors import SessionError
from scopeflow.io.state import load_state
from scopeflow.motion.store.provenance import RunFacts
from scopeflow.sessions.recordings import absent_frames, find_session_recordings
from tests.conftest import same_bits
from tests.sessions.session_data import true_session

QUIET = RegistrationConfig(progress=False, parallelization="sequential")
ABSENT = {"rec_0": (0, 5), "rec_1": (), "rec_2": (6, 7)}


@pytest.fixture(scope="module")
def videos():
    session = true_session(frames=8, height=48, width=64, channels=1, count=3)
    return {name: session.recordings[n].video[..., 0] for n, name in enumerate(ABSENT)}


def write(root, videos):
    """Write zarr archives with one chunk for each frame."""
    root.mkdir()
    for name, frames in videos.items():
        array = zarr.create_array(
            str(root / f"{name}.zarr"),
            shape=frames.shape,
            dtype=frames.dtype,
            chunks=(1, *frames.shape[1:]),
        )
        array[...] = frames
    return root


def with_gaps(root, videos):
    write(root, videos)
    for name, absent in ABSENT.items():
        for frame in absent:
            (root / f"{name}.zarr" / "c" / str(frame) / "0" / "0").unlink()
    return root


def config_of(root, **changes):
    options = {"quality_setting": "fast", "iterations": 10, "reference_frames": [1, 2]}
    return SessionConfig(
        root=root, pattern="*.zarr", flow_options=options, center="rec_1.zarr", **changes
    )


@pytest.mark.parametrize("how", ["one_step", "two_step", "zarr"])
def test_a_session_is_that_of_the_frames_that_are_there(how, videos, tmp_path):
    changes = {"stage1_output_format": "ZARR"} if how == "zarr" else {"align_method": how}
    gaps = config_of(with_gaps(tmp_path / "gaps", videos), missing="mask", **changes)
    found = run_session(gaps, execution=QUIET)
    left = {name: np.delete(frames, ABSENT[name], axis=0) for name, frames in videos.items()}
    # The reference frames keep their pictures where frame 0 is gone.
    whole = config_of(write(tmp_path / "whole", left), **changes)
    numbers = {"rec_0": [0, 1], "rec_1": [1, 2], "rec_2": [1, 2]}
    for n, name in enumerate(ABSENT):
        run_stage1(whole, {"reference_frames": numbers[name]}, n, execution=QUIET)
    center, _, fields = run_stage2(whole, execution=QUIET)
    expected = run_stage3(whole, center, fields, execution=QUIET)
    assert same_bits(found.final_valid, expected)
    assert 0.3 < expected.mean() < 0.99
    for name, absent in ABSENT.items():
        parts = [
            root / "compensated_outputs" / name / "temporal_average.npy"
            for root in (tmp_path / "gaps", tmp_path / "whole")
        ]
        assert same_bits(*(np.load(part) for part in parts))
        aligned, of_whole = (
            tifffile.imread(root / "final_results" / f"aligned_{name}.tif")
            for root in (tmp_path / "gaps", tmp_path / "whole")
        )
        assert same_bits(np.delete(aligned, absent, axis=0), of_whole)
        assert not aligned[list(absent)].any()
    again = run_session(gaps, execution=QUIET)
    assert same_bits(again.final_valid, expected)


def test_without_the_choice_they_are_an_error_of_their_recordings(videos, tmp_path):
    with pytest.raises(SessionError, match=r"rec_0.*rec_2") as caught:
        run_stage1(config_of(with_gaps(tmp_path / "gaps", videos)), execution=QUIET)
    assert set(caught.value.failures) == {"rec_0", "rec_2"}


def test_what_stage_1_wrote_tells_which_they_are(videos, tmp_path):
    config = config_of(with_gaps(tmp_path / "gaps", videos), missing="mask")
    run_stage1(config, execution=QUIET)
    recordings = find_session_recordings(config)
    assert {one.name: absent_frames(one) for one in recordings} == ABSENT
    facts = load_state(recordings[1].folder / "run.json", RunFacts)
    assert facts is not None
    assert "absent" not in (recordings[1].folder / "run.json").read_text()


def test_chunks_that_came_back_or_went_are_told_before_aligning(videos, tmp_path):
    config = config_of(with_gaps(tmp_path / "gaps", videos), missing="mask")
    run_stage1(config, execution=QUIET)
    run_stage2(config, execution=QUIET)
    (tmp_path / "gaps" / "rec_1.zarr" / "c" / "3" / "0" / "0").unlink()
    with pytest.raises(SessionError, match=r"rec_1.*other frames than when it was corrected"):
        run_stage3(config, execution=QUIET)
