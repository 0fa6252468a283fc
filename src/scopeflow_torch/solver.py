"""Motion tensors and successive over-relaxation of a pyramid level in torch, frames batched.

The sweeps visit pixels in the order of `scopeflow.flow.solver`: a pixel sees new values above and
to its left, old ones below and to its right. Pixels of one anti-diagonal do not see each other, so
they are updated at once; and sweep ``t`` may work on diagonal ``d - 2 t`` while sweep 0 works on
``d``, so that all sweeps between two updates of the robust weights run together. The arithmetic is
that of one pixel after the other; only sums over neighbours are rounded differently. Sums over
channels are written out: reductions add in an order that depends on the number of frames.
"""

from __future__ import annotations

import torch

from scopeflow_torch.planes import Planes, edges, power

_OMEGA = 1.95
_EPSILON = 1e-5
_PULL, _KEEP, _INVERSE = 0, 2, 4  # of u; those of v follow
_CROSS, _LEFT, _RIGHT, _UP, _DOWN, _FIELDS = 6, 7, 8, 9, 10, 11
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
    """J11, J22, J33, J12, J13, J23 of planes ``(n, c, h, w)``; see `scopeflow.flow.tensor`."""
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
        self._h = h
        self._diagonals = h + w - 1

    def put(self, planes: Planes) -> torch.Tensor:
        """Bring ``(n, k, h, w)`` to diagonals; zeros stand outside of the image."""
        out = planes.new_zeros((*planes.shape[:2], self.shape[0] * self.shape[1]))
        out[..., self._index] = planes.reshape(*planes.shape[:2], -1)
        return out.reshape(*planes.shape[:2], *self.shape)

    def get(self, skewed: torch.Tensor) -> Planes:
        """Bring diagonals back to ``(n, k, h, w)``."""
        flat = skewed.reshape(*skewed.shape[:2], -1)[..., self._index]
        return flat.reshape(*skewed.shape[:2], *self._size)

    def sweep(self, flow: torch.Tensor, fields: torch.Tensor, sweeps: int) -> None:
        """Run sweeps over increments ``(n, 2, ...)`` in place."""
        h, last = self._h, self._diagonals
        here, above, below = slice(1, h + 1), slice(0, h), slice(2, h + 2)
        for step in range(last + 2 * (sweeps - 1)):
            # Diagonals step, step - 2, ... of the sweeps that are under way.
            newest = min(step, last - 1 - (last - 1 - step) % 2)
            oldest = max(step - 2 * (sweeps - 1), step % 2)
            at = slice(oldest + 1, newest + 2, 2)
            before, after = slice(oldest, newest + 1, 2), slice(oldest + 2, newest + 3, 2)
            part = fields[:, :, at, here]
            force = part[:, _PULL : _PULL + 2] + part[:, _LEFT, None] * flow[:, :, before, here]
            force += part[:, _RIGHT, None] * flow[:, :, after, here]
            force += part[:, _UP, None] * flow[:, :, before, above]
            force += part[:, _DOWN, None] * flow[:, :, after, below]
            cross = part[:, _CROSS]
            u, v = flow[:, 0, at, here], flow[:, 1, at, here]
            for k, own, other in ((0, u, v), (1, v, u)):
                change = (force[:, k] - cross * other) * part[:, _INVERSE + k]
                own *= part[:, _KEEP + k]
                own += change


def _share(exponent: float, stage: float) -> float:
    """Return the robust part of a penalty between the stages of graduated non-convexity."""
    return stage if stage < 1 and 0 < exponent < 1 else 1.0


def _gradient_energy(planes: list[Planes], h_row: float, h_col: float) -> Planes:
    total = torch.zeros_like(planes[0])
    for plane in planes:
        for axis, step in ((-2, h_row), (-1, h_col)):
            total += torch.gradient(plane, spacing=step, dim=axis)[0] ** 2
    return total


def _summed(parts: Planes) -> Planes:
    """Sum over channels, in their order."""
    total = parts[:, 0]
    for channel in range(1, parts.shape[1]):
        total = total + parts[:, channel]
    return total


def _links(
    flow: Planes, smooth: torch.Tensor | None, ax: float, ay: float
) -> tuple[list[Planes], Planes, Planes, Planes]:
    """Weights to the four neighbours, 0 beyond the image; their sum with and without ghost cells.

    ``flow`` is ``(n, 2, h, w)``; ``smooth`` the smoothness weight with a border of 1. The last
    value is the pull ``(n, 2, h, w)`` of the flow towards its neighbours.
    """
    n, _, h, w = flow.shape
    if smooth is None:
        smooth = flow.new_ones((n, h + 2, w + 2))
    own = smooth[:, 1:-1, 1:-1]
    near = [
        0.5 * ax * (own + smooth[:, 1:-1, :-2]),
        0.5 * ax * (smooth[:, 1:-1, 2:] + own),
        0.5 * ay * (own + smooth[:, :-2, 1:-1]),
        0.5 * ay * (smooth[:, 2:, 1:-1] + own),
    ]
    total = (near[0] + near[1]) + (near[2] + near[3])
    wide = edges(flow)
    moved = (
        wide[..., 1:-1, :-2], wide[..., 1:-1, 2:], wide[..., :-2, 1:-1], wide[..., 2:, 1:-1]
    )  # fmt: skip
    pull = torch.zeros_like(flow)
    for weight, other in zip(near, moved, strict=True):
        pull += weight[:, None] * (other - flow)
    near[0][:, :, 0] = 0
    near[1][:, :, -1] = 0
    near[2][:, 0] = 0
    near[3][:, -1] = 0
    return near, total, (near[0] + near[1]) + (near[2] + near[3]), pull


def _fields(
    tensor: list[Planes], share: Planes, links: tuple[list[Planes], Planes, Planes, Planes]
) -> Planes:
    """Everything that the update of a pixel needs, ``(n, 11, h, w)``."""
    j11, j22, _, j12, j13, j23 = tensor
    near, total, inner, pull = links
    ghosts = total - inner  # ghost cells repeat the old value of the pixel
    fields = total.new_empty((total.shape[0], _FIELDS, *total.shape[1:]))
    for k, (own, force) in enumerate(((j11, j13), (j22, j23))):
        diagonal = total + _summed(share * own)
        inverse = torch.where(diagonal == 0, torch.zeros_like(diagonal), _OMEGA / diagonal)
        fields[:, _PULL + k] = pull[:, k] - _summed(share * force)
        fields[:, _INVERSE + k] = inverse
        fields[:, _KEEP + k] = (1 - _OMEGA) + inverse * ghosts
    fields[:, _CROSS] = _summed(share * j12)
    for k, weight in zip((_LEFT, _RIGHT, _UP, _DOWN), near, strict=True):
        fields[:, k] = weight
    return fields


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
    a_data: list[float],
    a_smooth: float,
    stage: float = 1.0,
) -> Planes:
    """Flow increment ``(n, 2, h, w)`` of one level; see `scopeflow.flow.solver.solve_level`.

    ``tensor`` are six planes ``(n, c, h, w)``, ``weights`` broadcast to them, ``flow`` is
    ``(n, 2, h, w)`` in full-resolution pixels, ``stage`` that of graduated non-convexity.
    """
    skewed = _Skewed(flow.shape[2], flow.shape[3], flow.device)
    j11, j22, j33, j12, j13, j23 = tensor
    ax, ay = alpha[0] / h_col**2, alpha[1] / h_row**2
    robust_part = flow.new_tensor([_share(a, stage) for a in a_data])[:, None, None]
    exponent = flow.new_tensor(a_data)[:, None, None]
    part = _share(a_smooth, stage)
    increment = skewed.put(torch.zeros_like(flow))
    border = torch.zeros_like(flow)  # the increment before the last sweep
    links = _links(flow, None, ax, ay)
    done = 0
    while done < iterations:
        robust = done >= update_lag - 1
        until = min(done + update_lag if robust else update_lag - 1, iterations)
        share = weights.expand_as(j11)
        if robust:
            moved = skewed.get(increment)
            u, v = moved[:, :1], moved[:, 1:]
            q = (j11 * u + 2 * (j12 * v + j13)) * u + ((j22 * v + 2 * j23) * v + j33)
            slope = power(q.clamp(min=0) + _EPSILON, exponent - 1)
            share = share * ((1 - robust_part) + robust_part * exponent * slope)
            if a_smooth != 1:
                total = edges(flow) + edges(border)
                total[..., 1:-1, 1:-1] = flow + moved
                energy = _gradient_energy([total[:, 0], total[:, 1]], h_row, h_col)
                slope = power(energy + _EPSILON, a_smooth - 1)
                links = _links(flow, (1 - part) + part * a_smooth * slope, ax, ay)
        fields = skewed.put(_fields(tensor, share, links))
        sweeps = until - done
        if a_smooth != 1:
            # The ghost cells that smoothness sees are as old as the start of the last sweep.
            if sweeps > 1:
                skewed.sweep(increment, fields, sweeps - 1)
            border = skewed.get(increment)
            sweeps = min(sweeps, 1)
        if sweeps:
            skewed.sweep(increment, fields, sweeps)
        done = until
    return skewed.get(increment)
