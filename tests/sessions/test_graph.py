"""Trees of sums and masks against naive twins, and what a leaf that fails takes with it."""

from __future__ import annotations

import numpy as np
import pytest

from scopeflow.engine.executor import LocalExecutor
from scopeflow.engine.ledger import Ledger
from scopeflow.engine.pieces import Piece, Result, task_of
from scopeflow.io.recording import open_recording
from scopeflow.sessions import graph

HERE = LocalExecutor("sequential", 1)


@pytest.fixture(params=[1, 3, 100], ids=lambda frames: f"{frames} frames in a leaf")
def leaves(request, monkeypatch):
    monkeypatch.setattr(graph, "_LEAF_BYTES", request.param * 10 * 12 * 2)
    return request.param


def video(kind):
    rng = np.random.default_rng(7)
    return rng.integers(0, 2**15, (73, 10, 12, 2)).astype(kind)


def test_the_mean_of_whole_numbers_is_exact(leaves):
    frames = video(np.uint16)
    outcome = HERE.compute(graph.temporal_mean(open_recording(frames).video))
    assert outcome.content.dtype == np.float64
    assert (outcome.content == frames.astype(np.int64).sum(axis=0) / 73).all()


def test_pixels_that_are_valid_in_all_frames(leaves):
    frames = (video(np.uint16)[..., :1] > 300).astype(np.uint8)
    outcome = HERE.compute(graph.valid_everywhere(open_recording(frames).video))
    assert (outcome.content == (frames > 0).all(axis=(0, 3))).all()
    assert 0 < outcome.content.mean() < 1


def test_a_leaf_that_fails_fails_the_tree_and_what_needs_it(leaves, tmp_path):
    frames = video(np.float32)
    frames[40, 2, 3, 0] = np.nan
    ledger = Ledger(str(tmp_path), str(tmp_path), "mark")
    written = []

    def write(mean):
        written.append(mean)
        return Result()

    mean = graph.temporal_mean(open_recording(frames).video)
    outcome = HERE.compute(task_of(Piece("average", write, (), ledger), mean, key="average-1"))
    assert outcome.failure.kind == "InputError"
    assert outcome.failure.reason.startswith("1 pixels of the corrected frames are NaN")
    assert not written
    assert ledger.find("average") is None
