"""Frozen internal specs: what the numerics need, made from the option models.

They are small, hashable and picklable, travel inside dask tasks, and enter the fingerprint that
decides whether a finished block may be reused. Everything about *where* work runs stays out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DataTerm = Literal["gc", "gray", "cs"]


@dataclass(frozen=True)
class FlowParameters:
    """Parameters of the variational optical flow of one frame against the reference.

    Attributes
    ----------
    alpha : tuple of float
        Smoothness weights ``(alpha_x, alpha_y)``, larger is smoother.
    levels : int
        Upper limit of pyramid steps per axis.
    min_level : int
        Finest level that is solved; 0 is full resolution.
    eta : float
        Scale factor between neighbouring levels, ``0 < eta <= 1``.
    update_lag : int
        Iterations between updates of the nonlinear weights.
    iterations : int
        Successive over-relaxation sweeps per level.
    a_smooth : float
        Exponent of the smoothness penalty; 1 is quadratic.
    a_data : float or tuple of float
        Exponent of the data penalty, one for all channels or one for each.
    data_term : {"gc", "gray", "cs"}
        Gradient constancy, brightness constancy, or census.
    gnc_schedule : tuple of float, optional
        Stage weights of graduated non-convexity, from 0 to 1.
    warping_steps : int, optional
        Warps per level in graduated non-convexity; 10 when None.
    """

    alpha: tuple[float, float] = (1.5, 1.5)
    levels: int = 100
    min_level: int = 0
    eta: float = 0.8
    update_lag: int = 5
    iterations: int = 50
    a_smooth: float = 1.0
    a_data: float | tuple[float, ...] = 0.45
    data_term: DataTerm = "gc"
    gnc_schedule: tuple[float, ...] | None = None
    warping_steps: int | None = None
