"""Numbers of the cell workflow that follow from the definitions, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import zarr
from scipy.stats import chi2

from scopeflow.cells.methods.background import (
    fill_tiles,
    foreground,
    surface,
    tile_medians,
    tiles_of,
)
from scopeflow.cells.methods.segmentation import LogStdOptions, clean_mask, log_std
from scopeflow.cells.methods.tracking import (
    bbox_iou,
    link_frames,
    mask_iou,
    overlap_counts,
    region_table,
)
from scopeflow.cells.steps.extract import filter_cells, trace_table
from scopeflow.cells.workflow import run_workflow
from tests.cell_movies import cell_config, cell_movie

# -------------------------------------------------------------------------------------- threshold


@pytest.mark.parametrize("offset", [0.0, 1_000.0, 10_000.0, 40_000.0])
def test_median_log_std_of_noise(offset):
    # Nine times the variance of nine normal values of standard deviation 2 is 4 chi² of 8 degrees.
    expected = 0.5 * math.log(4 / 9 * chi2.ppf(0.5, 8))
    noise = np.random.default_rng(0).normal(offset, 2, (400, 400))
    assert float(np.median(log_std(noise))) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("size", "steps"), [(7, 3), (5, 2), (3, 1)])
def test_squares_survive_from_the_size_of_the_opening_on(size, steps):
    least = (size - 1) * steps + 1  # 19 for the defaults: 361 px
    options = LogStdOptions(
        morph_size=size, morph_shape="square", morph_iterations=steps, min_object_size=1
    )
    for side, kept in ((least - 1, 0), (least, least * least)):
        mask = np.zeros((80, 80), bool)
        mask[30 : 30 + side, 25 : 25 + side] = True
        assert clean_mask(mask, options).sum() == kept


# --------------------------------------------------------------------------------------- tracking


def test_a_cell_in_the_notch_of_another():
    frame = np.zeros((30, 30), np.uint16)
    frame[:20, :4] = frame[16:20, :20] = 1  # an L; its box is 20 x 20 px
    frame[2:14, 6:18] = 2  # 12 x 12 px inside that box
    table = region_table(frame)
    assert bbox_iou(table, table)[0, 1] == pytest.approx(144 / 400)
    assert mask_iou(table, table, overlap_counts(frame, frame))[0, 1] == 0


def test_after_a_division_the_daughter_with_the_larger_overlap_keeps_the_number():
    mother = [1, 200, 0, 0, 10, 20]
    small, large = [1, 80, 0, 0, 10, 8], [2, 120, 0, 8, 10, 20]
    ids = link_frames([np.array([mother]), np.array([small, large])])
    # IoU 80 / 200 and 120 / 200.
    assert [one.tolist() for one in ids] == [[1], [2, 1]]


def test_a_link_at_the_bound_holds():
    a, b = np.array([[1, 100, 0, 0, 10, 10]]), np.array([[1, 100, 0, 8, 10, 18]])
    iou = 20 / 180
    for bound, linked in ((iou, True), (np.nextafter(iou, 1), False)):
        assert (link_frames([a, b], bound)[1][0] == 1) == linked


# ------------------------------------------------------------------------------------- background


def test_a_tilted_plane_with_cells_and_photon_noise():
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:768, :768]
    plane = 200 + 0.05 * x + 0.02 * y
    labels = np.zeros(plane.shape, np.uint16)
    for n in range(36):
        inside = np.hypot(y - 64 - 128 * (n // 6), x - 64 - 128 * (n % 6)) <= 28
        labels[inside] = n + 1
    image = rng.poisson(plane + 300.0 * (labels > 0)).astype(np.uint16)
    tiles = tiles_of(768, 768, 100)
    medians = tile_medians(image, foreground(labels, 10), tiles)
    error = surface(fill_tiles(medians), tiles) - plane
    # The median of about 6000 values of standard deviation 16 has one of 0.25, and a median of
    # counts is up to half a count below their mean. Nothing of the tilt of 54 counts is left.
    assert np.sqrt(np.mean(error**2)) < 0.75
    assert -0.6 < error.mean() < 0.1
    assert np.abs(error[:20, :20]).max() < 3


# ------------------------------------------------------------------------------- filters of traces


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((5, 5, 95, 115), True),
        ((4, 5, 95, 115), False),
        ((5, 4, 95, 115), False),
        ((5, 5, 96, 115), False),
        ((5, 5, 95, 116), False),
    ],
)
def test_a_cell_may_touch_the_margin_but_not_enter_it(box, kept):
    # Boxes are half-open, so that 95 is the last row that may stand in y1 for a frame of 100 rows.
    cells = np.array([[0, 1, 9, *box, 1], [1, 1, 9, 40, 40, 50, 50, 1]])
    table, counts = filter_cells(trace_table(0, cells, {}), 2, 5, (100, 120))
    assert len(table) == 2 * kept
    assert counts["cells_at_border"] == (not kept)
    # 0 is off.
    at_edge = np.array([[0, 1, 9, 0, 0, 100, 120, 1]])
    assert len(filter_cells(trace_table(0, at_edge, {}), 1, 0, (100, 120))[0]) == 1
    assert len(filter_cells(trace_table(0, at_edge, {}), 2, 0, (100, 120))[0]) == 0


# -------------------------------------------------------------------------- from crops to the table


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    movie = cell_movie(n_frames=4, height=120, width=150, n_cells=2)
    output = tmp_path_factory.mktemp("numbers") / "out"
    data = np.stack([movie.phase, movie.fluorescence], axis=-1)
    assert run_workflow(data, output, cell_config(min_frames=1, background_weight=0.6))
    return output / "fov_000"


def test_intensities_are_sums_of_counts_in_the_crops(done):
    cells = zarr.open_group(done / "cells.zarr", mode="r")
    (path,) = done.glob("*_traces.csv")
    table = pd.read_csv(path)
    assert len(table) == 4 + 2  # the second cell comes two frames later
    for row in table.itertuples():
        light = cells[f"fl_ch_1/{row.cell}/0"][row.frame].astype(float)
        level = cells[f"fl_background_ch_1/{row.cell}/0"][row.frame].astype(float)
        mask = cells[f"seg_mask_ch_0/{row.cell}/0"][row.frame] > 0
        counts = np.rint(light * cells["fl_ch_1"].attrs["scale"])
        total = counts[mask].sum() - 0.6 * cells["fl_ch_1"].attrs["scale"] * level[mask].sum()
        assert row.area_ch_0 == mask.sum()
        assert row.intensity_total_ch_1 == pytest.approx(total, rel=1e-6)
        assert row.intensity_mean_ch_1 == pytest.approx(total / mask.sum(), rel=1e-6)


@pytest.mark.parametrize("name", ["pc_ch_0", "fl_ch_1", "fl_background_ch_1"])
def test_small_pictures_run_from_the_first_to_the_last_percentile(done, name):
    group = zarr.open_group(done / "images.zarr", mode="r")
    stack, small = group[f"{name}/0"][:].astype(float), group[f"{name}/1"][:]
    low, high = np.percentile(stack, [1, 99])
    scaled = (np.clip((stack - low) / (high - low), 0, 1) * 255).astype(np.uint8).astype(float)
    expected = scaled.reshape(4, 60, 2, 75, 2).mean(axis=(2, 4)).astype(np.uint8)
    if name.startswith("fl_background"):  # percentiles of floats from the upper 20 bits
        assert np.abs(small.astype(int) - expected).max() <= 3
    else:
        np.testing.assert_array_equal(small, expected)


def test_small_pictures_of_cells(done):
    cells = zarr.open_group(done / "cells.zarr", mode="r")
    crop, small = cells["fl_ch_1/1/0"][:].astype(float), cells["fl_ch_1/1/1"][:]
    low, high = np.percentile(crop, [1, 99])
    scaled = (np.clip((crop - low) / (high - low), 0, 1) * 255).astype(np.uint8).astype(float)
    _, height, width = small.shape
    scaled = scaled[:, : 2 * height, : 2 * width].reshape(4, height, 2, width, 2)
    np.testing.assert_array_equal(small, scaled.mean(axis=(2, 4)).astype(np.uint8))
    mask, small = cells["seg_mask_ch_0/1/0"][:], cells["seg_mask_ch_0/1/1"][:]
    np.testing.assert_array_equal(small, 255 * mask[:, : 2 * height : 2, : 2 * width : 2])
