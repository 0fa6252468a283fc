"""Whole runs with methods beyond the default: drift, divisions, methods and features of users."""

from __future__ import annotations

import importlib.util
import logging

import numpy as np
import pandas as pd
import pytest
import zarr
from scipy.ndimage import label, map_coordinates

from scopeflow.cells import (
    export_results,
    napari_layers,
    open_results,
    register_preprocessor,
    register_segmentation,
    register_tracking,
    run_workflow,
)
from scopeflow.cells.config import WorkflowConfig
from scopeflow.cells.methods import registered as cells_methods
from scopeflow.errors import OptionsError

has_laptrack = pytest.mark.skipif(
    importlib.util.find_spec("laptrack") is None, reason="laptrack is not installed"
)


def bright(frame, *, least=2000):
    """Discs are brighter than everything else here."""
    return label(frame > least)[0]


@pytest.fixture(autouse=True)
def own_methods():
    """Take what a test registers back."""
    register_segmentation("bright", bright)
    yield
    cells_methods._SEGMENTATION.registered.clear()
    cells_methods._TRACKING.registered.clear()
    cells_methods._PREPROCESSORS.clear()


def config(features=("area",), **params):
    defaults = {"segmentation_method": "bright", "min_frames": 1, "border_margin": 0}
    return WorkflowConfig(
        channels={"pc": [0, list(features)]}, params={"n_workers": 1, **defaults, **params}
    )


def tracked(output):
    return zarr.open_array(output / "fov_000/images.zarr/seg_tracked_ch_0/0", mode="r")[:]


def disc(height, width, cy, cx, radius=8):
    y, x = np.mgrid[:height, :width]
    return (y - cy) ** 2 + (x - cx) ** 2 <= radius**2


@pytest.fixture(scope="module")
def jumping():
    """Nine discs on a dish under a stage that jumps by up to 30 px: frames and true numbers."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:240, :280] / 6.0
    noise = rng.normal(0, 1, (48, 56))
    dish = 1000 + 60 * map_coordinates(noise, [y + 1, x + 1], order=3)
    truth = np.zeros((240, 280), int)
    for n in range(9):
        # No grid: a jump from disc to disc has to look different from none.
        cy, cx = 80 + 35 * (n // 3) + rng.integers(-6, 7), 90 + 45 * (n % 3) + rng.integers(-8, 9)
        truth[disc(240, 280, cy, cx)] = n + 1
    dish[truth > 0] += 2000
    corners = [(40, 50), (60, 30), (35, 62), (58, 60), (32, 35), (50, 48)]
    frames = np.stack([dish[a : a + 140, b : b + 180] for a, b in corners])
    return (
        np.rint(frames).astype(np.uint16)[..., None],
        np.stack([truth[a : a + 140, b : b + 180] for a, b in corners]),
    )


def followed(found, truth):
    """Share of links of the truth that the numbers keep."""
    kept = total = 0
    for t in range(1, len(truth)):
        for n in range(1, truth.max() + 1):
            if (truth[t] == n).any() and (truth[t - 1] == n).any():
                total += 1
                now, before = (np.median(found[k][truth[k] == n]) for k in (t, t - 1))
                kept += now == before
    return kept / total


@pytest.mark.parametrize(
    ("params", "good"),
    [
        ({}, False),
        ({"drift_correction": "rigid"}, True),
        ({"drift_correction": "rigid", "iou": "mask"}, True),
        ({"drift_correction": "flow"}, True),
        pytest.param(
            {"drift_correction": "rigid", "tracking_method": "laptrack"}, True, marks=has_laptrack
        ),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_jumps_of_the_stage_are_followed_with_drift_correction(jumping, tmp_path, params, good):
    movie, truth = jumping
    assert run_workflow(movie, tmp_path, config(**params))
    share = followed(tracked(tmp_path), truth)
    assert share == 1.0 if good else share < 0.5
    # Images and positions stay as they were recorded.
    copied = zarr.open_array(tmp_path / "fov_000/images.zarr/pc_ch_0/0", mode="r")[:]
    np.testing.assert_array_equal(copied, movie[..., 0])
    table = open_results(tmp_path)[0].table
    found = tracked(tmp_path)
    for row in table[table["frame"] == 1].itertuples():
        assert np.nonzero(found[1] == row.cell)[0].min() == row.bbox_y0


def test_drift_is_told_and_blocks_do_not_matter(jumping, tmp_path, caplog, monkeypatch):
    movie, _ = jumping
    with caplog.at_level(logging.INFO, "scopeflow"):
        assert run_workflow(movie, tmp_path / "a", config(drift_correction="rigid"))
    # The longest jump is (25, 32), all in all it went (10, -2).
    assert "FOV 0 drifted by up to 40.6 px" in caplog.text
    monkeypatch.setattr("scopeflow.cells.plan._LONGEST_BLOCK", 2)
    assert run_workflow(movie, tmp_path / "b", config(drift_correction="rigid"))
    np.testing.assert_array_equal(tracked(tmp_path / "a"), tracked(tmp_path / "b"))


@pytest.fixture(scope="module")
def dividing():
    """A cell that divides at frame 3, one that is not seen in frame 2, one that stays."""
    frames = np.full((6, 90, 140), 500, np.uint16)
    for t in range(6):
        spots = [(60, 100, 8)] + ([(60, 60, 8)] if t != 2 else [])
        spots += [(30, 35, 12)] if t < 3 else [(22 - t, 35, 8), (38 + t, 35, 8)]
        for cy, cx, radius in spots:
            frames[t][disc(90, 140, cy, cx, radius)] = 3000
    return frames[..., None]


@has_laptrack
def test_lineage_goes_from_laptrack_to_all_results(dividing, tmp_path):
    geff = pytest.importorskip("geff")
    params = {"tracking_method": "laptrack", "tracking_options": {"max_gap": 1}}
    assert run_workflow(dividing, tmp_path / "run", config(**params))
    fov = open_results(tmp_path / "run")[0]
    found = tracked(tmp_path / "run")
    mother = found[0, 30, 35]
    daughters = [found[3, 18, 35], found[3, 42, 35]]
    assert len({mother, *daughters}) == 3
    lineage = fov.lineage.set_index("cell")
    assert [lineage.loc[d, "parent"] for d in daughters] == [mother, mother]
    assert lineage.loc[mother, ["first_frame", "last_frame", "parent"]].tolist() == [0, 2, 0]
    missing = found[0, 60, 60]
    assert found[3, 60, 60] == missing
    table = fov.table
    assert table.loc[table["cell"] == missing, "frame"].tolist() == [0, 1, 3, 4, 5]
    (path,) = export_results(tmp_path / "run", tmp_path / "out", "geff")
    graph, _ = geff.read(path)
    nodes = dict(graph.nodes(data=True))
    links = {(nodes[a]["cell"], nodes[b]["cell"]) for a, b in graph.edges}
    assert {pair for pair in links if pair[0] != pair[1]} == {(mother, d) for d in daughters}
    assert {n["lineage"] for n in nodes.values() if n["cell"] in daughters} == {mother}
    (tracks,) = [words for _, words, kind in napari_layers(fov) if kind == "tracks"]
    assert tracks["graph"] == {d: [mother] for d in daughters}
    # Another method leaves no lineage of the one before.
    assert run_workflow(dividing, tmp_path / "run", config())
    assert not list((tmp_path / "run").rglob("*lineage.csv"))
    assert (open_results(tmp_path / "run")[0].lineage["parent"] == 0).all()


def test_tracking_of_a_user(dividing, tmp_path):
    def by_column(labels, *, width=20):
        numbers = np.zeros_like(labels)
        for t, frame in enumerate(labels):
            for n in range(1, frame.max() + 1):
                rows, columns = np.nonzero(frame == n)
                if rows.mean() > 50:
                    numbers[t][frame == n] = columns.mean() // width
        return numbers, {5: 3} if width == 20 else {}

    register_tracking("by_column", by_column)
    assert run_workflow(dividing, tmp_path, config(tracking_method="by_column"))
    found = tracked(tmp_path)
    assert np.unique(found).tolist() == [0, 3, 5]
    assert found[0, 60, 60] == 3
    assert not found[:, 30, 35].any()  # left out: number 0
    lineage = pd.read_csv(tmp_path / "fov_000" / "recording_fov_000_lineage.csv")
    assert lineage.to_numpy().tolist() == [[3, 0, 5, 0], [5, 0, 5, 3]]
    assert run_workflow(
        dividing,
        tmp_path,
        config(tracking_method="by_column", tracking_options={"width": 30}),
    )
    assert np.unique(tracked(tmp_path)).tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (lambda labels: labels[:2], "shape"),
        (lambda labels: labels * 1.0, "float64"),
        (lambda labels: (labels + 1).astype(np.uint16), "background"),
        (lambda labels: np.where(labels > 0, 4, 0), "two objects of frame 0 the number 4"),
        (lambda labels: labels * (np.arange(140) < 60), "may only renumber whole objects"),
        (lambda labels: (labels, {1: 99}), "parent 99 of cell 1"),
        (lambda labels: labels.astype(int) * 40000, "use 0 to 65535"),
    ],
)
def test_tracking_that_breaks_the_contract_is_named(dividing, tmp_path, caplog, method, words):
    register_tracking("bad", method)
    assert not run_workflow(dividing, tmp_path, config(tracking_method="bad"))
    assert "the tracking method 'bad'" in caplog.text
    assert words in caplog.text


def test_options_of_a_segmentation_method_change_its_results(dividing, tmp_path):
    steps = []
    assert run_workflow(dividing, tmp_path, config())
    assert tracked(tmp_path).any()
    changed = config(segmentation_options={"least": 5000})
    assert run_workflow(dividing, tmp_path, changed, progress=steps.append)
    assert not tracked(tmp_path).any()
    assert {s["message"] for s in steps if s["step"] == "copy"} == {"reused"}


def test_preprocessors_change_what_is_segmented_only(dividing, tmp_path):
    class Darker:
        def __init__(self, by):
            self.by = by

        def process(self, image):
            return image.astype(float) - self.by

    register_preprocessor(Darker(400))
    register_preprocessor(Darker(800))
    assert run_workflow(dividing, tmp_path, config())
    copied = zarr.open_array(tmp_path / "fov_000/images.zarr/pc_ch_0/0", mode="r")[:]
    np.testing.assert_array_equal(copied, dividing[..., 0])
    assert not tracked(tmp_path).any()  # 3000 - 1200 < 2000
    cells_methods._PREPROCESSORS.pop()
    assert run_workflow(dividing, tmp_path, config())
    assert tracked(tmp_path).any()


def test_features_of_the_pack_are_columns(dividing, tmp_path):
    names = ["area", "perimeter", "solidity"]
    assert run_workflow(dividing, tmp_path, config(names))
    table = open_results(tmp_path)[0].table
    assert list(table.columns[-3:]) == ["area_ch_0", "perimeter_ch_0", "solidity_ch_0"]
    radius = np.sqrt(table["area_ch_0"] / np.pi)
    assert (table["solidity_ch_0"] > 0.9).all()
    np.testing.assert_allclose(table["perimeter_ch_0"], 2 * np.pi * radius, rtol=0.08)


@pytest.mark.parametrize("more", [{}, {"iou": "mask"}, {"drift_correction": "rigid"}])
def test_regions_outside_bounds_of_size_are_not_linked(tmp_path, more):
    # The tiny one lies in front of the large one in the order of labels, and touches its box.
    def two(frame):
        labels = np.zeros(frame.shape, np.uint16)
        at = int(frame[0, 0])
        labels[10 + at : 14 + at, 10:14] = 1
        labels[12 + at : 32 + at, 16:36] = 2
        labels[40:45, 40:45] = 3
        return labels

    movie = np.zeros((4, 60, 64, 1), np.uint16)
    movie[:, 0, 0, 0] = np.arange(4)
    register_segmentation("two", two)
    try:
        options = {"min_size": 16 + 1, "max_size": 400}
        params = {"segmentation_method": "two", "tracking_options": options, **more}
        params |= {"min_frames": 1, "border_margin": 0}
        config = {"channels": {"pc": [0, ["area"]]}, "params": params}
        assert run_workflow(movie, tmp_path / "out", config)
        for bad in ({"min_size": 0}, {"min_size": 5, "max_size": 4}, {"max_size": 2.5}):
            wrong = {**params, "tracking_options": bad}
            with pytest.raises(OptionsError, match=r"params\.tracking_options: m.._size="):
                run_workflow(movie, tmp_path / "bad", {"channels": {"pc": 0}, "params": wrong})
    finally:
        del cells_methods._SEGMENTATION.registered["two"]
    assert not (tmp_path / "bad").exists()
    tracked = zarr.open_array(tmp_path / "out/fov_000/images.zarr/seg_tracked_ch_0/0", mode="r")[:]
    for t, frame in enumerate(tracked):
        expected = np.zeros((60, 64), int)
        expected[12 + t : 32 + t, 16:36] = 1
        expected[40:45, 40:45] = 2
        np.testing.assert_array_equal(frame, expected)
    (path,) = (tmp_path / "out" / "fov_000").glob("*_traces.csv")
    table = pd.read_csv(path)
    assert table.groupby("cell")["area_ch_0"].unique().map(list).to_dict() == {1: [400], 2: [25]}
