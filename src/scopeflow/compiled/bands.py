"""Storage of one pyramid level for the solver: bands of rows whose lanes march diagonally.

The padded grid of a level has ``h + 2`` rows and ``w + 2`` columns: the pixels and a ring of ghost
cells around them. A band is `LANES` consecutive rows, one per lane of a vector. Lane ``l`` runs
``l`` columns behind lane 0, so that the vector at ``place`` holds the columns ``place - l``. All
its pixels lie on one anti-diagonal and are independent in the lexicographic order of the solver,
while the rows of a band stay in one stream of memory::

    address(band, place, field, lane)
        = ((band * slots + FRONT + place) * fields + field) * LANES + lane

Planes that are turned into bands need `COLUMN_BORDER` columns and `ROW_BORDER` rows around their
pixels, because the lanes at both ends of a band look beyond the grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.gateway import inner
from scopeflow.compiled.simd import LANES, transpose_tile

ROW_BORDER = 1
"""Rows around the pixels of a plane: the ghost cells."""

COLUMN_BORDER = 2 * LANES
"""Columns around the pixels of a plane: ghost cells, and what whole vectors touch beyond them."""

FRONT = LANES
"""Places stored before place 0."""


def band_shape(h: int, w: int) -> tuple[int, int]:
    """Bands and places of a level of ``h`` by ``w`` pixels, with room on all sides.

    Sweeps of one group are shifted against each other by a row and a place each, at most `LANES`.
    """
    bands = -(-(h + 2 + LANES) // LANES) + 1
    slots = FRONT + (w + 2) + 4 * LANES
    return bands, slots


def padded_shape(h: int, w: int) -> tuple[int, int]:
    """Rows and columns of a plane with its border."""
    return h + 2 * ROW_BORDER, w + 2 * COLUMN_BORDER


def pixels(planes: NDArray[np.float32], rows: int = ROW_BORDER) -> NDArray[np.float32]:
    """View of the pixels of planes ``(..., h + 2 rows, w + 2 COLUMN_BORDER)``."""
    return planes[..., rows : planes.shape[-2] - rows, COLUMN_BORDER:-COLUMN_BORDER]


@inner
def clamped_row(band, lane, h):
    """Row of a lane, moved to the next pixel row where it is none; such lanes are never used."""
    return min(max(band * LANES + lane, 1), h)


@inner
def tile_count(w):
    """Tiles of `LANES` places that cover all columns of a band."""
    return (w + 2 + LANES - 1 + LANES - 1) // LANES


@inner
def tile_column(tile, lane):
    """Where, in a padded row, the vector of a lane begins in a tile."""
    return COLUMN_BORDER - 1 + tile * LANES - lane


@inner
def plane_to_bands(plane, columns, h, w, out, slots, fields, field):
    """Store a padded plane (pointer to its first row) as one field."""
    for band in range((h + LANES) // LANES):
        for tile in range(tile_count(w)):
            target = ((band * slots + FRONT + tile * LANES) * fields + field) * LANES
            top = band * LANES
            if top + LANES <= h + 2:
                start = top * columns + tile_column(tile, np.int64(0))
                transpose_tile(plane, start, columns - 1, out, target, fields * LANES)
            else:
                # The last band ends below the grid: its rows there repeat the last one.
                for lane in range(LANES):
                    row = min(top + lane, h + 1)
                    start = row * columns + tile_column(tile, lane)
                    for place in range(LANES):
                        out[target + place * fields * LANES + lane] = plane[start + place]


@inner
def bands_to_plane(source, slots, fields, field, drift, plane, columns, h, w):
    """Reverse of `plane_to_bands` for the rows of the grid; writes beyond the columns as well.

    ``drift`` is the number of rows by which the stored lanes are behind: lane ``l`` of a band
    holds the row ``band * LANES + l - drift``.
    """
    for band in range((h + 1 + drift + LANES) // LANES):
        top = band * LANES - drift
        for tile in range(tile_count(w)):
            start = ((band * slots + FRONT + tile * LANES) * fields + field) * LANES
            if top >= 0 and top + LANES <= h + 2:
                target = top * columns + tile_column(tile, np.int64(0))
                transpose_tile(source, start, fields * LANES, plane, target, columns - 1)
            else:
                for lane in range(LANES):
                    row = top + lane
                    if row < 0 or row > h + 1:
                        continue
                    target = row * columns + tile_column(tile, lane)
                    for place in range(LANES):
                        plane[target + place] = source[start + place * fields * LANES + lane]
