"""Skewed storage of a level: anti-diagonal ``d = x + y`` is a row, ``x`` the place in it.

The grid has a ring of one pixel around its ``h`` by ``w`` interior, ``0 <= y <= h + 1`` and
``0 <= x <= w + 1``. Left and upper neighbours lie in row ``d - 1`` at ``x - 1`` and ``x``, right
and lower ones in row ``d + 1`` at ``x + 1`` and ``x``.
"""

from __future__ import annotations

import numpy as np

from scopeflow.kernels._jit import disjoint, inner, pointer

ROW_GAP = 16
"""Elements between rows: room for whole vectors, and other cache sets for writes down a column."""

_LANES = 8  # rows are processed in whole vectors of this many elements
_TILE = 16  # columns that are skewed together: their cache lines are filled before they leave
_ZERO = np.float32(0.0)


@inner
def first_x(d, h):
    """First interior column of diagonal ``d`` in a grid of ``h`` interior rows."""
    return max(1, d - h)


@inner
def last_x(d, w):
    """Last interior column of diagonal ``d`` in a grid of ``w`` interior columns."""
    return min(w, d - 1)


@inner
def whole_vectors(n):
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
def skew(planes, margin, out):
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
def unskew(planes, out):
    """Reverse of `skew` for planes that fill the grid."""
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


@inner
def constant_row(n, out, value):
    for i in range(n):
        out[i] = value


@inner
def clear_grid(planes, h, w):
    """Zeros on the grid with its ring; elements beyond it are never read."""
    for k in range(planes.shape[0]):
        for d in range(h + w + 3):
            first, last = max(0, d - h - 1), min(w + 1, d)
            start = (k * planes.shape[1] + d) * planes.shape[2] + first
            constant_row(last - first + 1, pointer(planes, start), _ZERO)
