"""Data part of the level solver: coefficients of one anti-diagonal from the motion tensors."""

from __future__ import annotations

import numpy as np

from scopeflow.kernels._jit import disjoint, inner, pointer
from scopeflow.kernels._skew import constant_row
from scopeflow.kernels._smoothness import EDGE_SUM, PULL_U, PULL_V
from scopeflow.kernels.power import PENALTY_EPSILON, power

RELAXATION = 1.95

# Planes of the coefficient ring: right-hand sides of u and v, coupling, reciprocal diagonals,
# and the robust weight of the channel at work.
RHS_U, RHS_V, COUPLING, INVERSE_U, INVERSE_V, _ROBUST, COEFFICIENT_PLANES = range(7)

_OMEGA = np.float32(RELAXATION)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)


@inner
def _robust_weight(u, v, j11, j22, j33, j12, j13, j23, exponent, base, gain):
    """Weight of the data from the residual of the increment ``(u, v)``."""
    along_u = j11 * u + _TWO * (j12 * v + j13)
    along_v = j22 * v + _TWO * j23
    residual = along_u * u + (along_v * v + j33)
    residual = max(_ZERO, residual)
    return base + gain * power(residual + PENALTY_EPSILON, exponent)


@inner
def _weight_row(n, j11, j22, j33, j12, j13, j23, du, dv, out, exponent, base, gain):
    disjoint()
    for i in range(n):
        out[i] = _robust_weight(
            du[i], dv[i], j11[i], j22[i], j33[i], j12[i], j13[i], j23[i], exponent, base, gain
        )


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
def coefficient_row(
    d, first, n, ring, tensors, maps, smoothness, increment, weights, a_data, robust, share
):  # fmt: skip
    """Coefficients of diagonal ``d`` from the increment as the last group of sweeps left it."""
    stride = tensors.shape[2]
    start = d * stride + first
    plane = tensors.shape[1] * stride
    slot = (d % ring.shape[0]) * COEFFICIENT_PLANES * stride + first
    rhs_u, rhs_v = pointer(ring, slot + RHS_U * stride), pointer(ring, slot + RHS_V * stride)
    coupling = pointer(ring, slot + COUPLING * stride)
    diagonal_u = pointer(ring, slot + INVERSE_U * stride)
    diagonal_v = pointer(ring, slot + INVERSE_V * stride)
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
            constant_row(n, weight, weights[k])
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
        pointer(smoothness, PULL_U * plane + start),
        pointer(smoothness, PULL_V * plane + start),
        pointer(smoothness, EDGE_SUM * plane + start),
        rhs_u,
        rhs_v,
        diagonal_u,
        diagonal_v,
    )
