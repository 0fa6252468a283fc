"""Data part of the level solver: coefficients of some vectors of pixels from the motion tensors."""

from __future__ import annotations

import numpy as np

from scopeflow.compiled.gateway import inner
from scopeflow.compiled.simd import (
    LANES,
    load,
    load_wide,
    splat,
    store,
    store_wide,
    where_equal,
)
from scopeflow.images.power import PENALTY_EPSILON, power

RELAXATION = 1.95

# Fields of a pixel in the stored system of a level: six of the tensor of each channel, then the
# factors on the weights of the channels if there are any, then these.
PULL_U, PULL_V, UNIFORM_FIELDS = range(3)
# With a robust smoothness also the weights of the edges to the four neighbours and their sum.
EDGE_SUM, EDGE_LEFT, EDGE_RIGHT, EDGE_UP, EDGE_DOWN, ROBUST_FIELDS = range(2, 8)

# Fields of the coefficients. With the relaxed reciprocal of the diagonal multiplied in, an update
# is ``u' = keep u + (RHS_U - COUPLING_U v) + INVERSE_U (neighbours)`` and alike for v; with a
# robust smoothness also the weights of the edges.
RHS_U, RHS_V, COUPLING_U, COUPLING_V, INVERSE_U, INVERSE_V, UNIFORM_COEFFICIENTS = range(7)
LEFT, RIGHT, UP, DOWN, ROBUST_COEFFICIENTS = range(6, 11)

_OMEGA = np.float32(RELAXATION)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)


@inner(inlined=True)
def _robust_weight(system, tensor, apart, u, v, exponent, base, gain):
    """Weight of one channel from the residual of the increment ``(u, v)``."""
    along_u = load_wide(system, tensor, apart) * u
    along_v = load_wide(system, tensor + LANES, apart) * v
    both = load_wide(system, tensor + 3 * LANES, apart) * v
    both = both + load_wide(system, tensor + 4 * LANES, apart)
    along_v = along_v + _TWO * load_wide(system, tensor + 5 * LANES, apart)
    rest = along_v * v + load_wide(system, tensor + 2 * LANES, apart)
    residual = max((along_u + _TWO * both) * u + rest, _ZERO)
    return base + gain * power(residual + PENALTY_EPSILON, exponent)


@inner(inlined=True)
def write_robust_weights(
    system, start, fields, channels, weights, a_data, share, u, v, out, place
):  # fmt: skip
    """Weight of each channel's data at `WIDE` places, from the increment ``(u, v)`` there.

    The system of the first place is at ``start``, that of the next one ``fields`` vectors later;
    the weights of a place follow each other in ``out``.
    """
    for c in range(channels):
        # Between the stages of graduated non-convexity the penalty is partly quadratic.
        part = share if (share < _ONE) & (a_data[c] > _ZERO) & (a_data[c] < _ONE) else _ONE
        weight = _robust_weight(
            system, start + 6 * c * LANES, fields * LANES, u, v, a_data[c] - _ONE,
            weights[c] * (_ONE - part), weights[c] * part * a_data[c],
        )  # fmt: skip
        store_wide(out, place + c * LANES, channels * LANES, weight)


@inner(inlined=True)
def write_coefficients(
    system, start, channels, tail, with_edges, uniform_sum, weights, weighted, out, place, step,
    above, passed,
):  # fmt: skip
    """Coefficients of the pixels at one place, for this band and for the one below.

    The system of the place is at ``start``, its first field after the channels at ``tail``, the
    weights of its data at ``weighted``. Fields go to ``place`` with ``step`` elements between
    them, and to ``passed`` one vector after the other.
    """
    weight = load(weights, weighted)
    total = load(system, tail + EDGE_SUM * LANES) if with_edges else splat(uniform_sum)
    diagonal_u = total + weight * load(system, start)
    diagonal_v = total + weight * load(system, start + LANES)
    coupling = weight * load(system, start + 3 * LANES)
    rhs_u = load(system, tail + PULL_U * LANES) - weight * load(system, start + 4 * LANES)
    rhs_v = load(system, tail + PULL_V * LANES) - weight * load(system, start + 5 * LANES)
    for c in range(1, channels):
        tensor = start + 6 * c * LANES
        weight = load(weights, weighted + c * LANES)
        diagonal_u = diagonal_u + weight * load(system, tensor)
        diagonal_v = diagonal_v + weight * load(system, tensor + LANES)
        coupling = coupling + weight * load(system, tensor + 3 * LANES)
        rhs_u = rhs_u - weight * load(system, tensor + 4 * LANES)
        rhs_v = rhs_v - weight * load(system, tensor + 5 * LANES)
    if with_edges:
        # A pixel without data and without neighbours keeps its value.
        zero = splat(_ZERO)
        inverse_u = where_equal(diagonal_u, zero, zero, _OMEGA / diagonal_u)
        inverse_v = where_equal(diagonal_v, zero, zero, _OMEGA / diagonal_v)
    else:
        # Both reciprocals from one division; the sum of the edges is at least 2.
        shared = _OMEGA / (diagonal_u * diagonal_v)
        inverse_u, inverse_v = shared * diagonal_v, shared * diagonal_u
    _write(out, place, above, passed, np.int64(RHS_U), step, inverse_u * rhs_u)
    _write(out, place, above, passed, np.int64(RHS_V), step, inverse_v * rhs_v)
    _write(out, place, above, passed, np.int64(COUPLING_U), step, inverse_u * coupling)
    _write(out, place, above, passed, np.int64(COUPLING_V), step, inverse_v * coupling)
    _write(out, place, above, passed, np.int64(INVERSE_U), step, inverse_u)
    _write(out, place, above, passed, np.int64(INVERSE_V), step, inverse_v)
    if with_edges:
        for k in range(4):
            edge = load(system, tail + (EDGE_LEFT + k) * LANES)
            _write(out, place, above, passed, LEFT + k, step, edge)


@inner(inlined=True)
def _write(out, place, above, passed, field, step, value):
    store(out, place + field * step, value)
    store(above, passed + field * LANES, value)
