"""The level solver against one-pixel-after-the-other sweeps in float64."""

from __future__ import annotations

import numpy as np
import pytest

from scopeflow.compiled.bands import COLUMN_BORDER, FRONT
from scopeflow.compiled.simd import LANES
from scopeflow.flow.solver import LevelLayout, solve_level
from scopeflow.images.power import positive_power
from tests.oracles import naive_flow


def problem(h, w, channels, seed=0):
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(channels, 2, 3, h, w)) * 0.5
    tensors = np.empty((channels, 6, h, w))
    for out, (a, b) in zip(tensors, directions, strict=True):
        pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
        out[:] = [a[i] * a[j] + b[i] * b[j] for i, j in pairs]
    flow = np.pad(rng.normal(size=(2, h, w)), ((0, 0), (1, 1), (1, 1)), mode="edge")
    return tensors.astype(np.float32), flow.astype(np.float32), rng.random((channels, h, w))


def stored(layout, tensors):
    """Place tensors in the memory of a level; everything else is NaN, which must not spread."""
    system = np.full(layout.size, np.nan, np.float32)
    places = system.reshape(-1, layout.slots, layout.fields, LANES)
    y, x = np.mgrid[1 : layout.h + 1, 1 : layout.w + 1]
    for c in range(layout.channels):
        for field in range(6):
            places[y // LANES, FRONT + x + y % LANES, 6 * c + field, y % LANES] = tensors[c, field]
    return system


def bordered(planes):
    """Add the columns beyond the ghost cells; they are NaN, which must not spread."""
    beyond = COLUMN_BORDER - 1
    return np.pad(planes, ((0, 0), (0, 0), (beyond, beyond)), constant_values=np.nan)


def both(
    h, w, channels=1, a_smooth=1.0, a_data=0.45, lag=5, iterations=14, share=1.0, use_map=False
):
    tensors, flow, maps = problem(h, w, channels)
    exponents = np.full(channels, a_data, np.float32)
    weights = np.linspace(0.5, 1.0, channels, dtype=np.float32)
    alpha, h_row, h_col = (0.7, 0.4), 1.3, 0.9
    full = np.broadcast_to(weights[:, None, None], maps.shape) * (maps if use_map else 1.0)
    layout = LevelLayout(h, w, channels, use_map, with_edges=a_smooth != 1)
    factors = np.pad(maps.astype(np.float32), ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    ours = solve_level(
        layout,
        stored(layout, tensors),
        weights,
        bordered(factors) if use_map else None,
        bordered(flow),
        alpha=alpha,
        h_row=h_row,
        h_col=h_col,
        iterations=iterations,
        update_lag=lag,
        a_data=exponents,
        a_smooth=a_smooth,
        robust_share=share,
        with_ghosts=True,
    )
    ours = ours[:, :, COLUMN_BORDER - 1 : -(COLUMN_BORDER - 1)]
    ring = ((0, 0), (1, 1), (1, 1))
    twin = naive_flow.solve(
        np.pad(tensors.astype(float), ((0, 0), *ring)),
        np.pad(full, ring),
        *flow.astype(float),
        *alpha,
        h_col,
        h_row,
        iterations,
        lag,
        [a_data] * channels,
        a_smooth,
        share,
    )
    return ours, np.array(twin)


@pytest.mark.parametrize(
    "shape", [(9, 9), (7, 23), (23, 7), (1, 12), (12, 1), (17, 18), (8, 40), (24, 15)]
)
@pytest.mark.parametrize("a_smooth", [1.0, 0.5])
def test_every_shape_matches_the_plain_sweeps(shape, a_smooth):
    ours, twin = both(*shape, a_smooth=a_smooth)
    # The ring counts as well: it is the value before the last sweep.
    np.testing.assert_allclose(ours, twin, atol=3e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"lag": 1},
        {"lag": 3, "iterations": 10},
        {"lag": 30, "iterations": 8},
        {"lag": 12, "iterations": 40},
        {"iterations": 1},
        {"iterations": 5},
        {"channels": 3},
        {"channels": 2, "use_map": True},
        {"channels": 2, "use_map": True, "a_smooth": 0.8, "lag": 2},
        {"a_data": 1.0},
        {"a_smooth": 0.5, "share": 0.3},
        {"share": 0.0},
        {"a_smooth": 1.4, "a_data": 0.7, "share": 0.5},
        {"a_smooth": 0.5, "lag": 1},
    ],
    ids=str,
)
def test_every_option_matches_the_plain_sweeps(options):
    ours, twin = both(**{"h": 11, "w": 8, **options})
    np.testing.assert_allclose(ours, twin, atol=4e-4)


def test_without_data_and_smoothness_nothing_moves():
    tensors, flow = np.zeros((1, 6, 8, 9), np.float32), np.ones((2, 10, 11), np.float32)
    one = np.ones(1, np.float32)
    layout = LevelLayout(8, 9, 1, with_edges=True)
    ours = solve_level(
        layout, stored(layout, tensors), one, None, bordered(flow), alpha=(0.0, 0.0), h_row=1.0,
        h_col=1.0, iterations=7, update_lag=3, a_data=one, a_smooth=1.0,
    )  # fmt: skip
    assert not ours[:, 1:-1, COLUMN_BORDER:-COLUMN_BORDER].any()


def test_ghost_cells_do_not_change_the_pixels():
    tensors, flow, _ = problem(19, 26, 1)
    layout, one = LevelLayout(19, 26, 1), np.ones(1, np.float32)
    options = {
        "alpha": (1.0, 2.0), "h_row": 1.0, "h_col": 1.0, "iterations": 23, "update_lag": 5,
        "a_data": one * np.float32(0.45), "a_smooth": 1.0,
    }  # fmt: skip
    results = [
        solve_level(
            layout,
            stored(layout, tensors),
            one,
            None,
            bordered(flow),
            with_ghosts=ghosts,
            **options,
        )[:, 1:-1, COLUMN_BORDER:-COLUMN_BORDER]
        for ghosts in (False, True)
    ]
    np.testing.assert_array_equal(*results)


def test_old_scratch_contents_do_not_matter():
    first, _ = both(11, 8, channels=2, a_smooth=0.5)
    both(40, 30, channels=3, a_smooth=0.5)
    again, _ = both(11, 8, channels=2, a_smooth=0.5)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("exponent", [-0.55, -0.5, -0.2, 0.0, 0.4, 1.0, -1.0])
def test_power_is_within_its_stated_error(exponent):
    values = np.float32(1e-5) * np.exp(np.linspace(0, 35, 200_001)).astype(np.float32)
    exact = values.astype(float) ** exponent
    np.testing.assert_allclose(positive_power(values, exponent), exact, rtol=1e-5)


def test_power_beyond_its_range_stays_finite():
    extreme = np.array([1e-37, 1e38], np.float32)
    assert np.all(np.isfinite(positive_power(extreme, 3.0)))
    assert np.all(np.isfinite(positive_power(extreme, -3.0)))
