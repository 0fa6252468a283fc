"""Four numbers that summarise the displacement of one frame."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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


def _mean_slope(values: NDArray[np.float64]) -> float:
    """Mean of ``numpy.gradient`` along the last axis: the inner differences telescope."""
    n = values.shape[-1]
    if n == 2:
        return float((values[..., 1] - values[..., 0]).mean())
    ends = 1.5 * (values[..., -1] - values[..., 0]) + 0.5 * (values[..., 1] - values[..., -2])
    return float(ends.mean() / n)


def flow_statistics(flow: NDArray[Any]) -> FlowStatistics:
    """Mean and largest displacement, mean divergence and mean translation.

    Parameters
    ----------
    flow : numpy.ndarray
        ``(H, W, 2)`` full-resolution displacement in pixels, at least 2 × 2.

    Returns
    -------
    FlowStatistics
        ``(mean_disp, max_disp, mean_div, mean_translation)``.

    Raises
    ------
    InputError
        When the shape is not ``(H, W, 2)``.

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
    u = np.ascontiguousarray(flow[..., 0], np.float64)
    v = np.ascontiguousarray(flow[..., 1], np.float64)
    length = np.sqrt(u * u + v * v)
    return FlowStatistics(
        float(length.mean()),
        float(length.max()),
        _mean_slope(u) + _mean_slope(np.ascontiguousarray(v.T)),
        float(np.hypot(u.mean(), v.mean())),
    )
