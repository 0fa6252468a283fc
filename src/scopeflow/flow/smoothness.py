"""Smoothness part of the level solver: weights of the edges between pixels, quadratic or robust."""

from __future__ import annotations

import numpy as np

from scopeflow.compiled.bands import (
    COLUMN_BORDER,
    FRONT,
    clamped_row,
    tile_column,
    tile_count,
)
from scopeflow.compiled.gateway import inner
from scopeflow.compiled.intrinsics import disjoint, pointer
from scopeflow.compiled.simd import LANES, load, store, transpose_tile
from scopeflow.flow.coefficients import (
    EDGE_DOWN,
    EDGE_LEFT,
    EDGE_RIGHT,
    EDGE_SUM,
    EDGE_UP,
    PULL_U,
    PULL_V,
    ROBUST_FIELDS,
    UNIFORM_FIELDS,
)
from scopeflow.images.power import PENALTY_EPSILON, power

_HALF = np.float32(0.5)
_TILE = LANES * LANES


@inner
def set_uniform_pull(flow, h, w, alpha_x, alpha_y, system, slots, fields, tail, tile_memory):
    """Pull of the flow that is already there towards its neighbours, quadratic smoothness."""
    columns = flow.shape[2]
    tile_rows = pointer(tile_memory, 0)
    out = pointer(system, 0)
    for band in range((h + LANES) // LANES):
        for tile in range(tile_count(w)):
            for k in range(2):
                plane = pointer(flow, k * flow.shape[1] * columns)
                for lane in range(LANES):
                    i = clamped_row(band, lane, h) * columns + tile_column(tile, lane)
                    here = load(plane, i)
                    twice = here + here
                    pull = alpha_x * ((load(plane, i - 1) + load(plane, i + 1)) - twice)
                    beside = load(plane, i - columns) + load(plane, i + columns)
                    store(tile_rows, k * _TILE + lane * LANES, pull + alpha_y * (beside - twice))
            target = ((band * slots + FRONT + tile * LANES) * fields + tail) * LANES
            for k in range(UNIFORM_FIELDS):
                transpose_tile(tile_rows, k * _TILE, LANES, out, target + k * LANES, fields * LANES)


@inner
def set_edges_and_pull(
    flow, weight, h, w, alpha_x, alpha_y, system, slots, fields, tail, tile_memory
):  # fmt: skip
    """Edge weights, their sum and the pull of the flow from the smoothness weight of pixels."""
    columns = flow.shape[2]
    tile_rows = pointer(tile_memory, 0)
    out = pointer(system, 0)
    psi = pointer(weight, 0)
    half_x, half_y = _HALF * alpha_x, _HALF * alpha_y
    for band in range((h + LANES) // LANES):
        for tile in range(tile_count(w)):
            for lane in range(LANES):
                i = clamped_row(band, lane, h) * columns + tile_column(tile, lane)
                here = load(psi, i)
                left = half_x * (here + load(psi, i - 1))
                right = half_x * (load(psi, i + 1) + here)
                up = half_y * (here + load(psi, i - columns))
                down = half_y * (load(psi, i + columns) + here)
                row = lane * LANES
                store(tile_rows, EDGE_LEFT * _TILE + row, left)
                store(tile_rows, EDGE_RIGHT * _TILE + row, right)
                store(tile_rows, EDGE_UP * _TILE + row, up)
                store(tile_rows, EDGE_DOWN * _TILE + row, down)
                store(tile_rows, EDGE_SUM * _TILE + row, (left + right) + (up + down))
                for k in range(2):
                    plane = pointer(flow, k * flow.shape[1] * columns)
                    u = load(plane, i)
                    along_x = left * (load(plane, i - 1) - u) + right * (load(plane, i + 1) - u)
                    along_y = up * (load(plane, i - columns) - u)
                    along_y = along_y + down * (load(plane, i + columns) - u)
                    field = PULL_U if k == 0 else PULL_V
                    store(tile_rows, field * _TILE + row, along_x + along_y)
            target = ((band * slots + FRONT + tile * LANES) * fields + tail) * LANES
            for k in range(ROBUST_FIELDS):
                transpose_tile(tile_rows, k * _TILE, LANES, out, target + k * LANES, fields * LANES)


@inner
def _total_row(n, flow, increment, out):
    disjoint()
    for i in range(n):
        out[i] = flow[i] + increment[i]


@inner
def _weight_row(
    n, u_above, u, u_below, v_above, v, v_below, out, half_x, half_y, exponent, base, gain
):  # fmt: skip
    disjoint()
    for i in range(n):
        ux, uy = half_x * (u[i + 1] - u[i - 1]), half_y * (u_below[i] - u_above[i])
        vx, vy = half_x * (v[i + 1] - v[i - 1]), half_y * (v_below[i] - v_above[i])
        s = ux * ux + uy * uy + vx * vx + vy * vy
        out[i] = base + gain * power(s + PENALTY_EPSILON, exponent)


@inner
def _slope(plane, y, x, h, w, step_y, step_x):
    """Squared gradient at any cell of the grid: central inside, one-sided at the ends."""
    shift = COLUMN_BORDER - 1
    x0, x1 = max(x - 1, 0), min(x + 1, w + 1)
    y0, y1 = max(y - 1, 0), min(y + 1, h + 1)
    along_x = plane[y, x1 + shift] - plane[y, x0 + shift]
    along_x /= np.float32(x1 - x0) * step_x
    along_y = plane[y1, x + shift] - plane[y0, x + shift]
    along_y /= np.float32(y1 - y0) * step_y
    return along_x * along_x + along_y * along_y


@inner
def _weight_at(totals, weight, y, x, h, w, step_y, step_x, exponent, base, gain):
    s = _slope(totals[0], y, x, h, w, step_y, step_x)
    s += _slope(totals[1], y, x, h, w, step_y, step_x)
    weight[y, x + COLUMN_BORDER - 1] = base + gain * power(s + PENALTY_EPSILON, exponent)


@inner
def update_smoothness_weight(
    flow, increment, totals, weight, h, w, step_y, step_x, exponent, base, gain
):  # fmt: skip
    """Robust smoothness weight on the whole grid, its ring of stale values included."""
    columns = flow.shape[2]
    plane = flow.shape[1] * columns
    _total_row(2 * plane, pointer(flow, 0), pointer(increment, 0), pointer(totals, 0))
    for y in range(1, h + 1):
        start = y * columns + COLUMN_BORDER
        _weight_row(
            w,
            pointer(totals, start - columns),
            pointer(totals, start),
            pointer(totals, start + columns),
            pointer(totals, plane + start - columns),
            pointer(totals, plane + start),
            pointer(totals, plane + start + columns),
            pointer(weight, start),
            _HALF / step_x,
            _HALF / step_y,
            exponent,
            base,
            gain,
        )
    for x in range(w + 2):
        for y in (0, h + 1):
            _weight_at(totals, weight, y, x, h, w, step_y, step_x, exponent, base, gain)
    for y in range(1, h + 1):
        for x in (0, w + 1):
            _weight_at(totals, weight, y, x, h, w, step_y, step_x, exponent, base, gain)
