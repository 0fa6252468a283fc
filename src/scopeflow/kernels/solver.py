"""The linear solver of one pyramid level: successive over-relaxation in lexicographic order.

Each sweep updates ``du`` and then ``dv`` of one pixel after the other, with relaxation 1.95. Fifty
sweeps do not converge, so the order is part of the method. A pixel needs the new values of its
left and upper and the old values of its right and lower neighbour; all pixels of one
anti-diagonal ``d = x + y`` are therefore independent. Planes are stored skewed, row ``d`` and
column ``x``, so that a plain loop over ``x`` visits independent pixels in contiguous memory, and
LLVM vectorises it without changing one update. Between two updates of the robust weights the
sweeps run as a wavefront: while sweep ``k`` is at diagonal ``s - k``, the coefficients of diagonal
``s`` are made; they live in a small ring.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scopeflow.kernels._jit import (
    disjoint,
    float32,
    inner,
    int64,
    kernel,
    nothing,
    pointer,
    readable,
    writable,
)
from scopeflow.kernels._scratch import scratch
from scopeflow.kernels.power import power

RELAXATION = 1.95
_PENALTY_EPSILON = np.float32(1e-5)

_OMEGA = np.float32(RELAXATION)
_KEEP = np.float32(1.0 - RELAXATION)
_ZERO = np.float32(0.0)
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)

# Planes of the coefficient ring: right-hand sides of u and v, coupling, reciprocal diagonals,
# and the robust weight of the channel at work.
_RHS_U, _RHS_V, _COUPLING, _INVERSE_U, _INVERSE_V, _ROBUST, _COEFFICIENTS = range(7)
# Planes of smoothness: weights of the edges to the left and upper neighbour, their sum over the
# four neighbours, and the pull of the flow that is already there.
_EDGE_X, _EDGE_Y, _EDGE_SUM, _PULL_U, _PULL_V, _SMOOTHNESS = range(6)
# Planes for the robust smoothness weight: the flow with its increment, and the weight.
_TOTAL_U, _TOTAL_V, _WEIGHT, _TOTALS = range(4)
_LANES = 8  # rows are processed in whole vectors of this many elements
_TILE = 16  # columns that are skewed together: their cache lines are filled before they leave
_ROW_GAP = 16  # elements between skewed rows: keeps writes down a column in different cache sets


# ------------------------------------------------------------------------------- skewed storage


@inner
def _first_x(d, h):
    """First interior column of diagonal ``d`` in a grid of ``h`` interior rows."""
    return max(1, d - h)


@inner
def _last_x(d, w):
    """Last interior column of diagonal ``d`` in a grid of ``w`` interior columns."""
    return min(w, d - 1)


@inner
def _whole_vectors(n):
    """Round a row length up, so that no elements are left for a slow scalar remainder.

    The surplus elements lie right of the grid or above it. They are computed from whatever is
    there and read by no pixel; rows are stored far enough apart for them.
    """
    return (n + _LANES - 1) // _LANES * _LANES


@inner
def _scatter(n, source, target, step):
    disjoint()
    for i in range(n):
        target[i * step] = source[i]


@inner
def _gather(n, source, target, step):
    disjoint()
    for i in range(n):
        target[i] = source[i * step]


@inner
def _skew(planes, margin, out):
    """Store planes with element (0, 0) at grid position ``(margin, margin)``, in skewed order."""
    count, h, w = planes.shape
    stride = out.shape[2]
    for k in range(count):
        for x0 in range(0, w, _TILE):
            n = min(_TILE, w - x0)
            first = (k * out.shape[1] + x0 + 2 * margin) * stride + x0 + margin
            for y in range(h):
                _scatter(
                    n,
                    pointer(planes, (k * h + y) * w + x0),
                    pointer(out, first + y * stride),
                    stride + 1,
                )


@inner
def _unskew(planes, out):
    """Reverse of `_skew` for planes that fill the grid."""
    count, h, w = out.shape
    stride = planes.shape[2]
    for k in range(count):
        for x0 in range(0, w, _TILE):
            n = min(_TILE, w - x0)
            first = (k * planes.shape[1] + x0) * stride + x0
            for y in range(h):
                _gather(
                    n,
                    pointer(planes, first + y * stride),
                    pointer(out, (k * h + y) * w + x0),
                    stride + 1,
                )


# ----------------------------------------------------------------------------------- smoothness


@inner
def _total_row(n, flow, increment, out):
    disjoint()
    for i in range(n):
        out[i] = flow[i] + increment[i]


@inner
def _smoothness_weight_row(
    n, u_before, u_after, v_before, v_after, out, half_x, half_y, exponent, base, gain
):  # fmt: skip
    """Robust weight of interior pixels; rows one diagonal before (left, up) and after."""
    disjoint()
    for i in range(n):
        ux = half_x * (u_after[i + 1] - u_before[i - 1])
        uy = half_y * (u_after[i] - u_before[i])
        vx = half_x * (v_after[i + 1] - v_before[i - 1])
        vy = half_y * (v_after[i] - v_before[i])
        s = ux * ux + uy * uy + vx * vx + vy * vy
        out[i] = base + gain * power(s + _PENALTY_EPSILON, exponent)


@inner
def _slope(plane, y, x, h, w, step_y, step_x):
    """Squared gradient at any grid position: central inside, one-sided at the ends."""
    x0, x1 = max(x - 1, 0), min(x + 1, w + 1)
    y0, y1 = max(y - 1, 0), min(y + 1, h + 1)
    along_x = (plane[y + x1, x1] - plane[y + x0, x0]) / (np.float32(x1 - x0) * step_x)
    along_y = (plane[y1 + x, x] - plane[y0 + x, x]) / (np.float32(y1 - y0) * step_y)
    return along_x * along_x + along_y * along_y


@inner
def _smoothness_weight_at(totals, y, x, h, w, step_y, step_x, exponent, base, gain):
    s = _slope(totals[_TOTAL_U], y, x, h, w, step_y, step_x)
    s += _slope(totals[_TOTAL_V], y, x, h, w, step_y, step_x)
    totals[_WEIGHT, y + x, x] = base + gain * power(s + _PENALTY_EPSILON, exponent)


@inner
def _update_smoothness_weight(
    flow, increment, totals, h, w, step_y, step_x, exponent, base, gain
):  # fmt: skip
    """Robust smoothness weight on the whole grid, its ring of stale values included."""
    stride = flow.shape[2]
    plane = flow.shape[1] * stride
    for d in range(h + w + 3):
        first, last = max(0, d - h - 1), min(w + 1, d)
        start = d * stride + first
        for k in range(2):
            _total_row(
                last - first + 1,
                pointer(flow, k * plane + start),
                pointer(increment, k * plane + start),
                pointer(totals, k * plane + start),
            )
    half_x, half_y = _HALF / step_x, _HALF / step_y
    for d in range(2, h + w + 1):
        first, last = _first_x(d, h), _last_x(d, w)
        start = d * stride + first
        _smoothness_weight_row(
            last - first + 1,
            pointer(totals, start - stride),
            pointer(totals, start + stride),
            pointer(totals, plane + start - stride),
            pointer(totals, plane + start + stride),
            pointer(totals, 2 * plane + start),
            half_x,
            half_y,
            exponent,
            base,
            gain,
        )
    for x in range(w + 2):
        for y in (0, h + 1):
            _smoothness_weight_at(totals, y, x, h, w, step_y, step_x, exponent, base, gain)
    for y in range(1, h + 1):
        for x in (0, w + 1):
            _smoothness_weight_at(totals, y, x, h, w, step_y, step_x, exponent, base, gain)


@inner
def _edge_row(n, here, before, half_alpha, out):
    disjoint()
    for i in range(n):
        out[i] = half_alpha * (here[i] + before[i])


@inner
def _pull_row_uniform(n, u_before, u, u_after, ax, ay, out):
    """As `_pull_row` with constant edge weights."""
    disjoint()
    for i in range(n):
        twice = u[i] + u[i]
        out[i] = ax * ((u_before[i - 1] + u_after[i + 1]) - twice) + ay * (
            (u_before[i] + u_after[i]) - twice
        )


@inner
def _pull_row(n, u_before, u, u_after, x_here, x_after, y_here, y_after, total, out):
    """Pull of the present flow towards its neighbours, and the sum of the edge weights."""
    disjoint()
    for i in range(n):
        left, right, up, down = x_here[i], x_after[i + 1], y_here[i], y_after[i]
        here = u[i]
        total[i] = (left + right) + (up + down)
        out[i] = (left * (u_before[i - 1] - here) + right * (u_after[i + 1] - here)) + (
            up * (u_before[i] - here) + down * (u_after[i] - here)
        )


@inner
def _clear_grid(planes, h, w):
    """Zeros on the grid with its ring; elements beyond it are never read."""
    for k in range(planes.shape[0]):
        for d in range(h + w + 3):
            first, last = max(0, d - h - 1), min(w + 1, d)
            start = (k * planes.shape[1] + d) * planes.shape[2] + first
            _constant_row(last - first + 1, pointer(planes, start), _ZERO)


@inner
def _set_uniform(flow, smoothness, h, w, alpha_x, alpha_y, with_edges):
    """Quadratic smoothness; its edge weights are stored only where a robust one may follow."""
    stride = flow.shape[2]
    plane = flow.shape[1] * stride
    for d in range(2, h + w + 1):
        first, last = _first_x(d, h), _last_x(d, w)
        start = d * stride + first
        n = last - first + 1
        _constant_row(
            n, pointer(smoothness, _EDGE_SUM * plane + start), _TWO * alpha_x + _TWO * alpha_y
        )
        for k in range(2):
            _pull_row_uniform(
                n,
                pointer(flow, k * plane + start - stride),
                pointer(flow, k * plane + start),
                pointer(flow, k * plane + start + stride),
                alpha_x,
                alpha_y,
                pointer(smoothness, (_PULL_U + k) * plane + start),
            )
    if with_edges:
        for d in range(2, h + w + 2):
            first, last = max(1, d - h - 1), min(w + 1, d - 1)
            start = d * stride + first
            n = last - first + 1
            _constant_row(n, pointer(smoothness, _EDGE_X * plane + start), alpha_x)
            _constant_row(n, pointer(smoothness, _EDGE_Y * plane + start), alpha_y)


@inner
def _set_robust(flow, totals, smoothness, h, w, alpha_x, alpha_y):
    """Edge weights, their sums and the pull of the flow from the robust smoothness weight."""
    stride = flow.shape[2]
    plane = flow.shape[1] * stride
    for d in range(2, h + w + 2):
        # An edge belongs to the pixel right of it or below it, one more than there are pixels.
        first, last = _first_x(d, h), min(w + 1, d - 1)
        start = d * stride + first
        _edge_row(
            last - first + 1,
            pointer(totals, _WEIGHT * plane + start),
            pointer(totals, _WEIGHT * plane + start - stride - 1),
            _HALF * alpha_x,
            pointer(smoothness, _EDGE_X * plane + start),
        )
        first, last = max(1, d - h - 1), _last_x(d, w)
        start = d * stride + first
        _edge_row(
            last - first + 1,
            pointer(totals, _WEIGHT * plane + start),
            pointer(totals, _WEIGHT * plane + start - stride),
            _HALF * alpha_y,
            pointer(smoothness, _EDGE_Y * plane + start),
        )
    for d in range(2, h + w + 1):
        first, last = _first_x(d, h), _last_x(d, w)
        start = d * stride + first
        for k in range(2):
            _pull_row(
                last - first + 1,
                pointer(flow, k * plane + start - stride),
                pointer(flow, k * plane + start),
                pointer(flow, k * plane + start + stride),
                pointer(smoothness, _EDGE_X * plane + start),
                pointer(smoothness, _EDGE_X * plane + start + stride),
                pointer(smoothness, _EDGE_Y * plane + start),
                pointer(smoothness, _EDGE_Y * plane + start + stride),
                pointer(smoothness, _EDGE_SUM * plane + start),
                pointer(smoothness, (_PULL_U + k) * plane + start),
            )


# --------------------------------------------------------------------------------- coefficients


@inner
def _robust_weight(u, v, j11, j22, j33, j12, j13, j23, exponent, base, gain):
    """Weight of the data from the residual of the increment ``(u, v)``."""
    along_u = j11 * u + _TWO * (j12 * v + j13)
    along_v = j22 * v + _TWO * j23
    residual = along_u * u + (along_v * v + j33)
    residual = max(_ZERO, residual)
    return base + gain * power(residual + _PENALTY_EPSILON, exponent)


@inner
def _weight_row(n, j11, j22, j33, j12, j13, j23, du, dv, out, exponent, base, gain):
    disjoint()
    for i in range(n):
        out[i] = _robust_weight(
            du[i], dv[i], j11[i], j22[i], j33[i], j12[i], j13[i], j23[i], exponent, base, gain
        )


@inner
def _constant_row(n, out, value):
    for i in range(n):
        out[i] = value


@inner
def _multiply_row(n, out, factor):
    disjoint()
    for i in range(n):
        out[i] *= factor[i]


@inner
def _set_channel_row(
    n, weight, j11, j22, j12, j13, j23, rhs_u, rhs_v, coupling, diagonal_u, diagonal_v
):  # fmt: skip
    disjoint()
    for i in range(n):
        p = weight[i]
        rhs_u[i] = p * j13[i]
        rhs_v[i] = p * j23[i]
        coupling[i] = p * j12[i]
        diagonal_u[i] = p * j11[i]
        diagonal_v[i] = p * j22[i]


@inner
def _set_robust_channel_row(
    n, j11, j22, j33, j12, j13, j23, du, dv, rhs_u, rhs_v, coupling, diagonal_u, diagonal_v,
    exponent, base, gain,
):  # fmt: skip
    """`_weight_row` and `_set_channel_row` in one pass, for the most common case."""
    disjoint()
    for i in range(n):
        a, b, c, d, e = j11[i], j22[i], j12[i], j13[i], j23[i]
        p = _robust_weight(du[i], dv[i], a, b, j33[i], c, d, e, exponent, base, gain)
        rhs_u[i] = p * d
        rhs_v[i] = p * e
        coupling[i] = p * c
        diagonal_u[i] = p * a
        diagonal_v[i] = p * b


@inner
def _add_channel_row(
    n, weight, j11, j22, j12, j13, j23, rhs_u, rhs_v, coupling, diagonal_u, diagonal_v
):  # fmt: skip
    disjoint()
    for i in range(n):
        p = weight[i]
        rhs_u[i] += p * j13[i]
        rhs_v[i] += p * j23[i]
        coupling[i] += p * j12[i]
        diagonal_u[i] += p * j11[i]
        diagonal_v[i] += p * j22[i]


@inner
def _finish_row(n, pull_u, pull_v, edges, rhs_u, rhs_v, diagonal_u, diagonal_v):
    """Add smoothness; turn diagonals into relaxed reciprocals, zero where they are empty."""
    disjoint()
    for i in range(n):
        a, b = edges[i] + diagonal_u[i], edges[i] + diagonal_v[i]
        rhs_u[i] = pull_u[i] - rhs_u[i]
        rhs_v[i] = pull_v[i] - rhs_v[i]
        diagonal_u[i] = _OMEGA / a if a != _ZERO else _ZERO
        diagonal_v[i] = _OMEGA / b if b != _ZERO else _ZERO


@inner
def _coefficient_row(
    d, first, n, ring, tensors, maps, smoothness, increment, weights, a_data, robust, share
):  # fmt: skip
    """Coefficients of diagonal ``d`` from the increment as the last group of sweeps left it."""
    stride = tensors.shape[2]
    start = d * stride + first
    plane = tensors.shape[1] * stride
    slot = (d % ring.shape[0]) * _COEFFICIENTS * stride + first
    rhs_u, rhs_v = pointer(ring, slot + _RHS_U * stride), pointer(ring, slot + _RHS_V * stride)
    coupling = pointer(ring, slot + _COUPLING * stride)
    diagonal_u = pointer(ring, slot + _INVERSE_U * stride)
    diagonal_v = pointer(ring, slot + _INVERSE_V * stride)
    weight = pointer(ring, slot + _ROBUST * stride)
    du, dv = pointer(increment, start), pointer(increment, plane + start)
    mapped = maps.shape[0] > 0
    for k in range(weights.size):
        tensor = 6 * k * plane + start
        j11, j22 = pointer(tensors, tensor), pointer(tensors, tensor + plane)
        j33, j12 = pointer(tensors, tensor + 2 * plane), pointer(tensors, tensor + 3 * plane)
        j13, j23 = pointer(tensors, tensor + 4 * plane), pointer(tensors, tensor + 5 * plane)
        # Between the stages of graduated non-convexity the penalty is partly quadratic.
        part = share if (share < _ONE) & (a_data[k] > _ZERO) & (a_data[k] < _ONE) else _ONE
        exponent = a_data[k] - _ONE
        base, gain = weights[k] * (_ONE - part), weights[k] * part * a_data[k]
        if robust and k == 0 and not mapped:
            _set_robust_channel_row(
                n, j11, j22, j33, j12, j13, j23, du, dv, rhs_u, rhs_v, coupling, diagonal_u,
                diagonal_v, exponent, base, gain,
            )  # fmt: skip
            continue
        if robust:
            _weight_row(n, j11, j22, j33, j12, j13, j23, du, dv, weight, exponent, base, gain)
        else:
            _constant_row(n, weight, weights[k])
        if mapped:
            _multiply_row(n, weight, pointer(maps, k * plane + start))
        if k == 0:
            _set_channel_row(
                n, weight, j11, j22, j12, j13, j23, rhs_u, rhs_v, coupling, diagonal_u, diagonal_v
            )
        else:
            _add_channel_row(
                n, weight, j11, j22, j12, j13, j23, rhs_u, rhs_v, coupling, diagonal_u, diagonal_v
            )
    _finish_row(
        n,
        pointer(smoothness, _PULL_U * plane + start),
        pointer(smoothness, _PULL_V * plane + start),
        pointer(smoothness, _EDGE_SUM * plane + start),
        rhs_u,
        rhs_v,
        diagonal_u,
        diagonal_v,
    )


# --------------------------------------------------------------------------------------- sweeps


@inner
def _sweep_row(
    n, u_before, u, u_after, v_before, v, v_after, rhs_u, rhs_v, coupling, inv_u, inv_v, ax, ay
):  # fmt: skip
    """Update one diagonal with constant edge weights: du first, then dv with the new du."""
    disjoint()
    for i in range(n):
        old_u, old_v = u[i], v[i]
        pull = ax * (u_before[i - 1] + u_after[i + 1]) + ay * (u_before[i] + u_after[i])
        new_u = _KEEP * old_u + inv_u[i] * (pull + (rhs_u[i] - coupling[i] * old_v))
        pull = ax * (v_before[i - 1] + v_after[i + 1]) + ay * (v_before[i] + v_after[i])
        u[i] = new_u
        v[i] = _KEEP * old_v + inv_v[i] * (pull + (rhs_v[i] - coupling[i] * new_u))


@inner
def _sweep_row_robust(
    n, u_before, u, u_after, v_before, v, v_after, rhs_u, rhs_v, coupling, inv_u, inv_v,
    x_here, x_after, y_here, y_after,
):  # fmt: skip
    """As `_sweep_row`, with a weight for each edge."""
    disjoint()
    for i in range(n):
        old_u, old_v = u[i], v[i]
        left, right, up, down = x_here[i], x_after[i + 1], y_here[i], y_after[i]
        pull = (left * u_before[i - 1] + right * u_after[i + 1]) + (
            up * u_before[i] + down * u_after[i]
        )
        new_u = _KEEP * old_u + inv_u[i] * (pull + (rhs_u[i] - coupling[i] * old_v))
        pull = (left * v_before[i - 1] + right * v_after[i + 1]) + (
            up * v_before[i] + down * v_after[i]
        )
        u[i] = new_u
        v[i] = _KEEP * old_v + inv_v[i] * (pull + (rhs_v[i] - coupling[i] * new_u))


@inner
def _copy_to_ring(increment, k, d, first, last, h, w):
    """Give the ring around the grid the value, before this sweep, of the pixel next to it."""
    if first == 1:
        increment[k, d - 1, 0] = increment[k, d, 1]
    if last == w:
        increment[k, d + 1, w + 1] = increment[k, d, w]
    if last == d - 1:  # upper row
        increment[k, d - 1, d - 1] = increment[k, d, last]
    if first == d - h:  # lower row
        increment[k, d + 1, first] = increment[k, d, first]
    # Corners; only the robust smoothness weight looks at them.
    if d == 2:
        increment[k, 0, 0] = increment[k, d, 1]
    if d == w + 1:
        increment[k, w + 1, w + 1] = increment[k, d, w]
    if d == h + 1:
        increment[k, h + 1, 0] = increment[k, d, 1]
    if d == h + w:
        increment[k, h + w + 2, w + 1] = increment[k, d, w]


@inner
def _sweep_diagonal(d, h, w, ring, smoothness, increment, alpha_x, alpha_y, uniform):
    first, last = _first_x(d, h), _last_x(d, w)
    _copy_to_ring(increment, 0, d, first, last, h, w)
    _copy_to_ring(increment, 1, d, first, last, h, w)
    stride = increment.shape[2]
    plane = increment.shape[1] * stride
    start = d * stride + first
    n = _whole_vectors(last - first + 1)
    # The ring right of the grid is the one thing that surplus elements overwrite.
    right_u, right_v = increment[0, d, w + 1], increment[1, d, w + 1]
    slot = (d % ring.shape[0]) * _COEFFICIENTS * stride + first
    if uniform:
        _sweep_row(
            n,
            pointer(increment, start - stride),
            pointer(increment, start),
            pointer(increment, start + stride),
            pointer(increment, plane + start - stride),
            pointer(increment, plane + start),
            pointer(increment, plane + start + stride),
            pointer(ring, slot + _RHS_U * stride),
            pointer(ring, slot + _RHS_V * stride),
            pointer(ring, slot + _COUPLING * stride),
            pointer(ring, slot + _INVERSE_U * stride),
            pointer(ring, slot + _INVERSE_V * stride),
            alpha_x,
            alpha_y,
        )
    else:
        _sweep_row_robust(
            n,
            pointer(increment, start - stride),
            pointer(increment, start),
            pointer(increment, start + stride),
            pointer(increment, plane + start - stride),
            pointer(increment, plane + start),
            pointer(increment, plane + start + stride),
            pointer(ring, slot + _RHS_U * stride),
            pointer(ring, slot + _RHS_V * stride),
            pointer(ring, slot + _COUPLING * stride),
            pointer(ring, slot + _INVERSE_U * stride),
            pointer(ring, slot + _INVERSE_V * stride),
            pointer(smoothness, _EDGE_X * plane + start),
            pointer(smoothness, _EDGE_X * plane + start + stride),
            pointer(smoothness, _EDGE_Y * plane + start),
            pointer(smoothness, _EDGE_Y * plane + start + stride),
        )
    if last == w:
        increment[0, d, w + 1] = right_u
        increment[1, d, w + 1] = right_v


@kernel(
    nothing,
    readable(3),  # level_tensors (6 C, h, w)
    readable(1),  # weights (C,)
    readable(3),  # level_maps (C or 0, h, w), multiply weights
    readable(3),  # level_flow (2, h + 2, w + 2)
    float32,  # alpha_x, smoothness weight between columns
    float32,  # alpha_y, between rows
    float32,  # step_x, full-resolution pixels per level pixel
    float32,  # step_y
    int64,  # iterations
    int64,  # update_lag
    readable(1),  # a_data (C,)
    float32,  # a_smooth
    float32,  # share of the robust penalty, 1 outside graduated non-convexity
    writable(3),  # out (2, h + 2, w + 2)
    writable(3),  # tensors (6 C, D, S), skewed scratch, D = h + w + 3, S >= w + 2
    writable(3),  # maps (C or 0, D, S)
    writable(3),  # flow (2, D, S)
    writable(3),  # increment (2, D, S)
    writable(3),  # smoothness (5, D, S)
    writable(3),  # totals (3 or 0, D, S)
    writable(3),  # ring (R, 6, S)
)
def _solve(
    level_tensors, weights, level_maps, level_flow, alpha_x, alpha_y, step_x, step_y, iterations,
    update_lag, a_data, a_smooth, share, out, tensors, maps, flow, increment, smoothness, totals,
    ring,
):  # fmt: skip
    h, w = level_tensors.shape[1], level_tensors.shape[2]
    _skew(level_tensors, 1, tensors)
    _skew(level_maps, 1, maps)
    _skew(level_flow, 0, flow)
    _clear_grid(increment, h, w)
    uniform = a_smooth == _ONE
    part = share if (share < _ONE) & (a_smooth > _ZERO) & (a_smooth < _ONE) else _ONE
    _set_uniform(flow, smoothness, h, w, alpha_x, alpha_y, not uniform)

    done = 0
    while done < iterations:
        robust = done >= update_lag - 1
        until = min(done + update_lag if robust else update_lag - 1, iterations)
        if robust and not uniform:
            _update_smoothness_weight(
                flow,
                increment,
                totals,
                h,
                w,
                step_y,
                step_x,
                a_smooth - _ONE,
                _ONE - part,
                part * a_smooth,
            )
            _set_robust(flow, totals, smoothness, h, w, alpha_x, alpha_y)
        sweeps = until - done
        for s in range(2, h + w + sweeps):
            if s <= h + w:
                first = _first_x(s, h)
                _coefficient_row(
                    s,
                    first,
                    _whole_vectors(_last_x(s, w) - first + 1),
                    ring,
                    tensors,
                    maps,
                    smoothness,
                    increment,
                    weights,
                    a_data,
                    robust,
                    share,
                )
            for k in range(max(0, s - h - w), min(sweeps, s - 1)):
                _sweep_diagonal(s - k, h, w, ring, smoothness, increment, alpha_x, alpha_y, uniform)
        done = until
    _unskew(increment, out)


def solve_level(
    tensors: NDArray[np.float32],
    weights: NDArray[np.float32],
    maps: NDArray[np.float32] | None,
    flow: NDArray[np.float32],
    *,
    alpha: tuple[float, float],
    h_row: float,
    h_col: float,
    iterations: int,
    update_lag: int,
    a_data: NDArray[np.float32],
    a_smooth: float,
    robust_share: float = 1.0,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Flow increment of one level.

    Parameters
    ----------
    tensors : numpy.ndarray
        ``(C, 6, h, w)`` float32 motion tensors.
    weights : numpy.ndarray
        ``(C,)`` float32 weights of the channels.
    maps : numpy.ndarray or None
        ``(C, h, w)`` float32 factors on the weights.
    flow : numpy.ndarray
        ``(2, h + 2, w + 2)`` float32, u and v with a ring of one pixel, full-resolution pixels.
    alpha : tuple of float
        Smoothness weights ``(x, y)`` of this level.
    h_row, h_col : float
        Full-resolution pixels per level pixel.
    iterations, update_lag : int
        Sweeps, and sweeps between updates of the robust weights; the first ``update_lag - 1``
        sweeps have none.
    a_data : numpy.ndarray
        ``(C,)`` float32 exponents of the data penalty.
    a_smooth : float
        Exponent of the smoothness penalty, 1 is quadratic.
    robust_share : float
        Stage of graduated non-convexity: 0 quadratic, 1 robust.
    out : numpy.ndarray, optional
        Array of the shape of `flow`, written and returned.

    Returns
    -------
    numpy.ndarray
        ``(2, h + 2, w + 2)`` float32 increments with their ring.

    Examples
    --------
    >>> import numpy as np
    >>> tensors, flow = np.zeros((1, 6, 8, 9), np.float32), np.zeros((2, 10, 11), np.float32)
    >>> one = np.ones(1, np.float32)
    >>> float(np.abs(solve_level(tensors, one, None, flow, alpha=(1.0, 1.0), h_row=1.0, h_col=1.0,
    ...     iterations=5, update_lag=5, a_data=one, a_smooth=1.0)).max())
    0.0
    """
    channels, _, h, w = tensors.shape
    diagonals, stride = h + w + 3, (w + 2 + 15) // 16 * 16 + _ROW_GAP
    if maps is None:
        maps = np.empty((0, h, w), np.float32)
    longest = max(1, min(max(update_lag - 1, update_lag), iterations))
    if out is None:
        out = np.empty((2, h + 2, w + 2), np.float32)
    _solve(
        tensors.reshape(channels * 6, h, w),
        weights,
        maps,
        flow,
        np.float32(alpha[0] / h_col**2),
        np.float32(alpha[1] / h_row**2),
        np.float32(h_col),
        np.float32(h_row),
        iterations,
        update_lag,
        a_data,
        np.float32(a_smooth),
        np.float32(robust_share),
        out,
        scratch("solver tensors", (channels * 6, diagonals, stride)),
        scratch("solver maps", (maps.shape[0], diagonals, stride)),
        scratch("solver flow", (2, diagonals, stride)),
        scratch("solver increment", (2, diagonals, stride)),
        scratch("solver smoothness", (_SMOOTHNESS, diagonals, stride)),
        scratch("solver totals", (0 if a_smooth == 1.0 else _TOTALS, diagonals, stride)),
        scratch("solver ring", (longest + 2, _COEFFICIENTS, stride)),
    )
    return out
