"""Objects of a mask, the fused threshold of the log-STD, and the cutting of touching cells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.morphology import h_maxima

from scopeflow.cells.config import ProcessingParams, WorkflowConfig
from scopeflow.cells.methods.components import erase_objects, find_objects, paint_objects
from scopeflow.cells.methods.registered import segmentation_method
from scopeflow.cells.methods.segmentation import (
    LogStdOptions,
    find_threshold,
    log_std,
    segment,
    texture_mask,
)
from scopeflow.cells.methods.splitting import landscape, split_objects
from scopeflow.errors import OptionsError
from tests.cell_movies import cell_movie
from tests.oracles import naive_cells


def masks():
    rng = np.random.default_rng(7)
    yield "empty", np.zeros((9, 7), bool)
    yield "full", np.ones((5, 70), bool)
    yield "checkerboard", np.indices((17, 18)).sum(axis=0) % 2 == 0
    spiral = np.zeros((15, 15), bool)
    spiral[1, 1:14] = spiral[1:14, 13] = spiral[13, 1:14] = spiral[3:14, 1] = spiral[3, 1:12] = 1
    spiral[3:12, 11] = spiral[11, 3:12] = spiral[5:12, 3] = True
    yield "spiral", spiral
    yield (
        "comb",
        (np.arange(40) % 2 == 0) | (np.arange(20) > 18)[:, None],
    )
    for share in (0.2, 0.5, 0.6, 0.8):
        yield f"noise {share}", rng.random((61, 83)) < share
        yield f"column {share}", rng.random((40, 1)) < share
    yield "blobs", ndimage.gaussian_filter(rng.normal(size=(90, 110)), 3) > 0.05


@pytest.mark.parametrize("mask", [pytest.param(mask, id=name) for name, mask in masks()])
def test_objects_are_those_of_skimage(mask):
    expected = label(mask, connectivity=1)
    runs, areas = find_objects(mask)
    np.testing.assert_array_equal(areas, np.bincount(expected.ravel())[1:])
    numbers = np.arange(1, len(areas) + 1).astype(np.uint16)
    np.testing.assert_array_equal(paint_objects(runs, numbers, mask.shape), expected)
    keep = areas > 5
    left = mask.astype(np.uint8)
    erase_objects(left, runs, keep)
    np.testing.assert_array_equal(left, np.concatenate([[False], keep])[expected])


# -------------------------------------------------------------------------------- fused threshold


def pictures():
    rng = np.random.default_rng(11)
    cells = cell_movie(n_frames=1, n_cells=4, late=False).phase[0]
    yield "cells", cells
    yield "cells, 8 bits", (cells // 8).astype(np.uint8)
    yield "one mode", rng.normal(40_000, 2, (120, 90)).astype(np.uint16)
    yield "extremes", np.where(rng.random((50, 60)) < 0.3, 0, 65535).astype(np.uint16)
    flat = np.full((60, 70), 30_000, np.uint16)
    flat[20:30, 20:40] = rng.integers(0, 65536, (10, 20))
    yield "flat background", flat
    yield "narrow", rng.integers(0, 2, (40, 16)).astype(np.uint8)


@pytest.mark.parametrize("image", [pytest.param(image, id=name) for name, image in pictures()])
@pytest.mark.parametrize("window", [3, 5, 37, 39])
@pytest.mark.parametrize("method", ["valley", "mode_3sigma", "otsu"])
def test_texture_is_found_as_by_its_logarithm(image, window, method):
    values = log_std(image, window)
    for offset in (0.0, -0.7, 0.4):
        options = LogStdOptions(window, method, threshold_offset=offset)
        expected = values > find_threshold(values, method) + offset
        np.testing.assert_array_equal(texture_mask(image, options), expected)


@pytest.mark.parametrize("share", [0.03, 0.2, 0.5])
def test_otsu_is_that_of_skimage(share):
    rng = np.random.default_rng(9)
    modes = rng.normal(0, 0.4, 30_000), rng.normal(3, 0.6, int(30_000 * share))
    values = np.concatenate(modes)
    assert find_threshold(values, "otsu") == pytest.approx(threshold_otsu(values, 200), abs=1e-12)


def test_rounding_noise_of_large_values_is_no_texture():
    image = np.zeros((200, 200), np.uint16)
    image[:, 100:] = 65535
    image[100, 50] = 1  # its variance over 37 x 37 px is below 1e-12 of the mean square
    values = log_std(image, 37)
    assert not np.isfinite(values[100, 50])
    found = texture_mask(image, LogStdOptions(37, threshold_offset=-30.0))
    np.testing.assert_array_equal(found, np.isfinite(values))


@pytest.mark.parametrize("method", ["valley", "mode_3sigma"])
@pytest.mark.parametrize(("window", "size", "steps"), [(3, 7, 3), (5, 3, 1), (3, 5, 0)])
def test_segmentation_is_that_of_the_naive_twin(method, window, size, steps):
    image = cell_movie(n_frames=1, height=110, width=130, n_cells=2, late=False).phase[0]
    options = LogStdOptions(window, method, size, "disk", steps, 40, 2000)
    expected = naive_cells.segment(image, window, method, size, steps, (40, 2000))
    assert expected.max() >= 2
    np.testing.assert_array_equal(segment(image, options)[0], expected)
    # Floats take the other way.
    np.testing.assert_array_equal(segment(image.astype(float), options)[0], expected)


# --------------------------------------------------------------------------------------- splitting


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("depth", [0.05, 0.4, 3.0])
def test_parts_are_those_of_the_naive_twin(seed, depth):
    rng = np.random.default_rng(seed)
    heights = ndimage.gaussian_filter(rng.normal(size=(24, 29)), 1.5)
    heights = np.rint(heights / heights.std() * 8).astype(np.float32) / 8  # with plateaus
    mask = ndimage.gaussian_filter(rng.normal(size=heights.shape), 2) > -0.05
    expected = naive_cells.split(mask, heights, depth)
    np.testing.assert_array_equal(split_objects(mask, heights, depth), expected)


@pytest.mark.parametrize("depth", [0.1, 0.3, 0.6])
def test_there_is_a_part_for_each_peak_that_stands_out(depth):
    rng = np.random.default_rng(3)
    heights = ndimage.gaussian_filter(rng.normal(size=(80, 90)), 3).astype(np.float32)
    heights /= np.ptp(heights)
    parts = split_objects(np.ones(heights.shape, bool), heights, depth)
    plus = ndimage.generate_binary_structure(2, 1)
    _, peaks = ndimage.label(h_maxima(heights, np.float32(depth), plus), plus)
    assert parts.max() == peaks
    for n in range(1, parts.max() + 1):
        assert ndimage.label(parts == n)[1] == 1


def test_touching_discs_are_cut_at_their_neck():
    y, x = np.mgrid[:60, :90]
    left, right = (np.hypot(y - 30, x - c) <= 16 for c in (30, 58))
    mask = left | right
    heights = landscape(mask, mask, "distance", 1.0)
    parts = split_objects(mask, heights, 0.5)
    np.testing.assert_array_equal(np.unique(parts), [0, 1, 2])
    assert ((parts > 0) == mask).all()
    # Symmetric, so the cut is at the column half way.
    assert (parts[:, :44][mask[:, :44]] == 1).all()
    assert (parts[:, 45:][mask[:, 45:]] == 2).all()
    assert split_objects(mask, heights, 10).max() == 1


@pytest.mark.parametrize("kind", ["bright", "dark"])
def test_cells_are_cut_where_brightness_has_a_valley(kind):
    y, x = np.mgrid[:50, :90]
    rng = np.random.default_rng(0)
    light = sum(np.exp(-((y - 25) ** 2 + (x - c) ** 2) / (2 * 7**2)) for c in (30, 52))
    image = 1000 + (1 if kind == "bright" else -1) * 800 * light + rng.normal(0, 8, light.shape)
    image = image.astype(np.uint16)
    base = LogStdOptions(morph_size=3, morph_iterations=2, min_object_size=60)
    joined, _, _ = segment(image, base)
    assert joined.max() == 1
    options = LogStdOptions(
        morph_size=3, morph_iterations=2, min_object_size=60, split=kind, split_depth=0.1
    )
    cut, _, _ = segment(image, options)
    np.testing.assert_array_equal(np.unique(cut), [0, 1, 2])
    np.testing.assert_array_equal(cut > 0, joined > 0)
    assert cut[25, 30] != cut[25, 52]
    border = np.flatnonzero(np.diff(cut[25, 30:53].astype(int))) + 30
    assert abs(border.mean() - 40.5) <= 2


def test_erosion_takes_pixels_from_the_edge_but_not_at_the_frame():
    movie = cell_movie(n_frames=1, n_cells=3, late=False)
    image = movie.phase[0][30:]  # cuts through the first row of cells
    whole = segment(image, LogStdOptions())[0] > 0
    for n in (1, 3):
        eroded = segment(image, LogStdOptions(object_erosion=n))[0] > 0
        expected = ndimage.binary_erosion(whole, iterations=n, border_value=1)
        np.testing.assert_array_equal(eroded, expected)
    assert eroded[0].any()


def test_parts_outside_the_size_bounds_are_counted():
    y, x = np.mgrid[:60, :110]
    mask = (np.hypot(y - 30, x - 30) <= 16) | (np.hypot(y - 30, x - 62) <= 17)
    noise = np.random.default_rng(0).normal(0, 1, mask.shape)
    image = (1000 + np.where(mask, 200 * noise, 3 * noise)).astype(np.uint16)
    options = LogStdOptions(split="distance", morph_iterations=1, min_object_size=50)
    labels, small, large = segment(image, options)
    areas = np.bincount(labels.ravel())[1:]
    assert len(areas) == 2
    assert (small, large) == (0, 0)
    bound = int(areas.max()) - 1
    options = LogStdOptions(
        split="distance", morph_iterations=1, min_object_size=50, max_object_size=bound
    )
    labels, small, large = segment(image, options)
    assert np.bincount(labels.ravel())[1:].tolist() == [areas.min()]
    assert (small, large) == (0, 1)


def test_options_reach_the_method():
    params = ProcessingParams(
        threshold_offset=-0.5, object_erosion=2, split="dark", split_smoothing=2, split_depth=0.1
    )
    expected = LogStdOptions(
        threshold_offset=-0.5, object_erosion=2, split="dark", split_smoothing=2, split_depth=0.1
    )
    assert segmentation_method(params) == expected
    assert segmentation_method(ProcessingParams()) == LogStdOptions()
    for key, value in (("split", "bight"), ("split_depth", 0), ("object_erosion", -1)):
        with pytest.raises(OptionsError, match=f"params.{key}"):
            WorkflowConfig(params={key: value})
