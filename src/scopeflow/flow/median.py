"""Median of each 5 × 5 neighbourhood by sorting networks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.gateway import inner, int64, kernel, nothing, readable, writable
from scopeflow.compiled.intrinsics import disjoint, pointer
from scopeflow.compiled.scratch import scratch
from scopeflow.errors import InputError

_RADIUS = 2


@inner(finite=True)
def _ordered(a, b):
    return (min(b, a)), (max(a, b))


@inner(finite=True)
def _sort5(a, b, c, d, e):
    """Sort five numbers with nine comparisons (Knuth, The Art of Computer Programming 3)."""
    a, d = _ordered(a, d)
    b, e = _ordered(b, e)
    a, c = _ordered(a, c)
    b, d = _ordered(b, d)
    a, b = _ordered(a, b)
    c, e = _ordered(c, e)
    b, c = _ordered(b, c)
    d, e = _ordered(d, e)
    c, d = _ordered(c, d)
    return a, b, c, d, e


@inner(finite=True)
def _drop_extremes_8(a, b, c, d, e, f, g, h):
    """Return the six numbers left when the smallest and the largest are taken out."""
    a, h = _ordered(a, h)
    b, g = _ordered(b, g)
    c, f = _ordered(c, f)
    d, e = _ordered(d, e)
    a, b = _ordered(a, b)
    c, d = _ordered(c, d)
    a, c = _ordered(a, c)
    g, h = _ordered(g, h)
    e, f = _ordered(e, f)
    f, h = _ordered(f, h)
    return b, c, d, e, f, g


@inner(finite=True)
def _drop_extremes_7(a, b, c, d, e, f, g):
    """Return the five numbers left when the smallest and the largest are taken out."""
    a, g = _ordered(a, g)
    b, f = _ordered(b, f)
    c, e = _ordered(c, e)
    a, b = _ordered(a, b)
    c, d = _ordered(c, d)
    a, c = _ordered(a, c)
    f, g = _ordered(f, g)
    d, e = _ordered(d, e)
    e, g = _ordered(e, g)
    return b, c, d, e, f


@inner(finite=True)
def _drop_extremes_6(a, b, c, d, e, f):
    """Return the four numbers left when the smallest and the largest are taken out."""
    a, f = _ordered(a, f)
    b, e = _ordered(b, e)
    c, d = _ordered(c, d)
    a, b = _ordered(a, b)
    a, c = _ordered(a, c)
    e, f = _ordered(e, f)
    d, f = _ordered(d, f)
    return b, c, d, e


@inner(finite=True)
def _drop_extremes_5(a, b, c, d, e):
    """Return the three numbers left when the smallest and the largest are taken out."""
    a, e = _ordered(a, e)
    b, d = _ordered(b, d)
    a, b = _ordered(a, b)
    a, c = _ordered(a, c)
    d, e = _ordered(d, e)
    c, e = _ordered(c, e)
    return b, c, d


@inner(finite=True)
def _drop_extremes_4(a, b, c, d):
    """Return the two numbers left when the smallest and the largest are taken out."""
    a, d = _ordered(a, d)
    b, c = _ordered(b, c)
    a, b = _ordered(a, b)
    c, d = _ordered(c, d)
    return b, c


@inner(finite=True)
def _median3(a, b, c):
    a, b = _ordered(a, b)
    b, c = _ordered(b, c)
    a, b = _ordered(a, b)
    return b


@inner(finite=True)
def _sort_columns(n, r0, r1, r2, r3, r4, s0, s1, s2, s3, s4):
    """Sort the five values above each other at each position of five rows."""
    disjoint()
    for x in range(n):
        a, b, c, d, e = _sort5(r0[x], r1[x], r2[x], r3[x], r4[x])
        s0[x] = a
        s1[x] = b
        s2[x] = c
        s3[x] = d
        s4[x] = e


@inner(finite=True)
def _select(n, s0, s1, s2, s3, s4, out):
    """Median of five sorted columns.

    With the columns sorted, each rank row is sorted too. Of the 25 values only 13 can then be the
    median: those with at most twelve others certainly below and at most twelve certainly above.
    Twelve extremes, six on each side, are dropped from these pairwise.
    """
    disjoint()
    for x in range(n):
        _, _, _, a3, a4 = _sort5(s0[x], s0[x + 1], s0[x + 2], s0[x + 3], s0[x + 4])
        _, _, b2, b3, b4 = _sort5(s1[x], s1[x + 1], s1[x + 2], s1[x + 3], s1[x + 4])
        _, c1, c2, c3, _ = _sort5(s2[x], s2[x + 1], s2[x + 2], s2[x + 3], s2[x + 4])
        d0, d1, d2, _, _ = _sort5(s3[x], s3[x + 1], s3[x + 2], s3[x + 3], s3[x + 4])
        e0, e1, _, _, _ = _sort5(s4[x], s4[x + 1], s4[x + 2], s4[x + 3], s4[x + 4])
        p, q, r, s, t, u = _drop_extremes_8(a3, a4, b2, b3, b4, c1, c2, c3)
        p, q, r, s, t = _drop_extremes_7(p, q, r, s, t, u, d0)
        p, q, r, s = _drop_extremes_6(p, q, r, s, t, d1)
        p, q, r = _drop_extremes_5(p, q, r, s, d2)
        p, q = _drop_extremes_4(p, q, r, e0)
        out[x] = _median3(p, q, e1)


@inner(finite=True)
def _mirror(i, n):
    """Index reflected at the centres of the end pixels (``scipy.ndimage`` mode "mirror")."""
    if i < 0:
        i = -i
    return i if i < n else 2 * n - 2 - i


@inner(finite=True)
def _add_row(n, row, base):
    disjoint()
    for x in range(n):
        row[x] += base[x]


@kernel(
    nothing,
    readable(3),  # planes (C, h, w) with a border
    int64,  # top: rows of the border on each side
    int64,  # left: columns of it
    readable(3),  # base with the same border, added to the median; or empty
    writable(3),  # out (C, h, w)
    writable(2),  # rows: scratch, ten rows of w + 4: five with mirrored ends, five sorted
    finite=True,
)
def _median_planes(planes, top, left, base, out, rows):
    channels, h, w = out.shape
    stride = planes.shape[2]
    n = w + 2 * _RADIUS
    for c in range(channels):
        first = (c * planes.shape[1] + top) * stride + left
        for y in range(h):
            # Rows are kept in a ring: only one enters for each output row.
            for k in range(-_RADIUS if y == 0 else _RADIUS, _RADIUS + 1):
                source = pointer(planes, first + _mirror(y + k, h) * stride)
                row = pointer(rows, (y + k + 5) % 5 * n)
                for x in range(w):
                    row[x + _RADIUS] = source[x]
                for x in range(_RADIUS):
                    row[x] = source[_mirror(x - _RADIUS, w)]
                    row[w + _RADIUS + x] = source[_mirror(w + x, w)]
            _sort_columns(
                n,
                pointer(rows, 0),
                pointer(rows, n),
                pointer(rows, 2 * n),
                pointer(rows, 3 * n),
                pointer(rows, 4 * n),
                pointer(rows, 5 * n),
                pointer(rows, 6 * n),
                pointer(rows, 7 * n),
                pointer(rows, 8 * n),
                pointer(rows, 9 * n),
            )
            target = pointer(out, (c * h + y) * w)
            _select(
                w,
                pointer(rows, 5 * n),
                pointer(rows, 6 * n),
                pointer(rows, 7 * n),
                pointer(rows, 8 * n),
                pointer(rows, 9 * n),
                target,
            )
            if base.shape[0] > 0:
                _add_row(w, target, pointer(base, first + y * stride))


def median_5x5(
    planes: NDArray[np.float32],
    *,
    border: tuple[int, int] = (0, 0),
    base: NDArray[np.float32] | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Median of 5 × 5 pixels with borders mirrored at the centres of the edge pixels.

    Equal to ``scipy.ndimage.median_filter(plane, 5, mode="mirror")`` for finite values.

    `planes`: ``(C, h + 2 border[0], w + 2 border[1])`` float32, C-contiguous, at least 3 × 3
        pixels.
    `border`: rows and columns around the pixels that are not looked at.
    `base`: same shape; its pixels are added to the medians.
    `out`: ``(C, h, w)``, another array, written and returned.
    Returns: ``(C, h, w)`` float32.
    Raises InputError: when the planes are smaller than 3 × 3 pixels.

    Examples
    --------
    >>> import numpy as np
    >>> spike = np.zeros((1, 7, 7), np.float32)
    >>> spike[0, 3, 3] = 9
    >>> float(median_5x5(spike).max())
    0.0
    """
    channels, rows, columns = planes.shape
    h, w = rows - 2 * border[0], columns - 2 * border[1]
    if min(h, w) <= _RADIUS:
        raise InputError(
            f"Planes of {h} × {w} px were given; a 5 × 5 median with mirrored borders needs at "
            "least 3 × 3 px."
        )
    if out is None:
        out = np.empty((channels, h, w), np.float32)
    if base is None:
        base = np.empty((0, 0, 0), np.float32)
    _median_planes(planes, *border, base, out, scratch("median", (10, w + 2 * _RADIUS)))
    return out
