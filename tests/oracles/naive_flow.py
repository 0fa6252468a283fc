"""Variational flow by plain numpy and Python loops in float64, written from the method's formulas.

Everything works on padded planes with ``numpy.gradient`` and one pixel after the other, in
column-major order, so that it shares neither layout nor order of operations with the kernels.
"""

from __future__ import annotations

import math

import numpy as np


# ---------------------------------------------------------------------------------------- resize
def cubic(x, a=-0.75):
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return 0.0


def reflect(j, n):
    """Half-sample symmetric: ... 1 0 | 0 1 ... n-1 | n-1 ..."""
    while j < 0 or j >= n:
        j = -1 - j if j < 0 else 2 * n - 1 - j
    return j


def resize_matrix(n_in, n_out, sigma):
    """Weights ``(n_out, n_in)`` of the Gaussian convolved with the cubic, tap by tap."""
    scale = n_out / n_in
    radius = math.ceil(2 * sigma) if sigma > 0 else 0
    shifts = range(-radius, radius + 1)
    gauss = [math.exp(-0.5 * (k / sigma) ** 2) if sigma > 0 else 1.0 for k in shifts]
    gauss = [g / sum(gauss) for g in gauss]
    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        c = (i + 0.5) / scale - 0.5
        first = math.floor(c - 2) - radius
        for j in range(first, first + 2 * radius + 4):
            weight = sum(g * cubic(c - j - k) for g, k in zip(gauss, shifts, strict=True))
            matrix[i, reflect(j, n_in)] += weight
    return matrix / matrix.sum(axis=1, keepdims=True)


def resize(image, shape):
    image = np.asarray(image, float)
    if image.shape == tuple(shape):
        return image.copy()
    scale = min(shape[0] / image.shape[0], shape[1] / image.shape[1])
    sigma = 0.6 / scale if scale < 1 else 0.0
    rows = resize_matrix(image.shape[0], shape[0], sigma)
    cols = resize_matrix(image.shape[1], shape[1], sigma)
    return rows @ image @ cols.T


def upsample(image, shape):
    """Cubic interpolation with four taps and replicated borders."""

    def axis(line, n_out):
        n_in = len(line)
        out = np.zeros(n_out)
        for i in range(n_out):
            c = (i + 0.5) * n_in / n_out - 0.5
            base = math.floor(c)
            for k in range(-1, 3):
                out[i] += cubic(c - base - k) * line[min(max(base + k, 0), n_in - 1)]
        return out

    if image.shape == tuple(shape):
        return image.copy()
    wide = np.array([axis(row, shape[1]) for row in image])
    return np.array([axis(col, shape[0]) for col in wide.T]).T


# ---------------------------------------------------------------------------------------- tensor
def _ring(a):
    return np.pad(a[1:-1, 1:-1], 1, mode="symmetric")


def tensor(f1, f2, h_row, h_col, term):
    """Six planes ``(rows + 2, cols + 2)`` with a ring of zeros: J11, J22, J33, J12, J13, J23."""
    p1, p2 = np.pad(f1, 1, mode="symmetric"), np.pad(f2, 1, mode="symmetric")

    def dx(a):
        return np.gradient(a, h_col, axis=1)

    def dy(a):
        return np.gradient(a, h_row, axis=0)

    if term == "gc":
        fx = _ring((dx(p1) + dx(p2)) / 2)
        ft = _ring(p2 - p1)
        fxy, fxt, fyt = dy(fx), dx(ft), dy(ft)
        fxx, fyy = np.zeros_like(p1), np.zeros_like(p1)
        for p in (p1, p2):
            fxx[1:-1, 1:-1] += (p[1:-1, 2:] - 2 * p[1:-1, 1:-1] + p[1:-1, :-2]) / h_col**2 / 2
            fyy[1:-1, 1:-1] += (p[2:, 1:-1] - 2 * p[1:-1, 1:-1] + p[:-2, 1:-1]) / h_row**2 / 2
        rx = 1 / (fxx**2 + fxy**2 + 1e-6)
        ry = 1 / (fxy**2 + fyy**2 + 1e-6)
        planes = [
            rx * fxx**2 + ry * fxy**2,
            rx * fxy**2 + ry * fyy**2,
            rx * fxt**2 + ry * fyt**2,
            rx * fxx * fxy + ry * fxy * fyy,
            rx * fxx * fxt + ry * fxy * fyt,
            rx * fxy * fxt + ry * fyy * fyt,
        ]
    elif term == "gray":
        fx, fy, ft = (dx(p1) + dx(p2)) / 2, (dy(p1) + dy(p2)) / 2, p2 - p1
        planes = [fx**2, fy**2, ft**2, fx * fy, fx * ft, fy * ft]
    else:
        eps = 0.1 / 255
        planes = [np.zeros_like(p1) for _ in range(6)]
        rows, cols = f1.shape
        for oy in (-1, 0, 1):
            for ox in (-1, 0, 1):
                if oy == ox == 0:
                    continue
                distance = math.hypot(h_row * oy, h_col * ox)
                soft = []
                for p in (p1, p2):
                    r = (
                        p[1 + oy : 1 + oy + rows, 1 + ox : 1 + ox + cols] - p[1:-1, 1:-1]
                    ) / distance
                    soft.append(np.pad(0.5 * (1 + r / np.sqrt(r**2 + eps**2)), 1, mode="edge"))
                sx = (dx(soft[0]) + dx(soft[1])) / 2
                sy = (dy(soft[0]) + dy(soft[1])) / 2
                st = soft[1] - soft[0]
                for plane, product in zip(
                    planes, (sx * sx, sy * sy, st * st, sx * sy, sx * st, sy * st), strict=True
                ):
                    plane += product * 2 / 8
    for plane in planes:
        plane[0] = plane[-1] = 0
        plane[:, 0] = plane[:, -1] = 0
    return np.array(planes)


# ---------------------------------------------------------------------------------------- solver
def solve(J, W, u, v, alpha_x, alpha_y, hx, hy, iterations, lag, a_data, a_smooth, share=1.0):
    """Increment of one level; ``J (C, 6, R, S)``, ``W (C, R, S)``, ``u, v (R, S)``, all padded."""
    C, _, R, S = J.shape
    ax, ay = alpha_x / hx**2, alpha_y / hy**2
    du, dv = np.zeros((R, S)), np.zeros((R, S))
    psi, psi_s = np.ones((C, R, S)), np.ones((R, S))
    for it in range(iterations):
        if (it + 1) % lag == 0:
            for k in range(C):
                a = a_data[k]
                q = (
                    J[k, 0] * du**2
                    + J[k, 1] * dv**2
                    + 2 * J[k, 3] * du * dv
                    + 2 * J[k, 4] * du
                    + 2 * J[k, 5] * dv
                    + J[k, 2]
                )
                robust = a * (np.maximum(q, 0) + 1e-5) ** (a - 1)
                b = share if share < 1 and 0 < a < 1 else 1.0
                psi[k] = (1 - b) + b * robust
            if a_smooth != 1:
                s = 0
                for f in (u + du, v + dv):
                    s = s + np.gradient(f, hx, axis=1) ** 2 + np.gradient(f, hy, axis=0) ** 2
                robust = a_smooth * (s + 1e-5) ** (a_smooth - 1)
                b = share if share < 1 and 0 < a_smooth < 1 else 1.0
                psi_s = (1 - b) + b * robust
        for f in (du, dv):
            f[0, :], f[-1, :] = f[1, :], f[-2, :]
            f[:, 0], f[:, -1] = f[:, 1], f[:, -2]
        _sweep(J, W, psi, psi_s, u, v, du, dv, ax, ay, a_smooth == 1)
    return du, dv


def _sweep(J, W, psi, psi_s, u, v, du, dv, ax, ay, quadratic):
    C, _, R, S = J.shape
    for x in range(1, S - 1):
        for y in range(1, R - 1):
            total = num_u = num_v = 0.0
            for qy, qx, alpha in ((y, x - 1, ax), (y, x + 1, ax), (y + 1, x, ay), (y - 1, x, ay)):
                w = alpha if quadratic else 0.5 * (psi_s[y, x] + psi_s[qy, qx]) * alpha
                total += w
                num_u += w * (u[qy, qx] + du[qy, qx] - u[y, x])
                num_v += w * (v[qy, qx] + dv[qy, qx] - v[y, x])
            den_u = den_v = total
            for k in range(C):
                p = W[k, y, x] * psi[k, y, x]
                num_u -= p * (J[k, 4, y, x] + J[k, 3, y, x] * dv[y, x])
                den_u += p * J[k, 0, y, x]
                den_v += p * J[k, 1, y, x]
            du[y, x] = -0.95 * du[y, x] + 1.95 * (num_u / den_u if den_u != 0 else 0.0)
            for k in range(C):
                p = W[k, y, x] * psi[k, y, x]
                num_v -= p * (J[k, 5, y, x] + J[k, 3, y, x] * du[y, x])
            dv[y, x] = -0.95 * dv[y, x] + 1.95 * (num_v / den_v if den_v != 0 else 0.0)


# ------------------------------------------------------------------------------------------ warp
def warp(moving, u, v, fill, rounded=False, interpolation="cubic"):
    """Backward warp of one plane."""
    H, W = moving.shape
    out = np.array(fill, float)
    for y in range(H):
        for x in range(W):
            px, py = float(np.float32(x + u[y, x])), float(np.float32(y + v[y, x]))
            if not (0 <= px < W and 0 <= py < H):
                continue
            px, py = min(px, W - 1.0), min(py, H - 1.0)
            if rounded:
                px, py = round(px * 32) / 32, round(py * 32) / 32
            if interpolation == "nearest":
                out[y, x] = moving[round(py), round(px)]
                continue
            bx, by = math.floor(px), math.floor(py)
            kernel = cubic if interpolation == "cubic" else lambda d: max(0.0, 1 - abs(d))
            value = 0.0
            for j in range(by - 1, by + 3):
                for i in range(bx - 1, bx + 3):
                    weight = kernel(px - i) * kernel(py - j)
                    value += weight * moving[min(max(j, 0), H - 1), min(max(i, 0), W - 1)]
            out[y, x] = value
    return out


# ----------------------------------------------------------------------------------------- whole
def depth(length, levels, eta):
    x, d = length, 0
    for _ in range(levels):
        d += 1
        x *= eta
        if round(x) < 10:
            break
    return d


def displacement(
    fixed,
    moving,
    alpha,
    update_lag=5,
    iterations=50,
    min_level=0,
    levels=50,
    eta=0.8,
    a_smooth=1.0,
    a_data=(0.45,),
    term="gc",
    uv=None,
    weight=None,
    gnc=None,
    steps=10,
    rounded=False,
):
    """Flow ``(H, W, 2)`` between ``(H, W, C)`` images; ``weight`` is ``(H, W, C)`` or None."""
    from scipy.ndimage import median_filter

    H, W, C = fixed.shape
    a_data = list(a_data) * C if len(a_data) == 1 else list(a_data)
    weight = np.full((H, W, C), 1 / C) if weight is None else weight
    dy, dx = depth(H, levels, eta), depth(W, levels, eta)
    cap = 4 * min(dy, dx)
    dy, dx = min(dy, cap), min(dx, cap)
    top = max(dx, dy)
    if top <= min_level:
        min_level = top - 1
    min_level = max(min_level, 0)
    start = np.zeros((H, W, 2)) if uv is None else np.asarray(uv, float)
    for share in (None,) if gnc is None else gnc:
        u, v = start[..., 0], start[..., 1]
        for i in range(top, min_level - 1, -1):
            size = (round(H * eta ** min(i, dy)), round(W * eta ** min(i, dx)))
            h_row, h_col = H / size[0], W / size[1]
            factor = 1.0 if i == min_level else eta ** (-0.5 * i)
            f1 = [resize(fixed[..., c], size) for c in range(C)]
            f2 = [resize(moving[..., c], size) for c in range(C)]
            weights = np.array([np.pad(resize(weight[..., c], size), 1) for c in range(C)])
            u = np.pad(resize(u, size), 1, mode="edge")
            v = np.pad(resize(v, size), 1, mode="edge")
            for _ in range(1 if share is None else steps):
                moved = f2
                if share is not None or i != top:
                    inner = (u[1:-1, 1:-1] / h_col, v[1:-1, 1:-1] / h_row)
                    moved = [warp(m, *inner, f, rounded) for f, m in zip(f1, f2, strict=True)]
                J = np.array(
                    [tensor(f, m, h_row, h_col, term) for f, m in zip(f1, moved, strict=True)]
                )
                du, dv = solve(
                    J,
                    weights,
                    u,
                    v,
                    alpha[0] * factor,
                    alpha[1] * factor,
                    h_col,
                    h_row,
                    iterations,
                    update_lag,
                    a_data,
                    a_smooth,
                    1.0 if share is None else share,
                )
                if share is None and min(size) > 5:
                    for f in (du, dv):
                        f[1:-1, 1:-1] = median_filter(f[1:-1, 1:-1], 5, mode="mirror")
                u, v = u + du, v + dv
                if share is not None and min(size) > 5:
                    u, v = (
                        np.pad(median_filter(f[1:-1, 1:-1], 5, mode="mirror"), 1, mode="edge")
                        for f in (u, v)
                    )
            u, v = u[1:-1, 1:-1], v[1:-1, 1:-1]
        start = np.stack([upsample(u, (H, W)), upsample(v, (H, W))], axis=-1)
    return start
