"""Sessions that PyFlowReg and scopeflow continue for each other; runs where the peer is named.

SCOPEFLOW_PEER_PYTHON and SCOPEFLOW_PEER_SOURCE name it, see benchmarks/peers/README.md.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from scopeflow import RegistrationConfig, SessionConfig, run_session, run_stage2
from scopeflow import run_stage3 as our_stage3
from tests.sessions.session_data import true_session, write_session

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("SCOPEFLOW_PEER_PYTHON"), reason="SCOPEFLOW_PEER_PYTHON names no peer"
    ),
]

QUIET = RegistrationConfig(progress=False, n_jobs=2)
COMMON = {
    "pattern": "rec_*.tif",
    "flow_options": {"quality_setting": "balanced", "reference_frames": [0]},
}


@pytest.fixture(scope="module")
def peer_session():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from peers.client import run_peer_session
    finally:
        sys.path.remove(str(BENCHMARKS))
    return run_peer_session


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Six recordings of 12 frames, 160 x 160 px: the peer is right on square frames only."""
    root = tmp_path_factory.mktemp("raw")
    write_session(true_session(frames=12, height=160, width=160, channels=1), root)
    return root


@pytest.fixture(scope="module")
def theirs(raw, peer_session, tmp_path_factory) -> Path:
    """A session that the peer has done alone."""
    root = tmp_path_factory.mktemp("theirs") / "session"
    shutil.copytree(raw, root)
    peer_session(root.parent / "a.json", "123", {**COMMON, "root": str(root), "n_workers": 1})
    return root


def bundle(root: Path) -> dict[str, np.ndarray]:
    with np.load(root / "final_results" / "final_valid_idx.npz") as stored:
        return dict(stored)


def averages(root: Path) -> np.ndarray:
    paths = sorted(root.glob("compensated_outputs/*/temporal_average.npy"))
    return np.stack([np.load(path) for path in paths])


def copy_of(root: Path, target: Path, *, stages: int) -> Path:
    """A copy of a session in which only the first stages are done."""
    shutil.copytree(root, target)
    if stages < 3:
        shutil.rmtree(target / "final_results")
    if stages < 2:
        for folder in (target / "compensated_outputs").glob("rec_*"):
            (folder / "w_to_reference.npz").unlink()
            (folder / "status.json").write_text('{\n  "stage1": "done"\n}')
    return target


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    return float((a == b).mean())


# The refining flow of ours moves the border of the mask by some tenths of a pixel: with it, 0.995
# holds from about 210 px on.
DOCUMENTED = {**COMMON, "sigma_refine": None}


@pytest.mark.parametrize(
    ("stages", "settings", "least"),
    [(1, DOCUMENTED, 0.995), (1, COMMON, 0.99), (2, COMMON, 0.995)],
    ids=["stage 1", "stage 1, refined", "stages 1 and 2"],
)
def test_we_continue_a_session_of_the_peer(theirs, tmp_path, stages, settings, least):
    root = copy_of(theirs, tmp_path / "session", stages=stages)
    files = list(root.glob("compensated_outputs/*/compensated.*"))
    before = {path: path.stat().st_mtime_ns for path in files}
    config = SessionConfig(root=root, **settings)
    result = run_session(config, execution=QUIET)
    assert {path: path.stat().st_mtime_ns for path in files} == before
    expected = bundle(theirs)
    ours = bundle(root)
    assert agreement(result.final_valid, expected["final_valid"]) >= least
    assert (ours["per_seq_valid_masks"] == expected["per_seq_valid_masks"]).all()
    assert (ours["temporal_averages"] == expected["temporal_averages"]).all()
    assert int(ours["middle_idx"]) == int(expected["middle_idx"])
    for name in ("displacement_fields_u", "displacement_fields_v"):
        assert ours[name].dtype == expected[name].dtype
        if stages == 2:
            assert (ours[name] == expected[name]).all()
    if stages == 2:
        assert agreement(ours["aligned_valid_masks"], expected["aligned_valid_masks"]) >= 0.9999
    for n in range(6):
        mine = tifffile.imread(root / "final_results" / f"aligned_rec_{n}.tif")
        assert mine.shape == (12, 160, 160)
        if stages == 2:
            video = tifffile.imread(
                theirs / "final_results" / f"aligned_rec_{n}.tif", key=range(12)
            )
            inside = ours["final_valid"]
            # Without displacements within the recording, frames are interpolated a second time,
            # as the peer does; it truncates values where we round.
            assert np.abs(mine.astype(int) - video)[:, inside].mean() < 1.5


def test_the_documented_settings_give_the_displacements_of_the_peer(theirs, tmp_path):
    root = copy_of(theirs, tmp_path / "session", stages=1)
    config = SessionConfig(root=root, sigma_refine=None, **COMMON)
    _, _, fields = run_stage2(config, execution=QUIET)
    expected = bundle(theirs)
    inside = expected["final_valid"]
    for n, w in enumerate(fields):
        other = np.stack(
            [expected["displacement_fields_u"][n], expected["displacement_fields_v"][n]], axis=-1
        )
        assert np.linalg.norm(w - other, axis=-1)[inside].mean() < 0.15


@pytest.mark.parametrize("stages", [1, 2])
def test_the_peer_continues_a_session_of_ours(raw, peer_session, tmp_path, stages):
    root = tmp_path / "session"
    shutil.copytree(raw, root)
    config = SessionConfig(root=root, **DOCUMENTED)
    ours = run_session(config, execution=QUIET)
    expected = bundle(root)
    shutil.rmtree(root / "final_results")
    if stages == 1:
        for folder in (root / "compensated_outputs").glob("rec_*"):
            (folder / "w_to_reference.npz").unlink()
            (folder / "status.json").write_text('{\n  "stage1": "done"\n}')
    # Also its stage 1: it has to find that everything is done.
    names = ("compensated.hdf5", "idx.hdf", "temporal_average.npy")
    kept = [path for name in names for path in root.glob(f"compensated_outputs/*/{name}")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    peer_session(tmp_path / "a.json", "123", {**COMMON, "root": str(root), "n_workers": 1})
    assert len(kept) == 18
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    theirs = bundle(root)
    assert agreement(theirs["final_valid"], ours.final_valid) >= 0.995
    assert (theirs["temporal_averages"] == expected["temporal_averages"]).all()
    assert (theirs["per_seq_valid_masks"] == expected["per_seq_valid_masks"]).all()
    if stages == 2:
        assert (theirs["displacement_fields_u"] == expected["displacement_fields_u"]).all()
    # And we take what the peer has finished.
    assert (our_stage3(config, execution=QUIET) == theirs["final_valid"]).all()


def test_both_programs_make_the_same_session_from_raw_frames(raw, theirs, tmp_path):
    root = tmp_path / "session"
    shutil.copytree(raw, root)
    result = run_session(SessionConfig(root=root, **COMMON), execution=QUIET)
    expected = bundle(theirs)
    assert agreement(result.final_valid, expected["final_valid"]) >= 0.99
    difference = np.abs(averages(root) - expected["temporal_averages"])[:, 8:-8, 8:-8]
    assert difference.mean() < 0.02 * np.ptp(expected["temporal_averages"])
    for n in range(6):
        name = f"compensated_outputs/rec_{n}/idx.hdf"
        with h5py.File(root / name) as a, h5py.File(theirs / name) as b:
            assert a["ch1"].shape == b["ch1"].shape
            assert agreement(a["ch1"][:], b["ch1"][:]) > 0.99
