"""One pass of the level solver over all bands: coefficients, then a group of sweeps, in step.

Sweep ``k`` of a group runs one place and one row behind sweep ``k - 1``. In that frame of
reference all its inputs are vectors that were made one or two steps before: with ``new[k]`` the
result of sweep ``k`` one step ago and ``moved[k]`` the same shifted up by one lane,

* left neighbour: ``new[k]``; upper neighbour: ``moved[k]``;
* lower neighbour, old: ``new[k - 1]``; right neighbour, old: ``moved[k - 1]``;
* the pixel itself, old: ``moved[k - 1]`` of two steps ago.

So the whole group runs from the first-level cache: the system of a level is read, and its
increment read and written, once per group instead of once per sweep. The coefficients of `CHUNK`
places are made first and then used: two short loops keep a processor busier than a long one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scopeflow.compiled.bands import FRONT
from scopeflow.compiled.gateway import inner
from scopeflow.compiled.simd import (
    LANES,
    WIDE,
    lane_numbers,
    load,
    load_wide,
    prefetch,
    shift_down,
    shift_up,
    splat,
    store,
    store_last_lanes,
    where_equal,
    where_less,
)
from scopeflow.flow.coefficients import (
    COUPLING_U,
    COUPLING_V,
    DOWN,
    INVERSE_U,
    INVERSE_V,
    LEFT,
    RELAXATION,
    RHS_U,
    RHS_V,
    RIGHT,
    ROBUST_COEFFICIENTS,
    UNIFORM_COEFFICIENTS,
    UP,
    write_coefficients,
    write_robust_weights,
)

LONGEST_GROUP = 5
"""Sweeps that one pass can hold: a group with the default update lag."""

CHUNK = 8
"""Places for which coefficients are made at once, a multiple of `WIDE`."""

_RING = 16  # places whose coefficients are kept: sweep k looks 2 k places back
_PAIR = 2 * LANES  # each coefficient: of the last rows of the band above, then of this band
_START_FIELDS = 4  # increment before the group, u and v, at a place and one row below it
_STATE_FIELDS = 6  # of each sweep: new u, v; moved u, v of even and of odd steps

# What happens to the coefficients of a pass.
MADE, MADE_AND_KEPT, GIVEN = range(3)

_FAR = 2**17  # elements of a system, half a megabyte: more is not in the nearer caches
_AHEAD = 4 * CHUNK  # places from those in work to those that are asked for
_LINE = 16  # elements of a cache line

_KEEP = np.float32(1.0 - RELAXATION)
_ZERO = np.float32(0.0)


# Parts of the working memory of a pass: coefficients of a chunk first.
_START = _RING * ROBUST_COEFFICIENTS * _PAIR
_STATE = _START + (CHUNK + 1) * _START_FIELDS * LANES
_WEIGHTS = _STATE + LONGEST_GROUP * _STATE_FIELDS * LANES


def working_size(channels: int) -> int:
    """Elements of the working memory of a pass."""
    return _WEIGHTS + CHUNK * channels * LANES


@inner(inlined=True)
def _stored(increment, here, below, place, drift, field):
    """Increment of the rows of a band at a place, from the shifted rows as they are stored.

    ``here`` and ``below`` are the starts of this band and the next one.
    """
    own = here + (FRONT + place + drift) * 2 * LANES + field * LANES + drift
    other = below + (FRONT + place + drift - LANES) * 2 * LANES + field * LANES - (LANES - drift)
    inside = splat(np.float32(LANES - drift))
    return where_less(lane_numbers(), inside, load(increment, own), load(increment, other))


@inner(inlined=True)
def _read_start(increment, here, below, first, drift, work):
    """Increment before this group at the places of a chunk and one more, and below them."""
    for j in range(CHUNK + 1):
        place = first + j
        u = _stored(increment, here, below, place, drift, np.int64(0))
        v = _stored(increment, here, below, place, drift, np.int64(1))
        out = _START + j * _START_FIELDS * LANES
        store(work, out, u)
        store(work, out + LANES, v)
        if j > 0:
            corner = below + (FRONT + place - LANES + drift) * 2 * LANES + drift
            store(work, out - 2 * LANES, shift_down(u, increment[corner]))
            store(work, out - LANES, shift_down(v, increment[corner + LANES]))


@inner(inlined=True)
def _pass_on(above, place, count, fields, work, row):
    """Give rows of coefficients those of the last rows of the band above."""
    source = (FRONT + place + LANES) * fields * LANES
    for i in range(count * fields):
        store(work, row * fields * _PAIR + i * _PAIR, load(above, source + i * LANES))


@inner(inlined=True)
def _ghosts(t, k, band, h, w, inside, left, right, up, down):
    """Give ghost cells the value that their pixel has when they are looked at next.

    Each pixel at the border then finds its own old value beyond it.
    """
    lanes = lane_numbers()
    column = splat(np.float32(t - k)) - lanes
    line = splat(np.float32(band * LANES - k)) + lanes
    value = where_equal(column, splat(_ZERO), right, inside)
    value = where_equal(column, splat(np.float32(w + 1)), left, value)
    value = where_equal(line, splat(_ZERO), down, value)
    return where_equal(line, splat(np.float32(h + 1)), up, value)


def _make_update(careful: bool, with_edges: bool) -> Any:
    """Update of the pixels of one vector: du first, then dv with the new du."""

    @inner(inlined=True)
    def update(
        t, k, band, h, w, rho, work, c, left_u, left_v, right_u, right_v, up_u, up_v, down_u,
        down_v, old_u, old_v,
    ):  # fmt: skip
        if with_edges:
            left, right = load(work, c + LEFT * _PAIR), load(work, c + RIGHT * _PAIR)
            up, down = load(work, c + UP * _PAIR), load(work, c + DOWN * _PAIR)
            pull_u = (left * left_u + right * right_u) + (up * up_u + down * down_u)
            pull_v = (left * left_v + right * right_v) + (up * up_v + down * down_v)
        else:
            pull_u = (left_u + right_u) + rho * (up_u + down_u)
            pull_v = (left_v + right_v) + rho * (up_v + down_v)
        own = load(work, c + RHS_U * _PAIR) - load(work, c + COUPLING_U * _PAIR) * old_v
        own = _KEEP * old_u + own
        new_u = own + load(work, c + INVERSE_U * _PAIR) * pull_u
        own = _KEEP * old_v + load(work, c + RHS_V * _PAIR)
        own = own + load(work, c + INVERSE_V * _PAIR) * pull_v
        new_v = own - load(work, c + COUPLING_V * _PAIR) * new_u
        if careful:
            new_u = _ghosts(t, k, band, h, w, new_u, left_u, right_u, up_u, down_u)
            new_v = _ghosts(t, k, band, h, w, new_v, left_v, right_v, up_v, down_v)
        return new_u, new_v

    return update


def _make_steps(careful: bool, with_edges: bool, fixed: int = 0) -> Any:
    """Sweeps of one chunk; ``careful`` ones may meet ghost cells.

    For a ``fixed`` number of sweeps the loop over them is unrolled: 5 % less time.
    """
    row = (ROBUST_COEFFICIENTS if with_edges else UNIFORM_COEFFICIENTS) * _PAIR
    update = _make_update(careful, with_edges)

    @inner
    def steps(
        first, begin, end, band, h, w, sweeps, rho, increment, here, edge, work
    ):  # fmt: skip
        count = fixed if fixed > 0 else sweeps
        for t in range(begin, end):
            start = _START + (t - first) * _START_FIELDS * LANES
            old_u, old_v = load(work, start), load(work, start + LANES)
            down_u, down_v = load(work, start + 2 * LANES), load(work, start + 3 * LANES)
            right_u, right_v = load(work, start + 4 * LANES), load(work, start + 5 * LANES)
            new_u, new_v = old_u, old_v
            even = (t % 2) * 2 * LANES
            odd = 2 * LANES - even
            seam = (FRONT + t) * 2 * LONGEST_GROUP
            for k in range(count):
                state = _STATE + k * _STATE_FIELDS * LANES
                left_u, left_v = load(work, state), load(work, state + LANES)
                now, before = state + 2 * LANES + even, state + 2 * LANES + odd
                up_u, up_v = load(work, before), load(work, before + LANES)
                c = ((t - 2 * k) & (_RING - 1)) * row + LANES - k
                new_u, new_v = update(
                    t, k, band, h, w, rho, work, c, left_u, left_v, right_u,
                    right_v, up_u, up_v, down_u, down_v, old_u, old_v,
                )  # fmt: skip
                # What the next sweep needs from this one; only then it is replaced.
                down_u, down_v, right_u, right_v = left_u, left_v, up_u, up_v
                old_u, old_v = load(work, now), load(work, now + LANES)
                store(work, state, new_u)
                store(work, state + LANES, new_v)
                passed = seam + LANES * 2 * LONGEST_GROUP + 2 * k
                store(work, now, shift_up(new_u, edge[passed]))
                store(work, now + LANES, shift_up(new_v, edge[passed + 1]))
                store_last_lanes(edge, seam + 2 * k, new_u, new_v)
            done = here + (FRONT + t - (sweeps - 1)) * 2 * LANES
            store(increment, done, new_u)
            store(increment, done + LANES, new_v)

    return steps


@inner
def _apply_maps(system, start, fields, channels, places, work, weights):
    """Multiply the weights of a chunk by the factors of each pixel."""
    for j in range(places):
        factor = start + (j * fields + 6 * channels) * LANES
        for c in range(channels):
            i = weights + (j * channels + c) * LANES
            store(work, i, load(work, i) * load(system, factor + c * LANES))


def _make_run_group(with_edges: bool) -> Any:
    fields = ROBUST_COEFFICIENTS if with_edges else UNIFORM_COEFFICIENTS
    row = fields * _PAIR
    # Groups of another length, the first and the last, use the careful steps as well: a third
    # version would cost two seconds at the first call and gain one percent.
    usual_steps = _make_steps(False, with_edges, LONGEST_GROUP)
    careful_steps = _make_steps(True, with_edges)

    @inner
    def run_group(
        h, w, slots, sweeps, drift, system, system_fields, channels, mapped, uniform_sum, rho,
        weights, a_data, robust, share, increment, kept, mode, above, edge, work,
    ):  # fmt: skip
        tail = (7 if mapped else 6) * channels
        end = w + 2 + LANES - 1 + sweeps - 1
        # Asked for early where memory is slow: an eighth less time for levels of 512 px.
        far = (h + 2) * slots * system_fields > _FAR
        for band in range((h + 1 + sweeps - 1) // LANES + 1):
            here = band * slots * 2 * LANES
            below = here + slots * 2 * LANES
            # Ghost rows: row 0 in the first band, row h + 1 in the last one or two.
            rows_inside = (band > 0) & ((band + 1) * LANES <= h + 1)
            # Sweep k looks up to k places before the first column in the rows of the band above.
            _pass_on(above, 1 - sweeps, sweeps - 1, fields, work, _RING + 1 - sweeps)
            for first in range(0, end, CHUNK):
                last = min(first + CHUNK, end)
                ring = first % _RING
                _read_start(increment, here, below, first, drift, work)
                passed = (FRONT + first) * fields * LANES
                kept_start = band * slots * fields * LANES + passed
                start = (band * slots + FRONT + first) * system_fields * LANES
                _pass_on(above, first, last - first, fields, work, ring)
                if mode == GIVEN:
                    for i in range((last - first) * fields):
                        made = load(kept, kept_start + i * LANES)
                        store(work, ring * row + LANES + i * _PAIR, made)
                        store(above, passed + i * LANES, made)
                else:
                    if far:
                        asked = start + _AHEAD * system_fields * LANES
                        for i in range(CHUNK * system_fields * LANES // _LINE):
                            prefetch(system, asked + i * _LINE)
                    if robust:
                        for j in range(0, last - first, WIDE):
                            begin = _START + j * _START_FIELDS * LANES
                            u = load_wide(work, begin, _START_FIELDS * LANES)
                            v = load_wide(work, begin + LANES, _START_FIELDS * LANES)
                            write_robust_weights(
                                system, start + j * system_fields * LANES, system_fields,
                                channels, weights, a_data, share, u, v, work,
                                _WEIGHTS + j * channels * LANES,
                            )  # fmt: skip
                    else:
                        for i in range((last - first) * channels):
                            store(work, _WEIGHTS + i * LANES, splat(weights[i % channels]))
                    if mapped:
                        _apply_maps(
                            system, start, system_fields, channels, last - first, work, _WEIGHTS
                        )
                    for j in range(last - first):
                        begin = start + j * system_fields * LANES
                        write_coefficients(
                            system, begin, channels, begin + tail * LANES, with_edges,
                            uniform_sum, work, _WEIGHTS + j * channels * LANES, work,
                            (ring + j) * row + LANES, np.int64(_PAIR), above,
                            passed + j * fields * LANES,
                        )  # fmt: skip
                    if mode == MADE_AND_KEPT:
                        for i in range((last - first) * fields):
                            store(kept, kept_start + i * LANES, load(above, passed + i * LANES))
                # Steps in which no lane is at a ghost cell.
                usual = rows_inside & (sweeps == LONGEST_GROUP)
                begin = min(max(first, LANES + sweeps), last) if usual else last
                stop = max(min(last, w + 1), begin) if usual else last
                careful_steps(
                    first, first, begin, band, h, w, sweeps, rho, increment, here, edge, work
                )
                usual_steps(
                    first, begin, stop, band, h, w, sweeps, rho, increment, here, edge, work
                )
                careful_steps(
                    first, stop, last, band, h, w, sweeps, rho, increment, here, edge, work
                )

    return run_group


run_group = _make_run_group(with_edges=False)
"""Up to `LONGEST_GROUP` sweeps; afterwards the increment drifts by one row less than that."""

run_group_with_edges = _make_run_group(with_edges=True)
"""As `run_group`, with a weight for each edge."""
