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

from scopeflow.kernels._jit import (
    disjoint,
    float32,
    inner,
    kernel,
    nothing,
    pointer,
    readable,
    writable,
)
from scopeflow.kernels._scratch import scratch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scopeflow.config.specs import DataTerm

_REGULARISER = np.float32(1e-6)  # of the normalisation of gradient constancy
_CENSUS_EPSILON = 0.1 / 255  # softness of the census comparison, in normalised intensities

_ZERO = np.float32(0.0)
_QUARTER = np.float32(0.25)
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)


@inner
def _gradient_row(
    n, aa, ab, ac, ba, bb, bc, j11, j22, j33, j12, j13, j23, xx, yy, xy, xt, yt
):  # fmt: skip
    """One row of the gradient-constancy tensor.

    ``aa, ab, ac`` are the rows above, at and below in the fixed image, ``b*`` in the moving one,
    all starting one pixel left of the first pixel.
    """
    disjoint()
    for x in range(n):
        # Second derivatives of the mean image, first derivatives of the difference image.
        mean_above_left = aa[x] + ba[x]
        mean_above = aa[x + 1] + ba[x + 1]
        mean_above_right = aa[x + 2] + ba[x + 2]
        mean_left = ab[x] + bb[x]
        mean_here = ab[x + 1] + bb[x + 1]
        mean_right = ab[x + 2] + bb[x + 2]
        mean_below_left = ac[x] + bc[x]
        mean_below = ac[x + 1] + bc[x + 1]
        mean_below_right = ac[x + 2] + bc[x + 2]
        fxx = xx * ((mean_right - mean_here) - (mean_here - mean_left))
        fyy = yy * ((mean_below - mean_here) - (mean_here - mean_above))
        fxy = xy * ((mean_below_right - mean_below_left) - (mean_above_right - mean_above_left))
        fxt = xt * ((bb[x + 2] - ab[x + 2]) - (bb[x] - ab[x]))
        fyt = yt * ((bc[x + 1] - ac[x + 1]) - (ba[x + 1] - aa[x + 1]))
        weight_x = _ONE / (fxx * fxx + fxy * fxy + _REGULARISER)
        weight_y = _ONE / (fxy * fxy + fyy * fyy + _REGULARISER)
        j11[x] = weight_x * (fxx * fxx) + weight_y * (fxy * fxy)
        j22[x] = weight_x * (fxy * fxy) + weight_y * (fyy * fyy)
        j33[x] = weight_x * (fxt * fxt) + weight_y * (fyt * fyt)
        j12[x] = weight_x * (fxx * fxy) + weight_y * (fxy * fyy)
        j13[x] = weight_x * (fxx * fxt) + weight_y * (fxy * fyt)
        j23[x] = weight_x * (fxy * fxt) + weight_y * (fyy * fyt)


@inner
def _brightness_row(n, aa, ab, ac, ba, bb, bc, j11, j22, j33, j12, j13, j23, x1, y1):
    """One row of the brightness-constancy tensor; arguments as in `_gradient_row`."""
    disjoint()
    for x in range(n):
        fx = x1 * ((ab[x + 2] + bb[x + 2]) - (ab[x] + bb[x]))
        fy = y1 * ((ac[x + 1] + bc[x + 1]) - (aa[x + 1] + ba[x + 1]))
        ft = bb[x + 1] - ab[x + 1]
        j11[x] = fx * fx
        j22[x] = fy * fy
        j33[x] = ft * ft
        j12[x] = fx * fy
        j13[x] = fx * ft
        j23[x] = fy * ft


@kernel(nothing, readable(3), readable(3), float32, float32, writable(4))
def _gradient_tensor(fixed, moving, h_row, h_col, out):
    channels, rows, cols = fixed.shape
    h, w = rows - 2, cols - 2
    plane = h * w
    xx, yy = _HALF / (h_col * h_col), _HALF / (h_row * h_row)
    xy = _QUARTER * _HALF / (h_col * h_row)
    xt, yt = _HALF / h_col, _HALF / h_row
    for c in range(channels):
        for y in range(h):
            above = (c * rows + y) * cols
            target = c * 6 * plane + y * w
            _gradient_row(
                w,
                pointer(fixed, above),
                pointer(fixed, above + cols),
                pointer(fixed, above + 2 * cols),
                pointer(moving, above),
                pointer(moving, above + cols),
                pointer(moving, above + 2 * cols),
                pointer(out, target),
                pointer(out, target + plane),
                pointer(out, target + 2 * plane),
                pointer(out, target + 3 * plane),
                pointer(out, target + 4 * plane),
                pointer(out, target + 5 * plane),
                xx,
                yy,
                xy,
                xt,
                yt,
            )


@kernel(nothing, readable(3), readable(3), float32, float32, writable(4))
def _brightness_tensor(fixed, moving, h_row, h_col, out):
    channels, rows, cols = fixed.shape
    h, w = rows - 2, cols - 2
    plane = h * w
    x1, y1 = _QUARTER / h_col, _QUARTER / h_row
    for c in range(channels):
        for y in range(h):
            above = (c * rows + y) * cols
            target = c * 6 * plane + y * w
            _brightness_row(
                w,
                pointer(fixed, above),
                pointer(fixed, above + cols),
                pointer(fixed, above + 2 * cols),
                pointer(moving, above),
                pointer(moving, above + cols),
                pointer(moving, above + 2 * cols),
                pointer(out, target),
                pointer(out, target + plane),
                pointer(out, target + 2 * plane),
                pointer(out, target + 3 * plane),
                pointer(out, target + 4 * plane),
                pointer(out, target + 5 * plane),
                x1,
                y1,
            )


@inner
def _census_row(n, here, there, inverse_distance, epsilon2, out):
    """Soft sign of the slope towards one neighbour, between 0 and 1."""
    disjoint()
    for x in range(n):
        slope = (there[x] - here[x]) * inverse_distance
        out[x] = _HALF + _HALF * slope / np.sqrt(slope * slope + epsilon2)


@inner
def _census_plane(image, dy, dx, inverse_distance, epsilon2, out):
    """Census comparison with the neighbour ``(dy, dx)``, edges replicated, same padded size."""
    rows, cols = image.shape
    for y in range(1, rows - 1):
        start = y * cols + 1
        _census_row(
            cols - 2,
            pointer(image, start),
            pointer(image, start + dy * cols + dx),
            inverse_distance,
            epsilon2,
            pointer(out, start),
        )
        out[y, 0] = out[y, 1]
        out[y, cols - 1] = out[y, cols - 2]
    for x in range(cols):
        out[0, x] = out[1, x]
        out[rows - 1, x] = out[rows - 2, x]


@inner
def _add_products_row(
    n, aa, ab, ac, ba, bb, bc, j11, j22, j33, j12, j13, j23, x1, y1, share
):  # fmt: skip
    """Add one census comparison to the tensor; arguments as in `_gradient_row`."""
    disjoint()
    for x in range(n):
        fx = x1 * ((ab[x + 2] + bb[x + 2]) - (ab[x] + bb[x]))
        fy = y1 * ((ac[x + 1] + bc[x + 1]) - (aa[x + 1] + ba[x + 1]))
        ft = bb[x + 1] - ab[x + 1]
        j11[x] += share * fx * fx
        j22[x] += share * fy * fy
        j33[x] += share * ft * ft
        j12[x] += share * fx * fy
        j13[x] += share * fx * ft
        j23[x] += share * fy * ft


@kernel(nothing, readable(3), readable(3), float32, float32, float32, writable(4), writable(3))
def _census_tensor(fixed, moving, h_row, h_col, epsilon, out, signatures):
    channels, rows, cols = fixed.shape
    h, w = rows - 2, cols - 2
    plane = h * w
    x1, y1 = _QUARTER / h_col, _QUARTER / h_row
    share = _QUARTER  # 2 / 8 neighbours
    out[:] = _ZERO
    size = rows * cols
    for c in range(channels):
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                if dy == 0 and dx == 0:
                    continue
                along_y, along_x = h_row * np.float32(dy), h_col * np.float32(dx)
                inverse = _ONE / np.sqrt(along_y * along_y + along_x * along_x)
                _census_plane(fixed[c], dy, dx, inverse, epsilon * epsilon, signatures[0])
                _census_plane(moving[c], dy, dx, inverse, epsilon * epsilon, signatures[1])
                for y in range(h):
                    above = y * cols
                    target = c * 6 * plane + y * w
                    _add_products_row(
                        w,
                        pointer(signatures, above),
                        pointer(signatures, above + cols),
                        pointer(signatures, above + 2 * cols),
                        pointer(signatures, size + above),
                        pointer(signatures, size + above + cols),
                        pointer(signatures, size + above + 2 * cols),
                        pointer(out, target),
                        pointer(out, target + plane),
                        pointer(out, target + 2 * plane),
                        pointer(out, target + 3 * plane),
                        pointer(out, target + 4 * plane),
                        pointer(out, target + 5 * plane),
                        x1,
                        y1,
                        share,
                    )


def motion_tensor(
    fixed: NDArray[np.float32],
    moving: NDArray[np.float32],
    h_row: float,
    h_col: float,
    data_term: DataTerm,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Motion tensor of one level for all channels.

    Parameters
    ----------
    fixed, moving : numpy.ndarray
        ``(C, rows + 2, cols + 2)`` float32 planes with one replicated pixel around.
    h_row, h_col : float
        Full-resolution pixels per level pixel.
    data_term : {"gc", "gray", "cs"}
        Gradient constancy, brightness constancy, or census.
    out : numpy.ndarray, optional
        ``(C, 6, rows, cols)`` float32, written and returned.

    Returns
    -------
    numpy.ndarray
        ``(C, 6, rows, cols)`` float32 in the order ``J11, J22, J33, J12, J13, J23``.

    Examples
    --------
    >>> import numpy as np
    >>> ramp = np.tile(np.arange(6, dtype=np.float32), (1, 5, 1))
    >>> float(motion_tensor(ramp, ramp, 1.0, 1.0, "gray")[0, 0, 1, 1])
    1.0
    """
    channels, rows, cols = fixed.shape
    if out is None:
        out = np.empty((channels, 6, rows - 2, cols - 2), np.float32)
    steps = np.float32(h_row), np.float32(h_col)
    if data_term == "gc":
        _gradient_tensor(fixed, moving, *steps, out)
    elif data_term == "gray":
        _brightness_tensor(fixed, moving, *steps, out)
    else:
        signatures = scratch("census", (2, rows, cols))
        _census_tensor(fixed, moving, *steps, np.float32(_CENSUS_EPSILON), out, signatures)
    return out
