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

from scopeflow.kernels._coefficients import (
    COEFFICIENT_PLANES,
    COUPLING,
    INVERSE_U,
    INVERSE_V,
    RELAXATION,
    RHS_U,
    RHS_V,
    coefficient_row,
)
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
from scopeflow.kernels._skew import (
    ROW_GAP,
    clear_grid,
    first_x,
    last_x,
    skew,
    unskew,
    whole_vectors,
)
from scopeflow.kernels._smoothness import (
    EDGE_X,
    EDGE_Y,
    SMOOTHNESS_PLANES,
    TOTAL_PLANES,
    set_robust,
    set_uniform,
    update_smoothness_weight,
)

_KEEP = np.float32(1.0 - RELAXATION)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


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
def _copy_to_ring(plane, stride, d, first, last, h, w):
    """Give the ring around the grid the value, before this sweep, of the pixel next to it.

    A pointer instead of an array: numba's tests for negative indices cost more than the copies.
    """
    here = d * stride
    if first == 1:
        plane[here - stride] = plane[here + 1]
    if last == w:
        plane[here + stride + w + 1] = plane[here + w]
    if last == d - 1:  # upper row
        plane[here - stride + last] = plane[here + last]
    if first == d - h:  # lower row
        plane[here + stride + first] = plane[here + first]
    # Corners; only the robust smoothness weight looks at them.
    if d == 2:
        plane[0] = plane[here + 1]
    if d == w + 1:
        plane[(w + 1) * stride + w + 1] = plane[here + w]
    if d == h + 1:
        plane[(h + 1) * stride] = plane[here + 1]
    if d == h + w:
        plane[(h + w + 2) * stride + w + 1] = plane[here + w]


@inner
def _sweep_diagonal(d, h, w, ring, smoothness, increment, alpha_x, alpha_y, uniform):
    first, last = first_x(d, h), last_x(d, w)
    stride = increment.shape[2]
    plane = increment.shape[1] * stride
    du, dv = pointer(increment, 0), pointer(increment, plane)
    _copy_to_ring(du, stride, d, first, last, h, w)
    _copy_to_ring(dv, stride, d, first, last, h, w)
    start = d * stride + first
    n = whole_vectors(last - first + 1)
    # The ring right of the grid is the one thing that surplus elements overwrite.
    right = d * stride + w + 1
    right_u, right_v = du[right], dv[right]
    slot = (d % ring.shape[0]) * COEFFICIENT_PLANES * stride + first
    if uniform:
        _sweep_row(
            n,
            pointer(increment, start - stride),
            pointer(increment, start),
            pointer(increment, start + stride),
            pointer(increment, plane + start - stride),
            pointer(increment, plane + start),
            pointer(increment, plane + start + stride),
            pointer(ring, slot + RHS_U * stride),
            pointer(ring, slot + RHS_V * stride),
            pointer(ring, slot + COUPLING * stride),
            pointer(ring, slot + INVERSE_U * stride),
            pointer(ring, slot + INVERSE_V * stride),
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
            pointer(ring, slot + RHS_U * stride),
            pointer(ring, slot + RHS_V * stride),
            pointer(ring, slot + COUPLING * stride),
            pointer(ring, slot + INVERSE_U * stride),
            pointer(ring, slot + INVERSE_V * stride),
            pointer(smoothness, EDGE_X * plane + start),
            pointer(smoothness, EDGE_X * plane + start + stride),
            pointer(smoothness, EDGE_Y * plane + start),
            pointer(smoothness, EDGE_Y * plane + start + stride),
        )
    if last == w:
        du[right] = right_u
        dv[right] = right_v


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
    skew(level_tensors, 1, tensors)
    skew(level_maps, 1, maps)
    skew(level_flow, 0, flow)
    clear_grid(increment, h, w)
    uniform = a_smooth == _ONE
    part = share if (share < _ONE) & (a_smooth > _ZERO) & (a_smooth < _ONE) else _ONE
    set_uniform(flow, smoothness, h, w, alpha_x, alpha_y, not uniform)

    done = 0
    while done < iterations:
        robust = done >= update_lag - 1
        until = min(done + update_lag if robust else update_lag - 1, iterations)
        if robust and not uniform:
            update_smoothness_weight(
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
            set_robust(flow, totals, smoothness, h, w, alpha_x, alpha_y)
        sweeps = until - done
        for s in range(2, h + w + sweeps):
            if s <= h + w:
                first = first_x(s, h)
                coefficient_row(
                    s,
                    first,
                    whole_vectors(last_x(s, w) - first + 1),
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
    unskew(increment, out)


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
    diagonals, stride = h + w + 3, (w + 2 + 15) // 16 * 16 + ROW_GAP
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
        scratch("solver smoothness", (SMOOTHNESS_PLANES, diagonals, stride)),
        scratch("solver totals", (0 if a_smooth == 1.0 else TOTAL_PLANES, diagonals, stride)),
        scratch("solver ring", (longest + 2, COEFFICIENT_PLANES, stride)),
    )
    return out
