"""Operations on stacks of planes ``(..., h, w)`` in torch: resize, filter, warp, median, power.

They have the weights, borders and order of sums of the modules of that name in scopeflow. All are
sums of shifted or gathered planes and never products of matrices or calls of a vectorised ``pow``:
the bits of a frame then do not depend on the frames beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.nn.functional import pad

from scopeflow.backends import (
    EXP2_COEFFICIENTS,
    LOG2_COEFFICIENTS,
    AxisTable,
    gaussian_weights,
)

Planes: TypeAlias = torch.Tensor
"""A stack of planes, shape ``(..., h, w)``."""

Table: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Indices and weights ``(taps, n_out)`` of one axis."""

_A = -0.75  # parameter of the cubic convolution
_LIMIT = 120.0

# Pairs to order, as in `scopeflow.flow.median`.
_SORT_5 = ((0, 3), (1, 4), (0, 2), (1, 3), (0, 1), (2, 4), (1, 2), (3, 4), (2, 3))
_DROP_EXTREMES = (
    ((0, 7), (1, 6), (2, 5), (3, 4), (0, 1), (2, 3), (0, 2), (6, 7), (4, 5), (5, 7)),
    ((0, 6), (1, 5), (2, 4), (0, 1), (2, 3), (0, 2), (5, 6), (3, 4), (4, 6)),
    ((0, 5), (1, 4), (2, 3), (0, 1), (0, 2), (4, 5), (3, 5)),
    ((0, 4), (1, 3), (0, 1), (0, 2), (3, 4), (2, 4)),
    ((0, 3), (1, 2), (0, 1), (2, 3)),
)


def table_on(table: AxisTable, like: dict[str, Any]) -> Table:
    """Bring a table to a device."""
    index = torch.as_tensor(np.ascontiguousarray(table.index.T), device=like["device"])
    return index, torch.as_tensor(np.ascontiguousarray(table.weight.T), **like)


def _resampled_axis(planes: Planes, table: Table, axis: int) -> Planes:
    index, weight = table
    out: Planes | None = None
    for taps, share in zip(index, weight, strict=True):
        part = planes.index_select(axis, taps)
        part *= share[:, None] if axis == -2 else share
        out = part if out is None else out.add_(part)
    assert out is not None
    return out


def resampled(planes: Planes, tables: tuple[Table, Table] | None) -> Planes:
    """Resample rows and then columns; None keeps the planes as they are."""
    if tables is None:
        return planes
    return _resampled_axis(_resampled_axis(planes, tables[0], -2), tables[1], -1)


def gaussian(planes: Planes, sigma_y: float, sigma_x: float) -> Planes:
    """Gaussian filter with borders reflected at the pixel edges, see `filters.gaussian_filter`."""
    for axis, sigma in ((-2, sigma_y), (-1, sigma_x)):
        weights = gaussian_weights(sigma)
        reach = weights.size // 2
        if reach == 0:
            continue
        half = weights[reach:].astype(np.float32).tolist()
        n = planes.shape[axis]
        index = torch.arange(-reach, n + reach, device=planes.device).remainder(2 * n)
        wide = planes.index_select(axis, torch.where(index >= n, 2 * n - 1 - index, index))
        planes = half[0] * wide.narrow(axis, reach, n)
        for k in range(1, reach + 1):
            pair = wide.narrow(axis, reach - k, n) + wide.narrow(axis, reach + k, n)
            planes += half[k] * pair
    return planes


def edges(planes: Planes, width: int = 1, mode: str = "replicate") -> Planes:
    """Planes with a border on all sides; ``(n, c, h, w)``."""
    return pad(planes, (width, width, width, width), mode=mode)


def power(values: Planes, exponent: torch.Tensor | float) -> Planes:
    """``values ** exponent`` of positive numbers, the polynomials of `scopeflow.images.power`."""
    if values.dtype != torch.float32:
        return values**exponent
    l0, l1, l2, l3, l4, l5 = map(float, LOG2_COEFFICIENTS)
    e0, e1, e2, e3, e4 = map(float, EXP2_COEFFICIENTS)
    mantissa, whole = torch.frexp(values)
    # The mantissa is brought from [1/2, 1) to [sqrt(1/2), sqrt(2)).
    small = mantissa < 0.5**0.5
    t = torch.where(small, 2 * mantissa, mantissa) - 1
    whole = whole.to(values.dtype) - small.to(values.dtype)
    t2 = t * t
    log2 = whole + t * (((l0 + t * l1) + t2 * (l2 + t * l3)) + (t2 * t2) * (l4 + t * l5))
    y = (exponent * log2).clamp(-_LIMIT, _LIMIT)
    n = y.round()
    f = y - n
    f2 = f * f
    return torch.ldexp((e0 + f * e1) + f2 * ((e2 + f * e3) + f2 * e4), n.to(torch.int32))


def _ordered(values: list[Planes], pairs: Sequence[tuple[int, int]]) -> list[Planes]:
    """Bring the values of each pair into order, one pair after the other."""
    for low, high in pairs:
        smaller = torch.minimum(values[low], values[high])
        values[high] = torch.maximum(values[low], values[high])
        values[low] = smaller
    return values


def median_5x5(planes: Planes) -> Planes:
    """Median of 5 x 5 pixels, mirrored about the end pixels; ``(n, c, h, w)``.

    The networks of `scopeflow.flow.median`: columns are sorted, then rows, and of the 13 values
    that can still be the median the smallest and the largest are dropped until it is left.
    """
    h, w = planes.shape[-2:]
    wide = edges(planes, 2, "reflect")
    columns = _ordered([wide[..., y : y + h, :] for y in range(5)], _SORT_5)
    left: list[Planes] = []
    last: list[Planes] = []
    for rank, candidates in enumerate(((3, 4), (2, 3, 4), (1, 2, 3), (0, 1, 2), (0, 1))):
        line = _ordered([columns[rank][..., x : x + w] for x in range(5)], _SORT_5)
        (left if rank < 3 else last).extend(line[k] for k in candidates)
    for pairs in _DROP_EXTREMES:
        left = _ordered(left, pairs)[1:-1]
        left.append(last.pop(0))
    return _ordered(left, ((0, 1), (1, 2), (0, 1)))[1]


def _cubic(t: torch.Tensor) -> list[torch.Tensor]:
    """Weights of the four samples around a fraction."""
    far, back = t + 1, 1 - t
    a = ((_A * far - 5 * _A) * far + 8 * _A) * far - 4 * _A
    b = ((_A + 2) * t - (_A + 3)) * t * t + 1
    c = ((_A + 2) * back - (_A + 3)) * back * back + 1
    return [a, b, c, 1 - a - b - c]


def _positions(u: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    h, w = u.shape[-2:]
    x = torch.arange(w, device=u.device, dtype=u.dtype) + u
    y = torch.arange(h, device=v.device, dtype=v.dtype)[:, None] + v
    return x, y


def inside(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Where ``(y + v, x + u)`` is inside of planes ``(..., h, w)``; NaN is outside."""
    h, w = u.shape[-2:]
    x, y = _positions(u, v)
    return (x >= 0) & (x < w) & (y >= 0) & (y < h)


def warp_planes(
    moving: Planes,
    u: torch.Tensor,
    v: torch.Tensor,
    fill: torch.Tensor,
    interpolation: str = "cubic",
) -> Planes:
    """Planes ``(n, c, h, w)`` at ``(y + v, x + u)``; `fill` where that is outside.

    ``u`` and ``v`` have the shape ``(n, h, w)``, in pixels of the planes.
    """
    n, channels, h, w = moving.shape
    is_inside = inside(u, v)
    x, y = _positions(u, v)
    x = torch.nan_to_num(x).clamp(0, w - 1)
    y = torch.nan_to_num(y).clamp(0, h - 1)
    flat = moving.reshape(n, channels, h * w)

    def at(row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        index = row.clamp(0, h - 1) * w + column.clamp(0, w - 1)
        index = index.reshape(n, 1, h * w).expand(-1, channels, -1)
        return flat.gather(2, index).reshape(moving.shape)

    if interpolation == "nearest":
        out = at(y.round().long(), x.round().long())
    else:
        x0, y0 = x.floor(), y.floor()
        fx, fy, column, row = x - x0, y - y0, x0.long(), y0.long()
        cubic = interpolation == "cubic"
        wx = _cubic(fx) if cubic else [1 - fx, fx]
        wy = _cubic(fy) if cubic else [1 - fy, fy]
        first = -1 if cubic else 0
        out = torch.zeros_like(moving)
        for j, weight_y in enumerate(wy, start=first):
            line = torch.zeros_like(moving)
            for i, weight_x in enumerate(wx, start=first):
                line += weight_x[:, None] * at(row + j, column + i)
            out += weight_y[:, None] * line
    return torch.where(is_inside[:, None], out, fill)
