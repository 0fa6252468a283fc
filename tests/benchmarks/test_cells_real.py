"""The scores of ``benchmarks/cells_real.py`` are right, and real cells are found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from scopeflow.cells.config import ProcessingParams
from scopeflow.cells.methods.registered import segmentation_method
from scopeflow.cells.methods.segmentation import segment

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def cells_real():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import cells_real
    finally:
        sys.path.remove(str(BENCHMARKS))
    return cells_real


@pytest.fixture(scope="module")
def labels():
    """Objects of two segmentations that overlap more and less."""
    rng = np.random.default_rng(2)
    fields = ndimage.gaussian_filter(rng.normal(size=(3, 70, 80)), (0, 3, 3))
    shifted = np.roll(fields, (2, 1), (1, 2)) + 0.01 * rng.normal(size=fields.shape)
    pair = [np.stack([ndimage.label(f > 0.06)[0] for f in one]) for one in (fields, shifted)]
    assert min(one.max() for one in pair) > 8
    return pair


def test_scores_are_those_of_their_definition(cells_real, labels):
    found, truth = labels
    hits = n_found = n_truth = 0
    shared = 0.0
    for ours, theirs in zip(found, truth, strict=True):
        n_found += len(np.unique(ours)) - 1
        n_truth += len(np.unique(theirs)) - 1
        for a in range(1, theirs.max() + 1):
            for b in range(1, ours.max() + 1):
                both = ((theirs == a) & (ours == b)).sum()
                iou = both / ((theirs == a) | (ours == b)).sum()
                hits += iou >= 0.5
                shared += iou if both > 0.5 * (theirs == a).sum() else 0.0
    scores = cells_real.overlap_scores(found, truth)
    assert scores["F1"] == pytest.approx(2 * hits / (n_found + n_truth))
    assert scores["SEG"] == pytest.approx(shared / n_truth)
    assert 0.1 < scores["SEG"] < scores["F1"] < 1


def test_tracks_are_those_that_py_ctcmetrics_reads(cells_real, labels):
    pytest.importorskip("ctc_metrics")
    found, truth = labels
    same = cells_real.challenge_scores(truth, truth)
    assert same == {"DET": 1, "SEG": 1, "TRA": 1, "LNK": 1}
    other = cells_real.challenge_scores(found, truth)
    assert other["SEG"] == pytest.approx(cells_real.overlap_scores(found, truth)["SEG"])
    assert other["TRA"] < 1


def test_objects_at_the_edge_are_left_out(cells_real):
    frame = np.zeros((1, 60, 60), int)
    frame[0, 3:9, 20:26] = 1
    frame[0, 18:26, 30:36] = 2  # reaches into the field of interest
    frame[0, 30, 30] = 5
    np.testing.assert_array_equal(np.unique(cells_real.field_of_interest(frame, 25)), [0, 2, 5])


def test_real_cells_of_held_out_frames(cells_real, shared_data):
    data = shared_data / "ctc_PhC-C2DL-PSC" / "PhC-C2DL-PSC"
    frames = [26, 37, 49]
    options = segmentation_method(ProcessingParams(**cells_real.SETTINGS))
    images = [tifffile.imread(data / "02" / f"t{t:03d}.tif") for t in frames]
    found = np.stack([segment(image, options)[0] for image in images])
    truth = np.stack([tifffile.imread(data / f"02_ST/SEG/man_seg{t:03d}.tif") for t in frames])
    scores = cells_real.overlap_scores(*map(cells_real.field_of_interest, (found, truth)))
    assert scores["SEG"] > 0.78
    assert scores["F1"] > 0.93


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_real_cells_are_followed(shared_data):
    command = [sys.executable, str(BENCHMARKS / "cells_real.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
