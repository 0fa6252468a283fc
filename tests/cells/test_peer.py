"""Areas and intensities on equal labels, scopeflow and PyAMA; runs where that program is named.

SCOPEFLOW_PYAMA_PYTHON and SCOPEFLOW_PYAMA_SOURCE name it, see benchmarks/peers/README.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from scopeflow.cells.config import WorkflowConfig
from scopeflow.cells.workflow import run_workflow
from tests.cell_movies import cell_movie

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("SCOPEFLOW_PYAMA_PYTHON"), reason="SCOPEFLOW_PYAMA_PYTHON names no peer"
    ),
]


@pytest.fixture(scope="module")
def run_pyama():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from peers.client import run_pyama
    finally:
        sys.path.remove(str(BENCHMARKS))
    return run_pyama


@pytest.fixture(scope="module")
def movie():
    """Large enough for the peer's background; all cells are there from the first frame on.

    Four of nine cells stay away from the edge, which the filters of both programs ask for.
    """
    return cell_movie(n_frames=31, height=520, width=560, n_cells=9, late=False)


@pytest.fixture(scope="module")
def ours(movie, tmp_path_factory):
    output = tmp_path_factory.mktemp("ours") / "out"
    data = np.stack([movie.phase, movie.fluorescence], axis=-1)
    config = WorkflowConfig(channels={"pc": 0, "fl": [1]}, params={"background_weight": 0.7})
    assert run_workflow(data, output, config)
    stacks = zarr.open_group(output / "fov_000" / "images.zarr", mode="r")
    (table,) = (output / "fov_000").glob("*_traces.csv")
    return {name: stacks[f"{name}/0"][:] for name in stacks}, pd.read_csv(table)


def joined(table, answer, totals="intensity_total_ch_1"):
    theirs = pd.DataFrame({k: answer[k] for k in ("cell", "frame", "area", "intensity_total")})
    theirs = theirs.astype({"cell": int, "frame": int})
    both = table.merge(theirs, on=["cell", "frame"], how="outer", indicator=True)
    assert (both["_merge"] == "both").all()
    assert len(both) == len(table) > 0
    return both["area_ch_0"], both["area"], both[totals], both["intensity_total"]


def test_areas_and_intensities_on_our_labels_and_background(run_pyama, ours, movie, tmp_path):
    stacks, table = ours
    answer = run_pyama(
        tmp_path,
        "extract",
        light=movie.fluorescence,
        labels=stacks["seg_tracked_ch_0"],
        background=stacks["fl_background_ch_1"],
        weight=0.7,
    )
    our_area, their_area, our_total, their_total = joined(table, answer)
    assert len(table) == 4 * 31
    np.testing.assert_array_equal(our_area, their_area)
    np.testing.assert_allclose(our_total, their_total, rtol=1e-5)


def test_same_numbers_for_the_same_masks(run_pyama, ours, movie, tmp_path):
    stacks, _ = ours
    answer = run_pyama(tmp_path, "track", mask=stacks["seg_labeled_ch_0"] > 0)
    np.testing.assert_array_equal(stacks["seg_tracked_ch_0"], answer["labels"])


def test_backgrounds_agree_inside_the_frame(run_pyama, ours, movie, tmp_path):
    stacks, _ = ours
    mask = stacks["seg_labeled_ch_0"][:3] > 0
    answer = run_pyama(tmp_path, "background", light=movie.fluorescence[:3], mask=mask)
    # Half a tile of theirs (128 px) at the edge is wrong in it by the slope of the background.
    inside = np.s_[:, 140:-140, 140:-140]
    difference = stacks["fl_background_ch_1"][:3][inside] - answer["background"][inside]
    assert np.abs(difference).max() < 0.07 * 25
    assert np.abs(difference).mean() < 0.5


def test_segmentations_of_clear_cells_overlap(run_pyama, ours, movie, tmp_path):
    stacks, _ = ours
    answer = run_pyama(tmp_path, "segment", phase=movie.phase[:3].astype(np.float32))
    mine, theirs = stacks["seg_labeled_ch_0"][:3] > 0, answer["mask"]
    assert (mine & theirs).sum() / (mine | theirs).sum() > 0.8


def test_areas_on_masks_of_real_cells(run_pyama, shared_data, tmp_path):
    from scopeflow.cells.methods.features import measure_frame, resolve_features
    from scopeflow.cells.methods.tracking import region_table

    folder = shared_data / "ctc_PhC-C2DL-PSC" / "PhC-C2DL-PSC"
    labels = np.stack(
        [tifffile.imread(folder / "02_ST" / "SEG" / f"man_seg{t:03d}.tif") for t in range(30)]
    )
    image = np.stack([tifffile.imread(folder / "02" / f"t{t:03d}.tif") for t in range(30)])
    # The peer leaves out cells that are not in all frames, or come within 50 px of the edge.
    edge = np.ones(labels.shape, bool)
    edge[:, 55:-55, 55:-55] = False
    lasting = [n for n in np.unique(labels[0])[1:] if all((f == n).any() for f in labels)]
    chosen = np.setdiff1d(lasting, labels[edge])
    assert len(chosen) > 30
    labels = np.where(np.isin(labels, chosen), labels, 0)
    level = np.random.default_rng(0).normal(90, 3, image.shape).astype(np.float32)
    answer = run_pyama(
        tmp_path, "extract", light=image, labels=labels, background=level, weight=1.0
    )
    rows = []
    area = resolve_features(["area"], "phase")
    total = resolve_features(["intensity_total"], "fluorescence")
    for t, frame in enumerate(labels):
        table = region_table(frame)
        sizes, _ = measure_frame(frame, table, image[t], area)
        sums, _ = measure_frame(
            frame, table, image[t], total, background=level[t], background_weight=1.0
        )
        rows.append(
            pd.DataFrame(
                {
                    "cell": table[:, 0],
                    "frame": t,
                    "area_ch_0": sizes["area"],
                    "intensity_total_ch_1": sums["intensity_total"],
                }
            )
        )
    our_area, their_area, our_total, their_total = joined(pd.concat(rows), answer)
    np.testing.assert_array_equal(our_area, their_area)
    np.testing.assert_allclose(our_total, their_total, rtol=1e-5)
