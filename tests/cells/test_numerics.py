from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.integrate import solve_ivp
from skimage.measure import label, regionprops

from scopeflow.cells.methods.background import (
    fill_tiles,
    foreground,
    surface,
    tile_medians,
    tiles_of,
)
from scopeflow.cells.methods.display import (
    count_values,
    count_within_bins,
    halve_mean,
    percentile_of_counts,
    percentile_range,
    small_display,
    to_display,
    to_display_labels,
    values_of_keys,
)
from scopeflow.cells.methods.features import (
    FLUORESCENCE_FEATURES,
    PHASE_FEATURES,
    FeatureContext,
    measure_frame,
    register_feature,
    resolve_features,
)
from scopeflow.cells.methods.models import fit_trace, get_model
from scopeflow.cells.methods.segmentation import (
    LogStdOptions,
    clean_mask,
    find_threshold,
    label_cells,
    log_std,
    segment,
)
from scopeflow.cells.methods.tracking import (
    bbox_iou,
    link_frames,
    link_pair,
    mask_iou,
    overlap_counts,
    region_table,
    repaint,
)
from scopeflow.errors import InputError, OptionsError
from tests.cell_movies import cell_movie
from tests.oracles import naive_cells

RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def blobs():
    field = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(90, 110)), 3)
    return field > 0.06


# ------------------------------------------------------------------------------- segmentation


@pytest.mark.parametrize("window", [3, 5, 9])
def test_log_std_is_that_of_each_window(window):
    image = RNG.integers(0, 65536, (21, 17)).astype(np.uint16)
    image[3:15, 2:14] = 40000  # flat windows
    np.testing.assert_allclose(
        log_std(image, window), naive_cells.log_std(image, window), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("offset", [0, 1000, 10_000, 40_000])
def test_log_std_does_not_depend_on_the_offset(offset):
    noise = np.rint(np.random.default_rng(0).normal(100, 2, (200, 200)))
    values = log_std((noise + offset).astype(np.uint16))
    assert np.isfinite(values).mean() > 0.999
    np.testing.assert_allclose(values, log_std(noise.astype(np.uint16)), atol=1e-12)


def test_threshold_lies_in_the_valley_of_two_modes():
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(0, 0.3, 200_000), rng.normal(4, 0.4, 20_000)])
    # The sum of both densities is least near 1.93 (by its derivative).
    x = np.linspace(0.5, 3.5, 3001)
    density = 10 * np.exp(-0.5 * (x / 0.3) ** 2) / 0.3 + np.exp(-0.5 * ((x - 4) / 0.4) ** 2) / 0.4
    assert abs(find_threshold(values) - x[np.argmin(density)]) < 0.45
    assert values[values < 2].max() - 0.3 < find_threshold(values) < 2.8


def test_threshold_of_one_mode_is_three_sigma_above_it():
    values = np.random.default_rng(3).normal(1.0, 0.5, 400_000)
    # Left half of a normal: its standard deviation is sigma * sqrt(1 - 2/pi).
    expected = 1.0 + 3 * 0.5 * np.sqrt(1 - 2 / np.pi)
    for method in ("valley", "mode_3sigma"):
        assert abs(find_threshold(values, method) - expected) < 0.25


def test_constant_frame_has_no_cells():
    assert find_threshold(log_std(np.full((30, 30), 7))) == np.inf
    labels, _, _ = segment(np.full((30, 30), 7, np.uint16))
    assert not labels.any()


@pytest.mark.parametrize("shape", ["disk", "square"])
@pytest.mark.parametrize(("size", "iterations"), [(3, 1), (5, 2), (7, 3), (3, 0), (1, 2)])
def test_cleaning(blobs, shape, size, iterations):
    options = LogStdOptions(
        morph_size=size, morph_iterations=iterations, morph_shape=shape, min_object_size=30
    )
    footprint = np.ones((size, size), bool) if shape == "square" else naive_cells.disk(size // 2)
    expected = naive_cells.clean(blobs, footprint, iterations, 30)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(clean_mask(blobs, options), expected)


def test_cells_at_the_edge_keep_their_area():
    mask = np.zeros((80, 80), bool)
    mask[:30, :30] = True
    np.testing.assert_array_equal(clean_mask(mask, LogStdOptions(morph_shape="square")), mask)
    by_disk = clean_mask(mask, LogStdOptions())  # rounds the corner inside the frame only
    assert by_disk[:21, :30].all()
    assert by_disk[:30, :21].all()
    assert not by_disk[30:].any()


def test_labels_are_4_connected_and_in_raster_order(blobs):
    labels, small, large = label_cells(blobs)
    np.testing.assert_array_equal(labels, label(blobs, connectivity=1))
    assert (small, large) == (0, 0)


def test_size_bounds_are_inclusive():
    mask = np.zeros((10, 40), bool)
    for n, width in enumerate((4, 5, 6, 7)):
        mask[2, 10 * n : 10 * n + width] = True
    labels, small, large = label_cells(mask, 5, 6)
    assert sorted(np.bincount(labels.ravel())[1:]) == [5, 6]
    assert (small, large) == (1, 1)


def test_too_many_objects():
    mask = np.zeros((600, 600), bool)
    mask[::2, ::2] = True
    with pytest.raises(InputError, match="90000 objects"):
        label_cells(mask)


def test_segmentation_of_known_cells():
    movie = cell_movie(n_frames=2, n_cells=6, late=False)
    for frame, truth in zip(movie.phase, movie.truth, strict=True):
        labels, _, _ = segment(frame)
        assert labels.max() == 6
        for n in range(1, 7):
            (found,) = np.unique(labels[truth == n][labels[truth == n] > 0])
            shared = ((labels == found) & (truth == n)).sum()
            assert shared / ((labels == found) | (truth == n)).sum() > 0.85


# ----------------------------------------------------------------------------------- tracking


def box(label, y0, x0, y1, x1):
    return [label, (y1 - y0) * (x1 - x0), y0, x0, y1, x1]


def test_region_table(blobs):
    labels = label(blobs, connectivity=1) * 3  # gaps in the numbers
    expected = [[r.label, r.area, *r.bbox] for r in regionprops(labels)]
    np.testing.assert_array_equal(region_table(labels), expected)
    assert region_table(np.zeros((5, 5), int)).shape == (0, 6)


@pytest.mark.parametrize(("shift", "iou"), [(0, 1), (5, 1 / 3), (8, 1 / 9), (9, 1 / 19), (10, 0)])
def test_bbox_iou(shift, iou):
    a, b = np.array([box(1, 0, 0, 10, 10)]), np.array([box(1, 0, shift, 10, 10 + shift)])
    assert bbox_iou(a, b)[0, 0] == pytest.approx(iou)
    linked = link_frames([a, b], 0.1)[1][0] == 1
    assert linked == (iou >= 0.1)


def test_mask_iou_of_nested_shapes():
    frame = np.zeros((20, 20), np.uint16)
    frame[:20, :5] = frame[15:, :] = 1  # an L
    frame[2:12, 8:18] = 2  # in its notch
    table = region_table(frame)
    assert bbox_iou(table, table)[0, 1] > 0.2
    np.testing.assert_array_equal(mask_iou(table, table, overlap_counts(frame, frame)), np.eye(2))


@pytest.mark.parametrize("seed", range(12))
def test_links_are_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    iou = np.where(rng.random((4, 5)) < 0.5, rng.random((4, 5)), 0.05)
    pairs = link_pair(iou, 0.1)
    assert all(iou[r, c] >= 0.1 for r, c in pairs)
    # Costs of 1 for forbidden pairs: the most IoU in total.
    assert sum(iou[r, c] for r, c in pairs) == pytest.approx(naive_cells.best_links(iou, 0.1))


def test_new_gone_and_first_empty_frames():
    empty = np.zeros((0, 6), np.int64)
    a, b = box(1, 0, 0, 10, 10), box(2, 30, 30, 40, 40)
    tables = [empty, np.array([a]), np.array([a, b]), np.array([b]), np.array([a, b])]
    assert [ids.tolist() for ids in link_frames(tables)] == [[], [1], [1, 2], [2], [3, 2]]


def test_repaint_follows_truth():
    truth = cell_movie(n_frames=5).truth
    shuffled = np.stack(
        [
            np.array([0, *np.random.default_rng(t).permutation(4) + 1])[f]
            for t, f in enumerate(truth)
        ]
    ).astype(np.uint16)
    tables = [region_table(f) for f in shuffled]
    ids = link_frames(tables)
    tracked = np.stack([repaint(*one) for one in zip(shuffled, tables, ids, strict=True)])
    for n in range(1, 5):
        assert len(np.unique(tracked[truth == n])) == 1
    assert len(np.unique(tracked)) == 5


# --------------------------------------------------------------------------------- background


@pytest.mark.parametrize("radius", [0, 1, 4, 10])
def test_foreground_is_the_dilation_by_a_disk(radius):
    labels = (np.random.default_rng(0).random((70, 80)) > 0.998).astype(int)
    expected = ndimage.binary_dilation(labels > 0, naive_cells.disk(radius))
    np.testing.assert_array_equal(foreground(labels, radius), expected)


def test_tile_medians():
    image = RNG.integers(0, 5000, (130, 97)).astype(np.uint16)
    mask = RNG.random((130, 97)) < 0.4
    mask[:60, :60] = True
    tiles = tiles_of(130, 97, 40)
    medians = tile_medians(image, mask, tiles)
    for i, j in np.ndindex(tiles.shape):
        part = np.s_[tiles.y[i] : tiles.y[i + 2], tiles.x[j] : tiles.x[j + 2]]
        values = image[part][~mask[part]]
        if len(values) < 25 or len(values) < 0.1 * mask[part].size:
            assert np.isnan(medians[i, j])
        else:
            assert medians[i, j] == np.median(values)
    assert np.isnan(medians).any()
    assert not np.isnan(fill_tiles(medians)).any()


@pytest.mark.parametrize("size", [(200, 240), (768, 300), (90, 101)])
def test_surface_is_the_spline_of_fitpack(size):
    tiles = tiles_of(*size, 50)
    medians = RNG.normal(200, 20, tiles.shape)
    expected = naive_cells.background(medians, tiles.y, tiles.x)
    np.testing.assert_allclose(surface(medians, tiles), expected, atol=2e-4)


@pytest.mark.parametrize("size", [(16, 16), (40, 700), (512, 512), (768, 768)])
def test_plane_is_found_to_its_corners(size):
    y, x = np.mgrid[: size[0], : size[1]]
    plane = 200 + 0.05 * x + 0.02 * y
    tiles = tiles_of(*size)
    found = surface(tile_medians(plane, np.zeros(size, bool), tiles), tiles)
    # One tile on an axis knows no slope.
    bound = (
        0.01
        + 0.05 * size[1] * (tiles.shape[1] == 1) / 2
        + 0.02 * size[0] * (tiles.shape[0] == 1) / 2
    )
    assert np.abs(found - plane).max() <= bound
    assert found.dtype == np.float32


# ----------------------------------------------------------------------------------- features


def test_features_are_those_of_each_cell(blobs):
    labels = label(blobs, connectivity=1)
    image = RNG.integers(0, 65536, labels.shape).astype(np.uint16)
    level = RNG.normal(200, 5, labels.shape).astype(np.float32)
    table = region_table(labels)
    phase, _ = measure_frame(labels, table, image, resolve_features(list(PHASE_FEATURES), "phase"))
    fl, _ = measure_frame(
        labels,
        table,
        image,
        resolve_features(list(FLUORESCENCE_FEATURES), "fluorescence"),
        background=level,
        background_weight=0.5,
    )
    for n, region in enumerate(regionprops(labels)):
        inside = labels == region.label
        total = image[inside].astype(float).sum() - 0.5 * level[inside].astype(float).sum()
        assert fl["intensity_total"][n] == pytest.approx(total, rel=1e-12)
        assert fl["intensity_mean"][n] == pytest.approx(total / region.area, rel=1e-12)
        assert phase["area"][n] == region.area
        assert (phase["centroid_y"][n], phase["centroid_x"][n]) == pytest.approx(region.centroid)
        if region.axis_minor_length > 0:
            ratio = region.axis_major_length / region.axis_minor_length
            assert phase["aspect_ratio"][n] == pytest.approx(ratio, rel=1e-6)
        y0, x0, y1, x1 = region.bbox
        context = FeatureContext(
            image[y0:y1, x0:x1], region.image, level[y0:y1, x0:x1], 0.5, bbox=region.bbox
        )
        for registry, values in ((PHASE_FEATURES, phase), (FLUORESCENCE_FEATURES, fl)):
            for name, function in registry.items():
                one = function(context.image, context.mask, context)
                np.testing.assert_allclose(one, values[name][n], rtol=1e-9)


def test_aspect_ratio_of_a_rectangle_and_a_line():
    labels = np.zeros((40, 40), int)
    labels[5:15, 5:25] = 1
    labels[30, 5:20] = 2
    features = resolve_features(["aspect_ratio"], "phase")
    values, _ = measure_frame(labels, region_table(labels), labels, features)
    assert values["aspect_ratio"][0] == pytest.approx(np.sqrt(399 / 99))  # 2.00756
    assert np.isnan(values["aspect_ratio"][1])


def test_features_of_users_by_both_signatures():
    labels = np.array([[1, 1, 0], [0, 2, 2]])
    image = np.array([[5, 7, 0], [0, 1, 9]])

    def fails(image, mask, context):
        if context.cell == 2:
            raise RuntimeError
        return image[mask].max()

    register_feature("largest", fails, "phase")
    register_feature("least", lambda context: context.image[context.mask].min(), "phase")
    try:
        features = resolve_features(["largest", "least"], "phase")
        with pytest.raises(OptionsError):
            register_feature("least", fails, "phase")
    finally:
        del PHASE_FEATURES["largest"], PHASE_FEATURES["least"]
    values, failed = measure_frame(labels, region_table(labels), image, features)
    np.testing.assert_array_equal(values["largest"], [7, np.nan])
    np.testing.assert_array_equal(values["least"], [5, 1])
    assert failed == {"largest": 1}
    with pytest.raises(OptionsError, match="'area'"):
        resolve_features(["aera"], "phase")


# ------------------------------------------------------------------------------------ display


def test_percentiles_of_counts():
    values = np.random.default_rng(4).integers(0, 900, 12345)
    unique, counts = np.unique(values, return_counts=True)
    for percent in (0, 1, 37.5, 99, 100):
        expected = np.percentile(values, percent)
        assert percentile_of_counts(unique, counts, percent) == pytest.approx(expected, abs=1e-9)


def test_display_levels():
    stack = np.arange(1000)
    low = percentile_of_counts(stack, np.ones(1000, int), 1)
    high = percentile_of_counts(stack, np.ones(1000, int), 99)
    assert (low, high) == (pytest.approx(9.99), pytest.approx(989.01))
    shown = to_display(stack, low, high).astype(np.uint8)
    assert shown[[0, 10, 500, 989, 999]].tolist() == [0, 0, 127, 254, 255]
    assert to_display_labels(np.array([0, 1, 5]), 5).tolist() == [0, 51, 255]
    many = to_display_labels(np.arange(1001), 1000)
    assert many[0] == 0
    assert many[1:].min() == 1


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("shape", [(3, 10, 12), (2, 7, 9), (1, 1, 5), (2, 6, 1), (1, 1, 1)])
def test_small_pictures_are_scaled_then_halved(dtype, shape):
    stack = np.random.default_rng(5).integers(0, 1000, shape).astype(dtype)
    if dtype == "float32":
        stack = stack / np.float32(7) - 3
    low, high = (float(n) for n in np.percentile(stack, (1, 99)))
    found = small_display(stack, low, high)
    for frame, small in zip(stack, found, strict=True):
        expected = halve_mean(to_display(frame, low, high).astype(np.uint8)).astype(np.uint8)
        np.testing.assert_array_equal(small, expected)
    assert not small_display(stack, 5.0, 5.0).any()


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_percentile_range_is_that_of_numpy(dtype):
    rng = np.random.default_rng(6)
    for size in (1, 2, 3, 50, 101, 12345):
        values = (rng.normal(500, 90, size)).astype(dtype)
        expected = [np.percentile(values.astype(float), percent) for percent in (1, 99)]
        assert percentile_range(values) == pytest.approx(tuple(expected), abs=1e-9)
    assert percentile_range(np.array([4] * 500 + [9], dtype)) == (4.0, 9.0)


def test_counts_and_bins_of_values():
    integers = np.random.default_rng(7).integers(0, 65536, (2, 30, 40)).astype(np.uint16)
    np.testing.assert_array_equal(
        count_values(integers), np.bincount(integers.ravel(), minlength=65536)
    )
    floats = np.random.default_rng(8).normal(0, 9, (2, 30, 40)).astype(np.float32)
    floats[0, 0] = 0.0
    counts = count_values(floats)
    assert counts.sum() == floats.size
    # Bins are in the order of the values, and within them each value is counted by itself.
    bins = np.flatnonzero(counts)
    rows, lower = np.nonzero(within := count_within_bins(floats, bins.tolist()))
    unique, expected = np.unique(floats, return_counts=True)
    np.testing.assert_array_equal(values_of_keys(bins[rows] * 65536 + lower), unique)
    np.testing.assert_array_equal(within[rows, lower], expected)
    assert count_within_bins(floats, bins[3:5].tolist()).sum() == counts[bins[3:5]].sum()


# ------------------------------------------------------------------------------------- models

T = np.linspace(0, 25, 80)


@pytest.mark.parametrize("name", ["maturation", "trivial"])
@pytest.mark.parametrize("delta", [0.3, 5.22e-3, 5.22e-3 + 1.28, 5.22e-3 + 1e-9])
def test_models_solve_their_equations(name, delta):
    model = get_model(name)
    p = {"t0": 0.5, "ktl": 100.0, "delta": delta, "offset": 3.0, "km": 1.28, "scale": 1.0}
    p["beta"] = 5.22e-3

    def rates(t, s):
        m, dark, bright = s
        if name == "trivial":
            return [-delta * m, p["ktl"] * m - p["beta"] * dark, 0]
        mature = p["km"] * dark
        return [
            -delta * m,
            p["ktl"] * m - mature - p["beta"] * dark,
            mature - p["beta"] * bright,
        ]

    late = T[p["t0"] < T]
    solved = solve_ivp(
        rates, (0.5, 25), [1, 0, 0], t_eval=late, rtol=1e-10, atol=1e-10, method="LSODA"
    )
    expected = 3.0 + solved.y[1 if name == "trivial" else 2]
    found = model.function(T, p)
    np.testing.assert_allclose(found[p["t0"] < T], expected, rtol=1e-6)
    assert (found[p["t0"] > T] == 3.0).all()


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("maturation", {"t0": 0.4, "ktl": 2500.0, "delta": 0.09, "offset": 12.0}),
        ("trivial", {"t0": 3.0, "ktl": 80.0, "delta": 0.2, "beta": 0.05, "offset": 5.0}),
    ],
)
def test_fit_finds_the_truth(name, truth):
    model = get_model(name)
    clean = model.function(T, {**model.fixed, **truth})
    fit = fit_trace(T, clean, name)
    assert fit.success
    assert fit.r_squared > 0.9999
    for key in ("t0", "ktl"):
        assert fit.parameters[key] == pytest.approx(truth[key], rel=0.05)
    assert not fit_trace(T[:3], clean[:3], name).success
    with pytest.raises(OptionsError, match="'trivial'"):
        get_model("trival")
