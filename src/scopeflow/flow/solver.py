"""The linear solver of one pyramid level: successive over-relaxation in lexicographic order.

Each sweep updates ``du`` and then ``dv`` of one pixel after the other, with relaxation 1.95. Fifty
sweeps do not converge, so the order is part of the method. A pixel needs the new values of its
left and upper and the old values of its right and lower neighbour; all pixels of one
anti-diagonal are therefore independent. `_bands` stores a level so that these pixels are the lanes
of one vector, and `_sweeps` runs all sweeps between two updates of the robust weights in one pass.
Every pixel goes through the operations of the plain method in the plain order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.bands import (
    COLUMN_BORDER,
    FRONT,
    band_shape,
    bands_to_plane,
    padded_shape,
    plane_to_bands,
)
from scopeflow.compiled.gateway import (
    Kernel,
    float32,
    inner,
    int64,
    kernel,
    nothing,
    readable,
    writable,
)
from scopeflow.compiled.intrinsics import pointer
from scopeflow.compiled.scratch import scratch
from scopeflow.compiled.simd import LANES
from scopeflow.flow.coefficients import (
    ROBUST_COEFFICIENTS,
    ROBUST_FIELDS,
    UNIFORM_COEFFICIENTS,
    UNIFORM_FIELDS,
)
from scopeflow.flow.smoothness import (
    set_edges_and_pull,
    set_uniform_pull,
    update_smoothness_weight,
)
from scopeflow.flow.sweeps import (
    GIVEN,
    LONGEST_GROUP,
    MADE,
    MADE_AND_KEPT,
    run_group,
    run_group_with_edges,
    working_size,
)

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)


@dataclass(frozen=True)
class LevelLayout:
    """How the linear system of a level lies in memory.

    `channels`: channels, with six tensor fields each.
    `mapped`: whether each channel has a field of factors on its weight.
    `with_edges`: whether edge weights are stored: for a robust smoothness, or none along rows.
    """

    h: int
    w: int
    channels: int
    mapped: bool = False
    with_edges: bool = False

    @property
    def tail(self) -> int:
        """Number of the first field after those of the channels."""
        return self.channels * (7 if self.mapped else 6)

    @property
    def fields(self) -> int:
        """Fields of a pixel."""
        return self.tail + (ROBUST_FIELDS if self.with_edges else UNIFORM_FIELDS)

    @property
    def slots(self) -> int:
        """Places stored for each band."""
        return band_shape(self.h, self.w)[1]

    @property
    def size(self) -> int:
        """Elements of the system."""
        bands, slots = band_shape(self.h, self.w)
        return bands * slots * self.fields * LANES


@inner
def _border_value(increment, slots, drift, row, column, field):
    """One value of the stored increment; ``drift`` as in `bands_to_plane`."""
    stored = row + drift
    band, lane = stored // LANES, stored % LANES
    return increment[((band * slots + FRONT + column + lane) * 2 + field) * LANES + lane]


@inner
def _save_border(increment, slots, drift, h, w, border):
    """Values of the pixels at the border, which the ghost cells keep during the next sweep."""
    first = np.int64(1)
    for k in range(2):
        for x in range(w):
            border[k, 0, x] = _border_value(increment, slots, drift, first, x + 1, k)
            border[k, 1, x] = _border_value(increment, slots, drift, h, x + 1, k)
        for y in range(h):
            border[k, 2, y] = _border_value(increment, slots, drift, y + 1, first, k)
            border[k, 3, y] = _border_value(increment, slots, drift, y + 1, w, k)


@inner
def _read_increment(increment, slots, drift, h, w, border, out):
    """Increment as padded planes; the ghost cells are those saved before the last sweep."""
    columns = out.shape[2]
    left, right = COLUMN_BORDER - 1, COLUMN_BORDER + w
    for k in range(2):
        plane = pointer(out, k * out.shape[1] * columns)
        bands_to_plane(pointer(increment, 0), slots, 2, k, drift, plane, columns, h, w)
        if border.shape[0] > 0:
            for x in range(w):
                out[k, 0, COLUMN_BORDER + x] = border[k, 0, x]
                out[k, h + 1, COLUMN_BORDER + x] = border[k, 1, x]
            for y in range(h):
                out[k, y + 1, left] = border[k, 2, y]
                out[k, y + 1, right] = border[k, 3, y]
            out[k, 0, left], out[k, 0, right] = border[k, 0, 0], border[k, 0, w - 1]
            out[k, h + 1, left], out[k, h + 1, right] = border[k, 1, 0], border[k, 1, w - 1]


_ARGUMENTS = (
    int64,  # h
    int64,  # w
    int64,  # slots of a band
    int64,  # fields of the system
    int64,  # tail, its first field after the channels
    writable(1),  # system, tensors filled in
    readable(1),  # weights (C,)
    readable(3),  # maps (C or 0, h + 2, columns), factors on weights
    readable(3),  # flow (2, h + 2, columns)
    float32,  # alpha_x, smoothness weight between columns
    float32,  # alpha_y, between rows
    float32,  # step_x, full-resolution pixels per level pixel
    float32,  # step_y
    int64,  # iterations
    int64,  # update_lag
    readable(1),  # a_data (C,)
    float32,  # a_smooth
    float32,  # share of the robust penalty
    writable(3),  # out (2, h + 2, columns): increment
    writable(1),  # increment in bands
    writable(1),  # kept coefficients, or empty
    writable(1),  # above: coefficients of the band above
    writable(1),  # edge: last lane of the band above
    writable(1),  # work: memory of a pass
    writable(1),  # tile memory
    writable(3),  # totals (2 or 0, h + 2, columns)
    writable(2),  # smoothness weight (h + 2 or 0, columns)
    writable(3),  # border (2 or 0, 4, max(h, w)): ghost cells are wanted
)


def _make_solve(name: str, with_edges: bool) -> Kernel:
    """All groups of sweeps of one level, without or with a weight for each edge."""

    def solve(
        h, w, slots, fields, tail, system, weights, maps, flow, alpha_x, alpha_y, step_x, step_y,
        iterations, update_lag, a_data, a_smooth, share, out, increment, kept, above, edge, work,
        tile_memory, totals, smoothness, border,
    ):  # fmt: skip
        channels = weights.size
        mapped = maps.shape[0] > 0
        uniform_sum = _TWO + _TWO * alpha_y
        part = share if (share < _ONE) & (a_smooth > _ZERO) & (a_smooth < _ONE) else _ONE
        for c in range(maps.shape[0]):
            plane = pointer(maps, c * maps.shape[1] * maps.shape[2])
            plane_to_bands(
                plane, maps.shape[2], h, w, pointer(system, 0), slots, fields, 6 * channels + c
            )
        if with_edges:
            smoothness[:] = _ONE
            set_edges_and_pull(
                flow, smoothness, h, w, alpha_x, alpha_y, system, slots, fields, tail, tile_memory
            )
        else:
            set_uniform_pull(flow, h, w, alpha_x, alpha_y, system, slots, fields, tail, tile_memory)
        increment[:] = _ZERO
        drift = np.int64(0)
        # Ghost cells need the value before the last sweep, which then runs on its own.
        last_alone = border.shape[0] > 0
        done = 0
        while done < iterations:
            robust = done >= update_lag - 1
            until = min(done + update_lag if robust else update_lag - 1, iterations)
            if with_edges:  # noqa: SIM102 - alone, so that numba drops what follows
                if robust and a_smooth != _ONE:
                    if done == 0:
                        out[:] = _ZERO
                    else:
                        _read_increment(increment, slots, drift, h, w, border, out)
                    update_smoothness_weight(
                        flow, out, totals, smoothness, h, w, step_y, step_x, a_smooth - _ONE,
                        _ONE - part, part * a_smooth,
                    )  # fmt: skip
                    set_edges_and_pull(
                        flow, smoothness, h, w, alpha_x, alpha_y, system, slots, fields, tail,
                        tile_memory,
                    )  # fmt: skip
            mode = MADE
            left = until - done
            while left > 0:
                sweeps = min(left, LONGEST_GROUP)
                if last_alone and left == sweeps:
                    if left > 1:
                        sweeps -= 1
                    else:
                        _save_border(increment, slots, drift, h, w, border)
                if mode == MADE and sweeps < left:
                    mode = MADE_AND_KEPT
                elif mode == MADE_AND_KEPT:
                    mode = GIVEN
                if with_edges:
                    run_group_with_edges(
                        h, w, slots, sweeps, drift, pointer(system, 0), fields, channels, mapped,
                        uniform_sum, alpha_y, weights, a_data, robust, share,
                        pointer(increment, 0), pointer(kept, 0), mode, pointer(above, 0),
                        pointer(edge, 0), pointer(work, 0),
                    )  # fmt: skip
                else:
                    run_group(
                        h, w, slots, sweeps, drift, pointer(system, 0), fields, channels, mapped,
                        uniform_sum, alpha_y, weights, a_data, robust, share,
                        pointer(increment, 0), pointer(kept, 0), mode, pointer(above, 0),
                        pointer(edge, 0), pointer(work, 0),
                    )  # fmt: skip
                drift = sweeps - 1
                left -= sweeps
            done = until
        _read_increment(increment, slots, drift, h, w, border, out)

    # The disk cache goes by name: one file for two kernels would be written by two processes.
    solve.__name__ = solve.__qualname__ = name
    return kernel(nothing, *_ARGUMENTS)(solve)


# Two kernels, because the second one takes as long to compile and few ever need it.
solve = _make_solve("solve", with_edges=False)
solve_with_edges = _make_solve("solve_with_edges", with_edges=True)


def solve_level(
    layout: LevelLayout,
    system: NDArray[np.float32],
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
    with_ghosts: bool = False,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Flow increment of one level.

    `system`: ``(layout.size,)`` float32 with the tensors from `motion_tensor`; the rest is
        overwritten.
    `weights`: ``(C,)`` float32 weights of the channels.
    `maps`: ``(C, h + 2, w + 2 COLUMN_BORDER)`` float32 factors on the weights.
    `flow`: ``(2, h + 2, w + 2 COLUMN_BORDER)`` float32, u and v with border, full-resolution
        pixels.
    `alpha`: smoothness weights ``(x, y)`` of this level.
    `h_row`, `h_col`: full-resolution pixels per level pixel.
    `iterations`, `update_lag`: sweeps, and sweeps between updates of the robust weights; the first
        ``update_lag - 1`` sweeps have none.
    `a_data`: ``(C,)`` float32 exponents of the data penalty.
    `a_smooth`: exponent of the smoothness penalty, 1 is quadratic.
    `robust_share`: stage of graduated non-convexity: 0 quadratic, 1 robust.
    `with_ghosts`: give the ghost cells of the result their value, that of the pixel next to them
        before the last sweep; otherwise they are undefined. Always done for a robust smoothness.
    `out`: array of the shape of `flow`, written and returned.
    Returns: increments, shape of `flow`; the border beyond the ghost cells is undefined.
    """
    h, w = layout.h, layout.w
    shape = padded_shape(h, w)
    bands, slots = band_shape(h, w)
    edges = layout.with_edges
    alpha_x, alpha_y = alpha[0] / h_col**2, alpha[1] / h_row**2
    if not edges:
        # Divided by the weight along rows: one multiplication less in each update.
        weights = weights / np.float32(alpha_x)
        alpha_x, alpha_y = 1.0, alpha_y / alpha_x
    ghosts = with_ghosts or a_smooth != 1.0
    coefficients = ROBUST_COEFFICIENTS if edges else UNIFORM_COEFFICIENTS
    split = ghosts or max(update_lag, 1) > LONGEST_GROUP
    if out is None:
        out = np.empty((2, *shape), np.float32)
    run = solve_with_edges if edges else solve
    run(
        h,
        w,
        slots,
        layout.fields,
        layout.tail,
        system,
        weights,
        np.empty((0, *shape), np.float32) if maps is None else maps,
        flow,
        np.float32(alpha_x),
        np.float32(alpha_y),
        np.float32(h_col),
        np.float32(h_row),
        iterations,
        update_lag,
        a_data,
        np.float32(a_smooth),
        np.float32(robust_share),
        out,
        scratch("solver increment", (bands * slots * 2 * LANES,)),
        scratch("solver kept", (bands * slots * coefficients * LANES if split else 0,)),
        scratch("solver above", (slots * coefficients * LANES,)),
        scratch("solver edge", (LONGEST_GROUP * slots * 2,)),
        scratch("solver work", (working_size(layout.channels),)),
        scratch("solver tile", (10 * LANES * LANES,)),
        scratch("solver totals", (2 if edges else 0, *shape)),
        scratch("solver smoothness", (shape[0] if edges else 0, shape[1])),
        scratch("solver border", (2 if ghosts else 0, 4, max(h, w))),
    )
    return out
