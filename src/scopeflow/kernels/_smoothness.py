"""Smoothness part of the level solver: weights of the edges between pixels, quadratic or robust."""

from __future__ import annotations

import numpy as np

from scopeflow.kernels._jit import disjoint, inner, pointer
from scopeflow.kernels._skew import constant_row, first_x, last_x
from scopeflow.kernels.power import PENALTY_EPSILON, power

# Planes of smoothness: weights of the edges to the left and upper neighbour, their sum over the
# four neighbours, and the pull of the flow that is already there.
EDGE_X, EDGE_Y, EDGE_SUM, PULL_U, PULL_V, SMOOTHNESS_PLANES = range(6)
# Planes for the robust smoothness weight: the flow with its increment, and the weight.
_TOTAL_U, _TOTAL_V, _WEIGHT, TOTAL_PLANES = range(4)

_HALF = np.float32(0.5)
_TWO = np.float32(2.0)


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
        out[i] = base + gain * power(s + PENALTY_EPSILON, exponent)


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
    totals[_WEIGHT, y + x, x] = base + gain * power(s + PENALTY_EPSILON, exponent)


@inner
def update_smoothness_weight(
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
        first, last = first_x(d, h), last_x(d, w)
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
def set_uniform(flow, smoothness, h, w, alpha_x, alpha_y, with_edges):
    """Quadratic smoothness; its edge weights are stored only where a robust one may follow."""
    stride = flow.shape[2]
    plane = flow.shape[1] * stride
    for d in range(2, h + w + 1):
        first, last = first_x(d, h), last_x(d, w)
        start = d * stride + first
        n = last - first + 1
        constant_row(
            n, pointer(smoothness, EDGE_SUM * plane + start), _TWO * alpha_x + _TWO * alpha_y
        )
        for k in range(2):
            _pull_row_uniform(
                n,
                pointer(flow, k * plane + start - stride),
                pointer(flow, k * plane + start),
                pointer(flow, k * plane + start + stride),
                alpha_x,
                alpha_y,
                pointer(smoothness, (PULL_U + k) * plane + start),
            )
    if with_edges:
        for d in range(2, h + w + 2):
            first, last = max(1, d - h - 1), min(w + 1, d - 1)
            start = d * stride + first
            n = last - first + 1
            constant_row(n, pointer(smoothness, EDGE_X * plane + start), alpha_x)
            constant_row(n, pointer(smoothness, EDGE_Y * plane + start), alpha_y)


@inner
def set_robust(flow, totals, smoothness, h, w, alpha_x, alpha_y):
    """Edge weights, their sums and the pull of the flow from the robust smoothness weight."""
    stride = flow.shape[2]
    plane = flow.shape[1] * stride
    for d in range(2, h + w + 2):
        # An edge belongs to the pixel right of it or below it, one more than there are pixels.
        first, last = first_x(d, h), min(w + 1, d - 1)
        start = d * stride + first
        _edge_row(
            last - first + 1,
            pointer(totals, _WEIGHT * plane + start),
            pointer(totals, _WEIGHT * plane + start - stride - 1),
            _HALF * alpha_x,
            pointer(smoothness, EDGE_X * plane + start),
        )
        first, last = max(1, d - h - 1), last_x(d, w)
        start = d * stride + first
        _edge_row(
            last - first + 1,
            pointer(totals, _WEIGHT * plane + start),
            pointer(totals, _WEIGHT * plane + start - stride),
            _HALF * alpha_y,
            pointer(smoothness, EDGE_Y * plane + start),
        )
    for d in range(2, h + w + 1):
        first, last = first_x(d, h), last_x(d, w)
        start = d * stride + first
        for k in range(2):
            _pull_row(
                last - first + 1,
                pointer(flow, k * plane + start - stride),
                pointer(flow, k * plane + start),
                pointer(flow, k * plane + start + stride),
                pointer(smoothness, EDGE_X * plane + start),
                pointer(smoothness, EDGE_X * plane + start + stride),
                pointer(smoothness, EDGE_Y * plane + start),
                pointer(smoothness, EDGE_Y * plane + start + stride),
                pointer(smoothness, EDGE_SUM * plane + start),
                pointer(smoothness, (PULL_U + k) * plane + start),
            )
