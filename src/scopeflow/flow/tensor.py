"""Motion tensors of one level: what the data say about the flow increment at each pixel.

A tensor holds the six products ``J11, J22, J33, J12, J13, J23`` of the linearised constancy
assumption, so that the data energy of an increment ``(du, dv)`` is
``J11 du² + J22 dv² + 2 J12 du dv + 2 J13 du + 2 J23 dv + J33`` (Bruhn et al. 2005; normalisation of
the gradient constancy by Zimmer et al. 2011; census transform in the differentiable form of
Hafner et al. 2013).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scopeflow.compiled.bands import (
    COLUMN_BORDER,
    FRONT,
    clamped_row,
    tile_column,
    tile_count,
)
from scopeflow.compiled.gateway import float32, inner, int64, kernel, nothing, readable, writable
from scopeflow.compiled.intrinsics import disjoint, pointer
from scopeflow.compiled.scratch import scratch
from scopeflow.compiled.simd import LANES, load, splat, store, transpose_tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scopeflow.flow.parameters import DataTerm
    from scopeflow.flow.solver import LevelLayout

_REGULARISER = np.float32(1e-6)  # of the normalisation of gradient constancy
_CENSUS_EPSILON = 0.1 / 255  # softness of the census comparison, in normalised intensities

_TILE = LANES * LANES
_FIELDS = 6
_NEIGHBOURS = 8

_ZERO = np.float32(0.0)
_QUARTER = np.float32(0.25)
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)


@inner(inlined=True)
def _gradient_vector(fixed, moving, i, columns, xx, yy, xy, xt, yt, out, place):
    """Gradient constancy at the pixels from ``i`` on of one padded row."""
    above, below = i - columns, i + columns
    # Second derivatives of the mean image, first derivatives of the difference image.
    here = load(fixed, i) + load(moving, i)
    fixed_left, moving_left = load(fixed, i - 1), load(moving, i - 1)
    fixed_right, moving_right = load(fixed, i + 1), load(moving, i + 1)
    fixed_above, moving_above = load(fixed, above), load(moving, above)
    fixed_below, moving_below = load(fixed, below), load(moving, below)
    left, right = fixed_left + moving_left, fixed_right + moving_right
    upper, lower = fixed_above + moving_above, fixed_below + moving_below
    corners = (load(fixed, below + 1) + load(moving, below + 1)) - (
        load(fixed, below - 1) + load(moving, below - 1)
    )
    corners = corners - (
        (load(fixed, above + 1) + load(moving, above + 1))
        - (load(fixed, above - 1) + load(moving, above - 1))
    )
    fxx = xx * ((right - here) - (here - left))
    fyy = yy * ((lower - here) - (here - upper))
    fxy = xy * corners
    fxt = xt * ((moving_right - fixed_right) - (moving_left - fixed_left))
    fyt = yt * ((moving_below - fixed_below) - (moving_above - fixed_above))
    size_x = fxx * fxx + fxy * fxy + _REGULARISER
    size_y = fxy * fxy + fyy * fyy + _REGULARISER
    # Both reciprocals from one division: neither size can overflow or vanish.
    shared = splat(_ONE) / (size_x * size_y)
    weight_x, weight_y = shared * size_y, shared * size_x
    ax, ay, at = weight_x * fxx, weight_x * fxy, weight_x * fxt
    bx, by, bt = weight_y * fxy, weight_y * fyy, weight_y * fyt
    store(out, place, ax * fxx + bx * fxy)
    store(out, place + _TILE, ay * fxy + by * fyy)
    store(out, place + 2 * _TILE, at * fxt + bt * fyt)
    store(out, place + 3 * _TILE, ax * fxy + bx * fyy)
    store(out, place + 4 * _TILE, ax * fxt + bx * fyt)
    store(out, place + 5 * _TILE, ay * fxt + by * fyt)


@inner(inlined=True)
def _brightness(fixed, moving, i, columns, x1, y1):
    """Slopes of the mean image and the difference at the pixels from ``i`` on."""
    fx = x1 * (
        (load(fixed, i + 1) + load(moving, i + 1)) - (load(fixed, i - 1) + load(moving, i - 1))
    )
    above, below = i - columns, i + columns
    fy = y1 * (
        (load(fixed, below) + load(moving, below)) - (load(fixed, above) + load(moving, above))
    )
    return fx, fy, load(moving, i) - load(fixed, i)


@inner(inlined=True)
def _store_products(out, place, share, fx, fy, ft):
    sx, sy, st = share * fx, share * fy, share * ft
    store(out, place, sx * fx)
    store(out, place + _TILE, sy * fy)
    store(out, place + 2 * _TILE, st * ft)
    store(out, place + 3 * _TILE, sx * fy)
    store(out, place + 4 * _TILE, sx * ft)
    store(out, place + 5 * _TILE, sy * ft)


@inner(inlined=True)
def _add_products(out, place, share, fx, fy, ft):
    sx, sy, st = share * fx, share * fy, share * ft
    store(out, place, load(out, place) + sx * fx)
    store(out, place + _TILE, load(out, place + _TILE) + sy * fy)
    store(out, place + 2 * _TILE, load(out, place + 2 * _TILE) + st * ft)
    store(out, place + 3 * _TILE, load(out, place + 3 * _TILE) + sx * fy)
    store(out, place + 4 * _TILE, load(out, place + 4 * _TILE) + sx * ft)
    store(out, place + 5 * _TILE, load(out, place + 5 * _TILE) + sy * ft)


@inner
def _store_tile(tile, system, slots, fields, band, number, channel):
    """Turn the rows of one tile into places of the band."""
    target = (band * slots + FRONT + number * LANES) * fields + _FIELDS * channel
    for k in range(_FIELDS):
        transpose_tile(tile, k * _TILE, LANES, system, (target + k) * LANES, fields * LANES)


@kernel(
    nothing,
    readable(3),  # fixed (C, h + 2, columns)
    readable(3),  # moving
    float32,  # h_row, full-resolution pixels per level pixel
    float32,  # h_col
    int64,  # slots of a band
    int64,  # fields of the system
    writable(1),  # system
    writable(1),  # tile memory
)
def _gradient_tensor(fixed, moving, h_row, h_col, slots, fields, system, tile_memory):
    channels, rows, columns = fixed.shape
    h, w = rows - 2, columns - 2 * COLUMN_BORDER
    xx, yy = _HALF / (h_col * h_col), _HALF / (h_row * h_row)
    xy = _QUARTER * _HALF / (h_col * h_row)
    xt, yt = _HALF / h_col, _HALF / h_row
    tile, out = pointer(tile_memory, 0), pointer(system, 0)
    for c in range(channels):
        first, second = pointer(fixed, c * rows * columns), pointer(moving, c * rows * columns)
        for band in range((h + LANES) // LANES):
            for number in range(tile_count(w)):
                for lane in range(LANES):
                    i = clamped_row(band, lane, h) * columns + tile_column(number, lane)
                    _gradient_vector(
                        first, second, i, columns, xx, yy, xy, xt, yt, tile, lane * LANES
                    )
                _store_tile(tile, out, slots, fields, band, number, c)


@kernel(
    nothing,
    readable(3),
    readable(3),
    float32,
    float32,
    int64,
    int64,
    writable(1),
    writable(1),
)
def _brightness_tensor(fixed, moving, h_row, h_col, slots, fields, system, tile_memory):
    channels, rows, columns = fixed.shape
    h, w = rows - 2, columns - 2 * COLUMN_BORDER
    x1, y1 = _QUARTER / h_col, _QUARTER / h_row
    tile, out = pointer(tile_memory, 0), pointer(system, 0)
    for c in range(channels):
        first, second = pointer(fixed, c * rows * columns), pointer(moving, c * rows * columns)
        for band in range((h + LANES) // LANES):
            for number in range(tile_count(w)):
                for lane in range(LANES):
                    i = clamped_row(band, lane, h) * columns + tile_column(number, lane)
                    fx, fy, ft = _brightness(first, second, i, columns, x1, y1)
                    _store_products(tile, lane * LANES, _ONE, fx, fy, ft)
                _store_tile(tile, out, slots, fields, band, number, c)


@inner
def _census_row(n, here, there, inverse_distance, epsilon2, out):
    """Soft sign of the slope towards one neighbour, between 0 and 1."""
    disjoint()
    for x in range(n):
        slope = (there[x] - here[x]) * inverse_distance
        out[x] = _HALF + _HALF * slope / np.sqrt(slope * slope + epsilon2)


@inner
def _census_band(image, plane, columns, h, w, band, h_row, h_col, epsilon2, out):
    """Census comparisons with all neighbours for the rows of a band and one row on either side.

    ``out`` is ``(8, LANES + 2, columns)``; edges are replicated.
    """
    for k in range(_NEIGHBOURS):
        number = k + 1 if k >= _NEIGHBOURS // 2 else k
        dy, dx = number // 3 - 1, number % 3 - 1
        along_y, along_x = h_row * np.float32(dy), h_col * np.float32(dx)
        inverse = _ONE / np.sqrt(along_y * along_y + along_x * along_x)
        for line in range(LANES + 2):
            row = min(max(band * LANES + line - 1, 1), h)
            start = plane + row * columns + COLUMN_BORDER
            target = (k * (LANES + 2) + line) * columns
            _census_row(
                w,
                pointer(image, start),
                pointer(image, start + dy * columns + dx),
                inverse,
                epsilon2,
                pointer(out, target + COLUMN_BORDER),
            )
            for x in range(COLUMN_BORDER):
                out[k, line, x] = out[k, line, COLUMN_BORDER]
                out[k, line, COLUMN_BORDER + w + x] = out[k, line, COLUMN_BORDER + w - 1]


@kernel(
    nothing,
    readable(3),
    readable(3),
    float32,
    float32,
    int64,
    int64,
    float32,  # epsilon of the comparison
    writable(1),
    writable(1),
    writable(4),  # comparisons of both images (2, 8, LANES + 2, columns)
)
def _census_tensor(
    fixed, moving, h_row, h_col, slots, fields, epsilon, system, tile_memory, compared
):  # fmt: skip
    channels, rows, columns = fixed.shape
    h, w = rows - 2, columns - 2 * COLUMN_BORDER
    x1, y1 = _QUARTER / h_col, _QUARTER / h_row
    share = np.float32(2.0 / _NEIGHBOURS)
    tile, out = pointer(tile_memory, 0), pointer(system, 0)
    size = (LANES + 2) * columns
    for c in range(channels):
        plane = c * rows * columns
        for band in range((h + LANES) // LANES):
            _census_band(
                fixed, plane, columns, h, w, band, h_row, h_col, epsilon * epsilon, compared[0]
            )
            _census_band(
                moving, plane, columns, h, w, band, h_row, h_col, epsilon * epsilon, compared[1]
            )
            for number in range(tile_count(w)):
                for lane in range(LANES):
                    line = clamped_row(band, lane, h) - band * LANES + 1
                    i = min(max(line, 1), LANES) * columns + tile_column(number, lane)
                    for k in range(_NEIGHBOURS):
                        first = pointer(compared, k * size)
                        second = pointer(compared, (_NEIGHBOURS + k) * size)
                        fx, fy, ft = _brightness(first, second, i, columns, x1, y1)
                        if k == 0:
                            _store_products(tile, lane * LANES, share, fx, fy, ft)
                        else:
                            _add_products(tile, lane * LANES, share, fx, fy, ft)
                _store_tile(tile, out, slots, fields, band, number, c)


def motion_tensor(
    fixed: NDArray[np.float32],
    moving: NDArray[np.float32],
    h_row: float,
    h_col: float,
    data_term: DataTerm,
    layout: LevelLayout,
    system: NDArray[np.float32],
) -> None:
    """Write the motion tensors of one level into its linear system.

    `fixed`, `moving`: ``(C, rows + 2, cols + 2 COLUMN_BORDER)`` float32 planes, edges replicated
        around.
    `h_row`, `h_col`: full-resolution pixels per level pixel.
    `data_term`: ``{"gc", "gray", "cs"}``, gradient constancy, brightness constancy, or census.
    `layout`: of the system; its first six fields of each channel are written, in the order ``J11,
        J22, J33, J12, J13, J23``.
    `system`: ``(layout.size,)`` float32.
    """
    steps = np.float32(h_row), np.float32(h_col)
    tile = scratch("tensor tile", (_FIELDS * _TILE,))
    if data_term == "gc":
        _gradient_tensor(fixed, moving, *steps, layout.slots, layout.fields, system, tile)
    elif data_term == "gray":
        _brightness_tensor(fixed, moving, *steps, layout.slots, layout.fields, system, tile)
    else:
        compared = scratch("census", (2, _NEIGHBOURS, LANES + 2, fixed.shape[2]))
        _census_tensor(
            fixed,
            moving,
            *steps,
            layout.slots,
            layout.fields,
            np.float32(_CENSUS_EPSILON),
            system,
            tile,
            compared,
        )
