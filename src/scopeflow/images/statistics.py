"""Four numbers that summarise the displacement of one frame."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.gateway import float64, inner, int64, kernel, nothing, readable, writable
from scopeflow.compiled.intrinsics import disjoint, pointer
from scopeflow.compiled.scratch import scratch
from scopeflow.errors import InputError


class FlowStatistics(NamedTuple):
    """Summary of one displacement field; float64, pixels, divergence without unit.

    Attributes
    ----------
    mean_disp, max_disp : float
        Mean and largest length of the displacement.
    mean_div : float
        Mean divergence ``du/dx + dv/dy``.
    mean_translation : float
        Length of the mean displacement.
    """

    mean_disp: float
    max_disp: float
    mean_div: float
    mean_translation: float


@inner(finite=True)
def _add_rows(n, first_u, second_u, first_v, second_v, lengths, longest, us, vs):
    """Add two rows of displacements to the sums of their columns, which are touched only once."""
    disjoint()
    for i in range(n):
        u, v = np.float64(first_u[i]), np.float64(first_v[i])
        down_u, down_v = np.float64(second_u[i]), np.float64(second_v[i])
        length = math.sqrt(u * u + v * v)
        down = math.sqrt(down_u * down_u + down_v * down_v)
        lengths[i] += length + down
        longest[i] = max(longest[i], max(length, down))
        us[i] += u + down_u
        vs[i] += v + down_v


@inner
def _mean_slope(sums, per_sum):
    """Mean of ``numpy.gradient`` from sums across it: the inner differences telescope."""
    n = sums.size
    if n == 2:
        return (sums[1] - sums[0]) / per_sum
    ends = 1.5 * (sums[n - 1] - sums[0]) + 0.5 * (sums[1] - sums[n - 2])
    return ends / (n * per_sum)


@kernel(
    nothing,
    readable(3),  # flow: planes (2, h, w + 2 left)
    int64,  # left
    writable(2, float64),  # columns (4, w): scratch
    writable(1, float64),  # rows (h,): scratch
    writable(1, float64),  # out (4,): the numbers of `FlowStatistics`
    finite=True,
)
def _measure(flow, left, columns, rows, out):
    """Add up columns (length, u, v; largest length) and the rows of v that the slope needs.

    Sums of columns are independent of each other, so the loop is vectorised; a sum into one number
    would not be.
    """
    _, h, stride = flow.shape
    w = stride - 2 * left
    columns[:] = 0.0
    rows[:] = 0.0
    for y in range(0, h - 1, 2):
        u, v = y * stride + left, (h + y) * stride + left
        _add_rows(
            w,
            pointer(flow, u),
            pointer(flow, u + stride),
            pointer(flow, v),
            pointer(flow, v + stride),
            pointer(columns, 0),
            pointer(columns, w),
            pointer(columns, 2 * w),
            pointer(columns, 3 * w),
        )
    for y in range(h - h % 2, h):
        for x in range(w):
            last_u, last_v = np.float64(flow[0, y, left + x]), np.float64(flow[1, y, left + x])
            length = math.sqrt(last_u * last_u + last_v * last_v)
            columns[0, x] += length
            columns[1, x] = max(columns[1, x], length)
            columns[2, x] += last_u
            columns[3, x] += last_v
    for y in range(h):
        # Only the two rows at either end are needed for the slope.
        if 1 < y < h - 2:
            continue
        for x in range(w):
            rows[y] += flow[1, y, left + x]
    length = longest = sum_u = sum_v = 0.0
    for x in range(w):
        length += columns[0, x]
        longest = max(longest, columns[1, x])
        sum_u += columns[2, x]
        sum_v += columns[3, x]
    out[0] = length / (h * w)
    out[1] = longest
    out[2] = _mean_slope(columns[2], h) + _mean_slope(rows, w)
    out[3] = math.sqrt((sum_u / (h * w)) ** 2 + (sum_v / (h * w)) ** 2)


def flow_statistics(flow: NDArray[Any]) -> FlowStatistics:
    """Mean and largest displacement, mean divergence and mean translation.

    `flow`: ``(H, W, 2)`` full-resolution displacement in pixels, at least 2 × 2.
    Returns: ``(mean_disp, max_disp, mean_div, mean_translation)``.
    Raises InputError: when the shape is not ``(H, W, 2)``.

    Examples
    --------
    >>> import numpy as np
    >>> tuple(flow_statistics(np.full((8, 8, 2), [3.0, 4.0])))
    (5.0, 5.0, 0.0, 5.0)
    """
    flow = np.asarray(flow)
    if flow.ndim != 3 or flow.shape[2] != 2 or min(flow.shape[:2]) < 2:
        raise InputError(
            f"Displacements of shape {flow.shape} were given; the shape (H, W, 2) is needed."
        )
    planes = np.ascontiguousarray(np.moveaxis(np.asarray(flow, np.float32), -1, 0))
    return planar_flow_statistics(planes)


def planar_flow_statistics(flow: NDArray[np.float32], left: int = 0) -> FlowStatistics:
    """`flow_statistics` of planes.

    `flow`: ``(2, H, W + 2 left)`` float32 displacement in pixels, C-contiguous.
    `left`: columns on each side that are not looked at.
    Returns: ``(mean_disp, max_disp, mean_div, mean_translation)``.
    """
    return FlowStatistics(*measure_planar_flow(flow, left).tolist())


def measure_planar_flow(flow: NDArray[np.float32], left: int = 0) -> NDArray[np.float64]:
    """Measure planes by kernels alone.

    Returns: ``(4,)`` float64, the numbers of `FlowStatistics`, in memory that the next call uses
        again.
    """
    height, width = flow.shape[1], flow.shape[2] - 2 * left
    columns, rows, numbers = _working_memory(height, width)
    _measure(flow, left, columns, rows, numbers)
    return numbers


def _working_memory(height: int, width: int) -> tuple[NDArray[np.float64], ...]:
    numbers = scratch("flow statistics", (2 * (4 * width + height + 4),)).view(np.float64)
    return numbers[: 4 * width].reshape(4, width), numbers[4 * width : -4], numbers[-4:]
