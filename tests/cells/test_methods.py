"""Methods beyond the default: linking over gaps and divisions, drift, features, other models."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import tifffile
from scipy.ndimage import map_coordinates
from skimage.measure import regionprops_table

from scopeflow.cells.config import ProcessingParams
from scopeflow.cells.methods import cellpose as cells_cellpose
from scopeflow.cells.methods import registered as cells_methods
from scopeflow.cells.methods import registry as cells_registry
from scopeflow.cells.methods.drift import displacement, moved_labels, region_offsets
from scopeflow.cells.methods.features import (
    FLUORESCENCE_FEATURES,
    PHASE_FEATURES,
    measure_frame,
    resolve_features,
)
from scopeflow.cells.methods.laptrack import link_laptrack
from scopeflow.cells.methods.regionprops import INTENSITY_FEATURES, SHAPE_FEATURES
from scopeflow.cells.methods.tracking import link_frames, overlap_counts, region_table
from scopeflow.errors import InputError, OptionsError

has_laptrack = pytest.mark.skipif(
    importlib.util.find_spec("laptrack") is None, reason="laptrack is not installed"
)
NONE = np.zeros((0, 6), np.int64)


def square(label, y, x, height=10, width=10):
    return [label, height * width, y, x, y + height, x + width]


def ids(found):
    return [one.tolist() for one in found]


@has_laptrack
@pytest.mark.parametrize(
    ("missing", "max_gap", "joined"), [(1, 1, True), (2, 1, False), (2, 2, True)]
)
def test_gaps_are_closed_up_to_their_longest(missing, max_gap, joined):
    both, one = np.array([square(1, 0, 0), square(2, 0, 50)]), np.array([square(1, 0, 50)])
    found, lineage = link_laptrack([both] * 2 + [one] * missing + [both] * 2, max_gap=max_gap)
    assert ids(found)[-1] == ([1, 2] if joined else [3, 2])
    assert len(lineage) == 0


@has_laptrack
def test_divisions_give_daughters_numbers_and_a_parent():
    mother = np.array([square(1, 0, 0, 20, 20), square(2, 60, 60)])
    daughters = np.array([square(1, 0, 0, 20, 9), square(2, 0, 11, 20, 9), square(3, 60, 61)])
    found, lineage = link_laptrack([NONE, mother, mother, daughters, daughters, NONE])
    assert ids(found) == [[], [1, 2], [1, 2], [3, 4, 2], [3, 4, 2], []]
    assert lineage.tolist() == [[3, 1], [4, 1]]
    found, lineage = link_laptrack([mother, daughters], splits=False)
    assert sorted(found[1].tolist()) == [1, 2, 3]
    assert len(lineage) == 0
    # Boxes of which nothing is shared are never linked, whatever is allowed.
    far = [np.array([square(1, 0, 0)]), np.array([square(1, 0, 50)])]
    assert ids(link_laptrack(far, min_iou=0.0)[0]) == [[1], [2]]


@has_laptrack
def test_laptrack_agrees_with_the_default_where_cells_neither_vanish_nor_divide():
    rng = np.random.default_rng(3)
    tables = []
    places = np.stack(np.meshgrid(np.arange(6), np.arange(6)), -1).reshape(-1, 2) * 30
    for _ in range(6):
        places = places + rng.integers(-2, 3, places.shape)
        order = rng.permutation(len(places))
        tables.append(np.array([square(n, *places[m]) for n, m in enumerate(order, 1)]))
    for a, b in zip(link_laptrack(tables)[0], link_frames(tables), strict=True):
        np.testing.assert_array_equal(a, b)


@has_laptrack
def test_laptrack_compares_masks_where_they_are_given():
    # An L and a square in its notch change places: boxes mislead, shared pixels do not.
    first = np.zeros((20, 20), int)
    first[0:12, 0:4] = first[8:12, 0:12] = 1
    first[0:6, 6:12] = 2
    second = np.where(first == 1, 2, np.where(first == 2, 1, 0))
    tables = [region_table(first), region_table(second)]
    shared = [np.zeros((0, 3), np.int64), overlap_counts(second, first)]
    assert ids(link_laptrack(tables, 0.1, shared)[0]) == [[1, 2], [2, 1]]


@has_laptrack
@pytest.mark.slow
def test_divisions_of_a_real_recording(shared_data):
    """Silver truth of PhC-C2DL-PSC; a division is an end with two starts near it, one frame on."""
    folder = shared_data / "ctc_PhC-C2DL-PSC" / "PhC-C2DL-PSC" / "02_ST" / "SEG"
    masks = np.stack([tifffile.imread(path) for path in sorted(folder.glob("*.tif"))])
    tables = [region_table(mask) for mask in masks]
    overlaps = [np.zeros((0, 3), np.int64)]
    overlaps += [overlap_counts(masks[t], masks[t - 1]) for t in range(1, len(masks))]
    found, lineage = link_laptrack(tables, 0.1, overlaps)
    cell_of = {
        (t, label): cell
        for t, (table, cells) in enumerate(zip(tables, found, strict=True))
        for label, cell in zip(table[:, 0].tolist(), cells.tolist(), strict=True)
    }
    links = [(t, n) for t, n in cell_of if (t - 1, n) in cell_of]
    assert len(links) == 3368
    assert sum(cell_of[t, n] == cell_of[t - 1, n] for t, n in links) >= 3367
    centre = {
        (t, row[0]): np.array([(row[2] + row[4]) / 2, (row[3] + row[5]) / 2])
        for t, table in enumerate(tables)
        for row in table.tolist()
    }
    first = {n: min(t for t, m in centre if m == n) for n in {n for _, n in centre}}
    last = {n: max(t for t, m in centre if m == n) for n in first}
    truth = set()
    for n, t in last.items():
        near = [
            m
            for m, start in first.items()
            if start == t + 1 and np.hypot(*(centre[t + 1, m] - centre[t, n])) < 20
        ]
        if len(near) == 2:
            truth.add((cell_of[t, n], *sorted(cell_of[t + 1, m] for m in near)))
    assert len(truth) == 11
    parents = {parent for _, parent in lineage.tolist()}
    divisions = {
        (parent, *sorted(cell for cell, p in lineage.tolist() if p == parent)) for parent in parents
    }
    assert len(divisions & truth) >= 9
    assert len(divisions - truth) <= 1


@has_laptrack
@pytest.mark.parametrize("options", [{"max_gap": -1}, {"max_gap": 1.5}, {"split_min_iou": 2}])
def test_bad_options_of_laptrack(options):
    with pytest.raises(OptionsError, match=next(iter(options))):
        link_laptrack([np.array([square(1, 0, 0)])], **options)


def texture(height, width, seed=0):
    noise = np.random.default_rng(seed).normal(0, 1, (height // 8 + 4, width // 8 + 4))
    y, x = np.mgrid[:height, :width] / 8.0
    return 1000 + 200 * map_coordinates(noise, [y + 1, x + 1], order=3)


@pytest.mark.parametrize("shift", [(0, 0), (7, -12), (-31, 25)])
def test_rigid_drift_is_found(shift):
    whole = texture(320, 360)
    dy, dx = shift
    previous = whole[60:260, 60:300]
    current = whole[60 - dy : 260 - dy, 60 - dx : 300 - dx]
    found = displacement(previous, current)
    np.testing.assert_allclose(found, (dx, dy), atol=0.2)


def test_flow_finds_what_moves_differently_and_labels_go_back():
    previous = texture(160, 200, 1)
    y, x = np.mgrid[:160, :200].astype(float)
    # The left side moves by 4 px to the right, the right side by 4 px to the left.
    truth = 4.0 * np.cos(np.pi * x / 199)
    current = previous.copy()
    source = x.copy()
    for _ in range(50):  # x = source + truth(source)
        source = x - 4.0 * np.cos(np.pi * source / 199)
    current = map_coordinates(previous, [y, source], order=3, mode="nearest")
    found = displacement(previous, current, "flow")
    inner = (slice(20, -20), slice(20, -20))
    assert np.abs(found[..., 0] - truth)[inner].mean() < 0.5
    assert np.abs(found[..., 1])[inner].mean() < 0.3
    before = np.zeros((160, 200), int)
    before[60:80, 20:40], before[60:80, 160:180] = 1, 2
    after = np.rint(
        map_coordinates(before.astype(float), [y, source], order=0, mode="nearest")
    ).astype(int)
    offsets = region_offsets(after, region_table(after), found)
    for n in (1, 2):
        expected = truth[before == n].mean()
        np.testing.assert_allclose(offsets[n - 1], (0, expected), atol=0.5)
    back = moved_labels(after, found)
    assert ((back == before) | (before == 0) & (back == 0)).mean() > 0.99


def test_drift_of_a_region_that_came_over_the_edge_is_that_of_the_whole():
    labels = np.zeros((20, 30), int)
    labels[5:10, 0:3] = 4
    moved = np.zeros((20, 30, 2))
    moved[..., 0] = 6.0  # all went 6 px to the right: nobody was at x < 6 before
    offsets = region_offsets(labels, region_table(labels), moved)
    assert offsets.tolist() == [[0.0, 6.0]]


@pytest.fixture(scope="module")
def blobs():
    y, x = np.mgrid[:60, :90]
    labels = np.zeros((60, 90), np.uint16)
    labels[((y - 20) / 12.0) ** 2 + ((x - 25) / 7.0) ** 2 <= 1] = 3
    labels[40:52, 50:80] = 7
    labels[44:48, 55:60] = 0
    rng = np.random.default_rng(0)
    image = rng.integers(300, 900, labels.shape).astype(np.uint16)
    level = (200 + 0.5 * x).astype(np.float32)
    return labels, image, level


def test_shape_features_are_those_of_the_whole_frame(blobs):
    labels, image, _ = blobs
    features = resolve_features(sorted(SHAPE_FEATURES), "phase")
    values, failures = measure_frame(labels, region_table(labels), image, features)
    assert not failures
    # Of the whole label image in one call; ours are of one cell cut out.
    expected = regionprops_table(labels, properties=tuple(SHAPE_FEATURES))
    for name in SHAPE_FEATURES:
        np.testing.assert_allclose(values[name], expected[name], rtol=1e-9, err_msg=name)


def test_intensity_features_are_freed_of_the_background(blobs):
    labels, image, level = blobs
    features = resolve_features(sorted(INTENSITY_FEATURES), "fluorescence")
    values, failures = measure_frame(
        labels, region_table(labels), image, features, background=level, background_weight=0.5
    )
    assert not failures
    for n, label in enumerate((3, 7)):
        rows, columns = np.nonzero(labels == label)
        counts = image[rows, columns] - 0.5 * level[rows, columns].astype(float)
        assert values["intensity_min"][n] == pytest.approx(counts.min())
        assert values["intensity_max"][n] == pytest.approx(counts.max())
        assert values["intensity_std"][n] == pytest.approx(counts.std())
        assert values["intensity_median"][n] == pytest.approx(np.median(counts))
        assert values["centroid_weighted_y"][n] == pytest.approx(
            (rows * counts).sum() / counts.sum()
        )
        assert values["centroid_weighted_x"][n] == pytest.approx(
            (columns * counts).sum() / counts.sum()
        )


class Entry:
    """What importlib.metadata gives for an entry point of another package."""

    def __init__(self, name, value, what):
        self.name, self.value, self.what = name, value, what

    def load(self):
        if isinstance(self.what, Exception):
            raise self.what
        return self.what


def offer(monkeypatch, module, group, *entries):
    def found(group=None, name=None, wanted=group):
        same = [e for e in entries if name is None or e.name == name]
        return same if group == wanted else []

    monkeypatch.setattr(module, "entry_points", found)


def test_segmentation_and_tracking_by_entry_point(monkeypatch):
    def bright(frame, *, least=10):
        return (frame > least).astype(int)

    offer(
        monkeypatch,
        cells_registry,
        "scopeflow.cells.segmentation",
        Entry("bright", "pack:bright", bright),
        Entry("broken", "pack:broken", ImportError("no module named torch")),
        Entry("twice", "a:b", bright),
        Entry("twice", "c:d", bright),
    )

    def chosen(name, **options):
        params = ProcessingParams(segmentation_method=name, segmentation_options=options)
        cells_methods.check_method(params)
        return cells_methods.segmentation_method(params)

    image = np.array([[5, 20, 200]])
    assert chosen("bright")(image).tolist() == [[0, 1, 1]]
    assert chosen("bright", least=100)(image).tolist() == [[0, 0, 1]]
    facts = [
        cells_methods.method_facts(
            ProcessingParams(segmentation_method="bright", segmentation_options={"least": n})
        )
        for n in (1, 2)
    ]
    assert facts[0] != facts[1]
    for name, options, words in [
        ("brihgt", {}, "Did you mean 'bright'"),
        ("bright", {"lest": 3}, "no option 'lest'. Did you mean 'least'"),
        ("logstd", {"window": 3}, "'logstd' has no option 'window'"),
        ("broken", {}, "no module named torch"),
        ("twice", {}, "a:b, c:d"),
    ]:
        with pytest.raises(OptionsError, match=words):
            chosen(name, **options)
    with pytest.raises(OptionsError, match="exists"):
        cells_methods.register_segmentation("bright", bright)
    with pytest.raises(OptionsError, match="'iou'"):
        cells_methods.check_method(ProcessingParams(tracking_method="iuo"))
    with pytest.raises(OptionsError, match="no option 'max_gap'"):
        cells_methods.check_method(ProcessingParams(tracking_options={"max_gap": 2}))


@has_laptrack
def test_parameters_are_not_given_as_options():
    params = ProcessingParams(tracking_method="laptrack", tracking_options={"min_iou": 0.3})
    with pytest.raises(OptionsError, match=r"set params\.min_iou"):
        cells_methods.check_method(params)


def test_features_by_entry_point(monkeypatch):
    from scopeflow.cells.methods import features as cells_features

    offer(
        monkeypatch,
        cells_features,
        "scopeflow.cells.phase_features",
        Entry("roundness", "pack:roundness", lambda image, mask, context: 1.0),
        Entry("broken", "pack:broken", RuntimeError("old numpy")),
    )
    found = resolve_features(["roundness", "area"], "phase")
    assert found["roundness"](None, None, None) == 1.0
    assert found["area"] is PHASE_FEATURES["area"]
    with pytest.raises(OptionsError, match="Did you mean 'roundness'"):
        resolve_features(["roundnes"], "phase")
    with pytest.raises(OptionsError, match="old numpy"):
        resolve_features(["broken"], "phase")
    with pytest.raises(OptionsError, match="no fluorescence feature 'roundness'"):
        resolve_features(["roundness"], "fluorescence")
    assert "intensity_std" in FLUORESCENCE_FEATURES


@pytest.mark.parametrize(("kind", "name"), [("segmentation", "cellpose"), ("tracking", "laptrack")])
def test_missing_packages_are_named_with_their_extra(monkeypatch, kind, name):
    monkeypatch.setattr(cells_registry, "find_spec", lambda package: None)
    with pytest.raises(OptionsError, match=rf"pip install 'scopeflow\[{name}\]'"):
        cells_methods.check_method(ProcessingParams(**{f"{kind}_method": name}))


@pytest.fixture
def cellpose(monkeypatch):
    """A stand-in with the documented interface of cellpose.models.CellposeModel (4.2)."""
    calls = []

    class CellposeModel:
        def __init__(self, gpu=False, pretrained_model="cpsam_v2", device=None):
            if pretrained_model == "absent":
                raise OSError("weights cannot be downloaded")
            calls.append((gpu, pretrained_model))

        def eval(self, x, batch_size=8, diameter=None, flow_threshold=0.4,
                 cellprob_threshold=0.0, min_size=15, **others):  # fmt: skip
            assert x.dtype == np.float32
            assert not others
            calls.append((diameter, flow_threshold, cellprob_threshold, min_size))
            masks = (x > x.mean()).astype(np.uint16)
            return masks, [np.zeros(x.shape)], np.zeros(256)

    package, models = ModuleType("cellpose"), ModuleType("cellpose.models")
    models.CellposeModel = CellposeModel
    package.models = models
    monkeypatch.setitem(sys.modules, "cellpose", package)
    monkeypatch.setitem(sys.modules, "cellpose.models", models)
    monkeypatch.setattr(cells_registry, "find_spec", lambda name: SimpleNamespace(name=name))
    cells_cellpose._load.cache_clear()
    yield calls
    cells_cellpose._load.cache_clear()


def test_cellpose_is_asked_as_it_documents(cellpose):
    options = {"diameter": 30, "cellprob_threshold": -1.0, "model": "mine"}
    params = ProcessingParams(segmentation_method="cellpose", segmentation_options=options)
    cells_methods.check_method(params)
    method = cells_methods.segmentation_method(params)
    frame = np.zeros((20, 30), np.uint16)
    frame[5:10, 5:10] = 900
    for _ in range(3):
        np.testing.assert_array_equal(method(frame), frame > 0)
    # One model for all frames.
    assert cellpose == [(False, "mine")] + [(30, 0.4, -1.0, 15)] * 3
    assert cells_methods.method_facts(params)[0] == "cellpose"
    with pytest.raises(InputError, match=r"'absent'|absent.*weights cannot be downloaded"):
        cells_cellpose.segment_cellpose(frame, model="absent")
    wrong = ProcessingParams(segmentation_method="cellpose", segmentation_options={"diamter": 3})
    with pytest.raises(OptionsError, match="Did you mean 'diameter'"):
        cells_methods.check_method(wrong)
