"""State files of sessions: damaged, foreign or hostile ones are made again or refused by name."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tifffile

from scopeflow import SessionConfig, run_session
from scopeflow.errors import ScopeflowError
from scopeflow.sessions.run import session_status
from scopeflow.testing.synthetic import synthetic_recording
from tests.damage import at_most, replacements, results, survives


def session(root):
    return SessionConfig(root=root, stage1_quality_setting="fast", center="auto", n_workers=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished session; sessions know the place of their recordings, so copies return to it."""
    folder = tmp_path_factory.mktemp("session")
    root = folder / "root"
    root.mkdir()
    video = synthetic_recording(4, 32, 40, seed=1, translation_px=1.0).video.astype(np.uint16)
    for name, shift in (("a.tif", 0), ("b.tif", 2)):
        moved = np.roll(video[..., 0], shift, axis=2)
        tifffile.imwrite(root / name, moved, photometric="minisblack")
    run_session(session(root))
    root.rename(folder / "whole")
    return folder / "whole"


@pytest.fixture
def root(whole):
    """The session in its place."""
    root = whole.parent / "root"
    shutil.copytree(whole, root)
    yield root
    shutil.rmtree(root)


def test_a_damaged_state_never_changes_results(whole, tmp_path):
    root = whole.parent / "root"
    assert survives(whole, lambda out: run_session(session(out)), tmp_path, root, count=1) == []


@pytest.mark.parametrize(
    "name",
    [
        "compensated_outputs/a/status.json",
        "compensated_outputs/a/temporal_average.npy",
        "compensated_outputs/b/w_to_reference.npz",
        "final_results/session_report.json",
        "final_results/status.json",
    ],
)
def test_products_that_are_read_again_are_made_again(whole, root, tmp_path, name):
    for way in ("pipe", "link to a device"):
        replacements(root / name, tmp_path / "elsewhere")[way]()
        with at_most(60):
            session_status(session(root))
            run_session(session(root))
        assert results(root) == results(whole), way


@pytest.mark.parametrize(
    "place", ["compensated_outputs/a", "compensated_outputs/b", "final_results"]
)
def test_a_status_with_other_bytes_is_written_again(whole, root, place):
    status = root / place / "status.json"
    for text in (status.read_text()[:-1], json.dumps(json.loads(status.read_text()))):
        status.write_text(text)
        run_session(session(root))
        assert status.read_bytes() == (whole / place / "status.json").read_bytes()


def test_damaged_facts_of_stage_1_are_refused_by_name(root):
    facts = root / "compensated_outputs" / "a" / "run.json"
    for text in ("[]", '{"options": {"channel_idx": "x"}}', ""):
        facts.write_text(text)
        with pytest.raises(ScopeflowError, match=r"a/run\.json is damaged.*Remove it"):
            run_session(session(root))
    facts.unlink()
    run_session(session(root))


def test_status_of_damaged_sessions_is_told(root):
    for path in root.rglob("*.json"):
        path.write_text(json.dumps({"recordings": [1], "stage1": ["done"], "values": 3}))
    assert [one.stages[2] for one in session_status(session(root), verify=True)] == ["missing"] * 2
