"""Motion tensors and successive over-relaxation of a pyramid level in torch, frames batched.

The sweeps visit pixels in the order of `kernels.solver`: a pixel sees new values above and to its
left, old ones below and to its right. Pixels of one anti-diagonal do not see each other, so they
are updated at once; and sweep ``t`` may work on diagonal ``d - 2 t`` while sweep 0 works on ``d``,
so that all sweeps between two updates of the robust weights run together. The arithmetic is that
of one pixel after the other; only sums over neighbours are rounded differently.
"""

from __future__ import annotations

from typing import Any

import torch

from scopeflow.kernels.methods.torch_planes import Planes, edges

_OMEGA = 1.95
_EPSILON = 1e-5
_TENSOR_EPSILON = 1e-6


def _dx(padded: Planes, step: float) -> Planes:
    return (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / (2 * step)


def _dy(padded: Planes, step: float) -> Planes:
    return (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / (2 * step)


def _products(fx: Planes, fy: Planes, ft: Planes) -> list[Planes]:
    return [fx * fx, fy * fy, ft * ft, fx * fy, fx * ft, fy * ft]


def motion_tensor(
    fixed: Planes, moving: Planes, h_row: float, h_col: float, term: str
) -> list[Planes]:
    """J11, J22, J33, J12, J13, J23 of planes ``(n, c, h, w)``; see `kernels.tensor`."""
    p1, p2 = edges(fixed), edges(moving)
    mean, change = (p1 + p2) / 2, p2 - p1
    if term == "gray":
        return _products(_dx(mean, h_col), _dy(mean, h_row), change[..., 1:-1, 1:-1])
    if term == "cs":
        return _census(p1, p2, h_row, h_col)
    fx = edges(_dx(mean, h_col))
    ft = edges(change[..., 1:-1, 1:-1])
    fxy, fxt, fyt = _dy(fx, h_row), _dx(ft, h_col), _dy(ft, h_row)
    middle = 2 * mean[..., 1:-1, 1:-1]
    fxx = (mean[..., 1:-1, 2:] - middle + mean[..., 1:-1, :-2]) / h_col**2
    fyy = (mean[..., 2:, 1:-1] - middle + mean[..., :-2, 1:-1]) / h_row**2
    rx = 1 / (fxx * fxx + fxy * fxy + _TENSOR_EPSILON)
    ry = 1 / (fxy * fxy + fyy * fyy + _TENSOR_EPSILON)
    first, second = _products(fxx, fxy, fxt), _products(fxy, fyy, fyt)
    return [rx * a + ry * b for a, b in zip(first, second, strict=True)]


def _census(p1: Planes, p2: Planes, h_row: float, h_col: float) -> list[Planes]:
    """Soft census of the eight neighbours."""
    h, w = p1.shape[-2] - 2, p1.shape[-1] - 2
    total: list[Planes] | None = None
    for oy, ox in [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]:
        distance = ((h_row * oy) ** 2 + (h_col * ox) ** 2) ** 0.5
        soft = []
        for p in (p1, p2):
            near = p[..., 1 + oy : 1 + oy + h, 1 + ox : 1 + ox + w]
            r = (near - p[..., 1:-1, 1:-1]) / distance
            soft.append(0.5 * (1 + r / torch.sqrt(r * r + (0.1 / 255) ** 2)))
        mean = edges((soft[0] + soft[1]) / 2)
        parts = _products(_dx(mean, h_col), _dy(mean, h_row), soft[1] - soft[0])
        total = parts if total is None else [a + b for a, b in zip(total, parts, strict=True)]
    assert total is not None
    return [part * 2 / 8 for part in total]


class _Skewed:
    """Planes stored by anti-diagonals: pixel ``(y, x)`` stands at ``[y + x + 1, y + 1]``."""

    def __init__(self, h: int, w: int, device: torch.device) -> None:
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        self.shape = (h + w + 1, h + 2)
        self._index = ((y + x + 1) * (h + 2) + y + 1).reshape(-1).to(device)
        self._size = (h, w)
        self.diagonals = h + w - 1
        self._h = h

    def put(self, planes: Planes, rest: float = 0.0) -> torch.Tensor:
        """Bring ``(n, h, w)`` to diagonals; `rest` stands outside of the image."""
        out = planes.new_full((planes.shape[0], self.shape[0] * self.shape[1]), rest)
        out[:, self._index] = planes.reshape(planes.shape[0], -1)
        return out.reshape(-1, *self.shape)

    def get(self, skewed: torch.Tensor) -> Planes:
        """Bring diagonals back to ``(n, h, w)``."""
        flat = skewed.reshape(skewed.shape[0], -1)[:, self._index]
        return flat.reshape(-1, *self._size)

    def sweep(
        self, du: torch.Tensor, dv: torch.Tensor, c: dict[str, torch.Tensor], sweeps: int
    ) -> None:
        """Run sweeps over increments in place."""
        h, last = self._h, self.diagonals
        here, above, below = slice(1, h + 1), slice(0, h), slice(2, h + 2)
        for step in range(last + 2 * (sweeps - 1)):
            # Diagonals step, step - 2, ... of the sweeps that are under way.
            newest = min(step, last - 1 - (last - 1 - step) % 2)
            oldest = max(step - 2 * (sweeps - 1), step % 2)
            at = slice(oldest + 1, newest + 2, 2)
            before, after = slice(oldest, newest + 1, 2), slice(oldest + 2, newest + 3, 2)
            left, right, up, down, ghosts = (
                c[name][:, at, here] for name in ("left", "right", "up", "down", "ghosts")
            )

            def pull(
                f: torch.Tensor,
                own: torch.Tensor,
                parts: tuple[torch.Tensor, ...] = (left, right, up, down, ghosts),
                before: slice = before,
                after: slice = after,
            ) -> torch.Tensor:
                near = parts[0] * f[:, before, here] + parts[1] * f[:, after, here]
                near = near + parts[2] * f[:, before, above] + parts[3] * f[:, after, below]
                return near + parts[4] * own  # ghost cells repeat the old value

            u, v, cross = du[:, at, here], dv[:, at, here], c["a12"][:, at, here]
            force = c["pull_u"][:, at, here] - cross * v + pull(du, u)
            new_u = (1 - _OMEGA) * u + _OMEGA * force * c["inverse_u"][:, at, here]
            force = c["pull_v"][:, at, here] - cross * new_u + pull(dv, v)
            new_v = (1 - _OMEGA) * v + _OMEGA * force * c["inverse_v"][:, at, here]
            du[:, at, here], dv[:, at, here] = new_u, new_v


def _robust(squared: Planes, exponent: Any, share: float) -> Planes:
    return (1 - share) + share * exponent * (squared + _EPSILON) ** (exponent - 1)


def _gradient_energy(planes: list[Planes], h_row: float, h_col: float) -> Planes:
    total = torch.zeros_like(planes[0])
    for plane in planes:
        for axis, step in ((-2, h_row), (-1, h_col)):
            total = total + torch.gradient(plane, spacing=step, dim=axis)[0] ** 2
    return total


def _links(
    flow: Planes, smooth: torch.Tensor | None, ax: float, ay: float
) -> tuple[list[Planes], Planes, list[Planes]]:
    """Weights to the four neighbours (0 beyond the image), their sum with ghosts, and the pull.

    ``flow`` is ``(n, 2, h, w)``; ``smooth`` the smoothness weight with a border of 1.
    """
    n, _, h, w = flow.shape
    if smooth is None:
        smooth = flow.new_ones((n, h + 2, w + 2))
    own = smooth[:, 1:-1, 1:-1]
    near = [
        0.5 * (own + smooth[:, 1:-1, :-2]) * ax,
        0.5 * (own + smooth[:, 1:-1, 2:]) * ax,
        0.5 * (own + smooth[:, :-2, 1:-1]) * ay,
        0.5 * (own + smooth[:, 2:, 1:-1]) * ay,
    ]
    total = near[0] + near[1] + near[2] + near[3]
    wide = edges(flow)
    moved = (
        wide[..., 1:-1, :-2], wide[..., 1:-1, 2:], wide[..., :-2, 1:-1], wide[..., 2:, 1:-1]
    )  # fmt: skip
    pull = torch.zeros_like(flow)
    for weight, other in zip(near, moved, strict=True):
        pull = pull + weight[:, None] * (other - flow)
    near = [weight.clone() for weight in near]
    near[0][:, :, 0] = 0
    near[1][:, :, -1] = 0
    near[2][:, 0] = 0
    near[3][:, -1] = 0
    return near, total, [pull[:, 0], pull[:, 1]]


def solve_level(
    tensor: list[Planes],
    weights: Planes,
    flow: Planes,
    *,
    alpha: tuple[float, float],
    h_row: float,
    h_col: float,
    iterations: int,
    update_lag: int,
    a_data: torch.Tensor,
    a_smooth: float,
) -> Planes:
    """Flow increment ``(n, 2, h, w)`` of one level; see `kernels.solver.solve_level`.

    ``tensor`` are six planes ``(n, c, h, w)``, ``weights`` broadcast to them, ``flow`` is
    ``(n, 2, h, w)`` in full-resolution pixels.
    """
    n, _, h, w = flow.shape
    skewed = _Skewed(h, w, flow.device)
    j11, j22, j33, j12, j13, j23 = tensor
    ax, ay = alpha[0] / h_col**2, alpha[1] / h_row**2
    exponent = a_data[:, None, None]
    du, dv = (skewed.put(flow.new_zeros((n, h, w))) for _ in range(2))
    border = flow.new_zeros((n, 2, h, w))  # the increment before the last sweep
    smooth: torch.Tensor | None = None
    done = 0
    while done < iterations:
        robust = done >= update_lag - 1
        until = min(done + update_lag if robust else update_lag - 1, iterations)
        share = weights.expand_as(j11)
        if robust:
            u, v = skewed.get(du)[:, None], skewed.get(dv)[:, None]
            q = j11 * u * u + j22 * v * v + j33 + 2 * (j12 * u * v + j13 * u + j23 * v)
            share = share * _robust(q.clamp(min=0), exponent, 1.0)
            if a_smooth != 1:
                total = edges(flow) + edges(border)
                total[..., 1:-1, 1:-1] = flow + torch.cat([u, v], dim=1)
                energy = _gradient_energy([total[:, 0], total[:, 1]], h_row, h_col)
                smooth = _robust(energy, a_smooth, 1.0)
        near, links, pull = _links(flow, smooth, ax, ay)
        names = ("left", "right", "up", "down")
        c = {name: skewed.put(part) for name, part in zip(names, near, strict=True)}
        c["ghosts"] = skewed.put(links - (near[0] + near[1] + near[2] + near[3]))
        c["a12"] = skewed.put((share * j12).sum(1))
        for name, j, force, part in (("u", j11, j13, pull[0]), ("v", j22, j23, pull[1])):
            total = links + (share * j).sum(1)
            inverse = torch.where(total == 0, torch.zeros_like(total), 1 / total)
            c["inverse_" + name] = skewed.put(inverse)
            c["pull_" + name] = skewed.put(part - (share * force).sum(1))
        sweeps = until - done
        if a_smooth != 1:
            # The ghost cells that smoothness sees are as old as the start of the last sweep.
            if sweeps > 1:
                skewed.sweep(du, dv, c, sweeps - 1)
            border = torch.stack([skewed.get(du), skewed.get(dv)], dim=1)
            sweeps = 1
        if sweeps:
            skewed.sweep(du, dv, c, sweeps)
        done = until
    return torch.stack([skewed.get(du), skewed.get(dv)], dim=1)
