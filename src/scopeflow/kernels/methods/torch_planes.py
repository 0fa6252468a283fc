"""Operations on stacks of planes ``(..., h, w)`` in torch: resize, filter, warp, median.

They have the weights and borders of `kernels.resize`, `filters`, `warp` and `median`; only the
order in which products are summed differs.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch.nn.functional import pad

from scopeflow.kernels.filters import gaussian_weights
from scopeflow.kernels.resize import AxisTable

Planes: TypeAlias = torch.Tensor
"""A stack of planes, shape ``(..., h, w)``."""


def matrix_of(table: AxisTable, n_in: int, like: dict[str, Any]) -> torch.Tensor:
    """Weights of a table as a dense matrix ``(n_out, n_in)``."""
    dense = np.zeros((len(table.index), n_in))
    rows = np.arange(len(table.index))[:, None]
    np.add.at(dense, (rows, table.index), table.weight.astype(np.float64))
    return torch.as_tensor(dense, **like)


def gaussian_matrix(sigma: float, n: int, like: dict[str, Any]) -> torch.Tensor:
    """Gaussian filter with reflected ends as a dense matrix ``(n, n)``."""
    weights = gaussian_weights(sigma)
    reach = weights.size // 2
    index = np.mod(np.arange(n)[:, None] + np.arange(-reach, reach + 1)[None], 2 * n)
    index = np.where(index >= n, 2 * n - 1 - index, index)
    table = AxisTable(index, np.broadcast_to(weights.astype(np.float32), index.shape))
    return matrix_of(table, n, like)


def separable(planes: Planes, rows: torch.Tensor, columns: torch.Tensor) -> Planes:
    """Apply a matrix along rows and one along columns of each plane."""
    return rows @ (planes @ columns.T)


def edges(planes: Planes, width: int = 1, mode: str = "replicate") -> Planes:
    """Planes with a border on all sides; ``(n, c, h, w)``."""
    return pad(planes, (width, width, width, width), mode=mode)


def median_5x5(planes: Planes) -> Planes:
    """Median of 5 x 5 pixels, mirrored about the end pixels; ``(n, c, h, w)``."""
    h, w = planes.shape[-2:]
    wide = edges(planes, 2, "reflect")
    shifted = [wide[..., y : y + h, x : x + w] for y in range(5) for x in range(5)]
    return torch.stack(shifted).median(dim=0).values


def _cubic(t: torch.Tensor) -> list[torch.Tensor]:
    """Weights of cubic convolution, a = -0.75, of the four samples around a fraction."""
    a = -0.75

    def far(d: torch.Tensor) -> torch.Tensor:
        return a * (((d - 5) * d + 8) * d - 4)

    def near(d: torch.Tensor) -> torch.Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    return [far(1 + t), near(t), near(1 - t), far(2 - t)]


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
    x = torch.arange(w, device=moving.device, dtype=u.dtype) + u
    y = torch.arange(h, device=moving.device, dtype=v.dtype)[:, None] + v
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
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
                line = line + weight_x[:, None] * at(row + j, column + i)
            out = out + weight_y[:, None] * line
    return torch.where(inside[:, None], out, fill)
