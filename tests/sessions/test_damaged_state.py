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
from tests.damage import at_most, damages, replacements, results, survives


def session(root):
    return SessionConfig(root=root, stage1_quality_setting="fast", center="auto", n_workers=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("session") / "whole"
    root.mkdir()
    video = synthetic_recording(4, 32, 40, seed=1, translation_px=1.0).video.astype(np.uint16)
    for name, shift in (("a.tif", 0), ("b.tif", 2)):
        moved = np.roll(video[..., 0], shift, axis=2)
        tifffile.imwrite(root / name, moved, photometric="minisblack")
    run_session(session(root))
    return root


def without_paths(root):
    """Return the results but for those that hold the path of the session."""
    named = ("final_valid_idx.npz", "final_valid_idx.mat", "session_report.json")
    return {n: data for n, data in results(root).items() if not n.endswith(named)}


def test_a_damaged_state_never_changes_results(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.damage.results", without_paths)
    # The input keeps its place and times: it is the copy that is told from the original by them.
    assert survives(whole, lambda out: run_session(session(out)), tmp_path, count=1) == []


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("compensated_outputs/a/status.json", False),
        ("compensated_outputs/a/temporal_average.npy", False),
        ("compensated_outputs/b/w_to_reference.npz", False),
        ("final_results/session_report.json", False),
        ("final_results/status.json", False),
    ],
)
def test_products_that_are_read_again_are_made_again(whole, tmp_path, name, needed):
    for n, seed in enumerate((1, 2)):
        root = tmp_path / str(n)
        shutil.copytree(whole, root)
        truth = without_paths(root)
        ways = (
            damages(root / name, tmp_path / "elsewhere", 1, seed)
            if name.endswith("json")
            else {
                "empty": lambda path=root / name: path.write_bytes(b""),
                **replacements(root / name, tmp_path / "elsewhere"),
            }
        )
        way = sorted(ways)[seed]
        ways[way]()
        with at_most(60):
            session_status(session(root))
            run_session(session(root))
        assert without_paths(root) == truth, way


def test_damaged_facts_of_stage_1_are_refused_by_name(whole, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(whole, root)
    facts = root / "compensated_outputs" / "a" / "run.json"
    for text in ("[]", '{"options": {"channel_idx": "x"}}', ""):
        facts.write_text(text)
        with pytest.raises(ScopeflowError, match=r"a/run\.json is damaged.*Remove it"):
            run_session(session(root))
    facts.unlink()
    run_session(session(root))


def test_status_of_damaged_sessions_is_told(whole, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(whole, root)
    for path in root.rglob("*.json"):
        path.write_text(json.dumps({"recordings": [1], "stage1": ["done"], "values": 3}))
    assert [one.stages[2] for one in session_status(session(root), verify=True)] == ["missing"] * 2
