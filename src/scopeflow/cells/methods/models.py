"""Models of gene expression after transfection, and their fit to one trace; numpy in, numbers out.

Rates are per hour, times in hours. ``m`` stands for mRNA that decays with ``delta`` and is
translated with ``ktl`` into protein that matures with ``km`` and decays with ``beta``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.optimize import least_squares

from scopeflow.errors import OptionsError, nearest_name
from scopeflow.strict.values import shortened

__all__ = ["MODELS", "Fit", "Model", "fit_trace", "get_model"]

Values = NDArray[np.float64]


def _divided(t: Values, *rates: float) -> Values:
    """Return the divided difference of ``r -> exp(-r·t)`` over rates that may be equal.

    For rates that lie apart these are the well-known quotients. The exponential of a bidiagonal
    matrix has them in its corner, also where rates are equal (Opitz's formula).
    """
    n = len(rates)
    apart = np.abs(np.subtract.outer(rates, rates)) + np.eye(n)
    longest = float(np.max(t, initial=0.0))
    if float(apart.min()) * max(longest, 1e-12) > 1e-2:
        total = np.zeros_like(t)
        for i, rate in enumerate(rates):
            others = [rate - other for j, other in enumerate(rates) if j != i]
            total += np.exp(-rate * t) / np.prod(others)
        return total
    matrix = -(np.diag(np.asarray(rates, np.float64)) + np.diag(np.ones(n - 1), 1))
    return np.array([expm(matrix * one)[0, -1] for one in t])


def _maturation(t: Values, p: Mapping[str, float]) -> Values:
    beta, km, delta = p["beta"], p["km"], p["delta"]
    dt = np.maximum(t - p["t0"], 0.0)
    # km·(second divided difference) is the well-known sum of three exponentials.
    shape = km * _divided(dt, delta, beta, beta + km)
    return p["scale"] * (np.where(t > p["t0"], p["ktl"] * shape, 0.0) + p["offset"])


def _trivial(t: Values, p: Mapping[str, float]) -> Values:
    dt = np.maximum(t - p["t0"], 0.0)
    rise = -p["ktl"] * _divided(dt, p["delta"], p["beta"])
    return p["offset"] + np.where(t > p["t0"], rise, 0.0)


def _maturation_blocked(t: Values, p: Mapping[str, float]) -> Values:
    dt = np.maximum(t - p["t0"], 0.0)
    mature = np.exp(-p["beta"] * dt)
    signal = p["G0"] * mature + p["Gu0"] * (mature - np.exp(-(p["beta"] + p["km"]) * dt))
    return p["offset"] + np.where(t > p["t0"], signal, 0.0)


@dataclass(frozen=True)
class Model:
    """A model with the start values and bounds of what is fitted.

    `function` is of hours and parameters; `free` holds start, lower and upper bound of each.
    """

    function: Callable[[Values, Mapping[str, float]], Values]
    free: Mapping[str, tuple[float, float, float]]
    fixed: Mapping[str, float]


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        "maturation": Model(
            _maturation,
            {
                "t0": (0.0, -1.0, 1.0),
                "ktl": (1e3, 1.0, 5e8),
                "delta": (1e-2, 1e-5, 11.0),
                "offset": (0.0, -1e6, 1e6),
            },
            {"km": 1.28, "beta": 5.22e-3, "scale": 1.0},
        ),
        "trivial": Model(
            _trivial,
            {
                "t0": (2.0, 0.0, 30.0),
                "ktl": (20.0, 1.0, 1e6),
                "delta": (0.07, 1e-5, 10.1),
                "beta": (0.0436275356, 1e-5, 10.0),
                "offset": (0.0, -1e6, 1e6),
            },
            {},
        ),
        "maturation_blocked": Model(
            _maturation_blocked,
            {
                "t0": (0.0, 0.0, 1.0),
                "G0": (100.0, 0.0, 1e6),
                "Gu0": (100.0, 0.0, 1e6),
                "km": (1.28, 1e-5, 30.0),
                "beta": (5.22e-3, 1e-5, 10.0),
                "offset": (0.0, -1e6, 1e6),
            },
            {},
        ),
    }
)
"""The models by name."""


def get_model(name: str) -> Model:
    """Return a model.

    Raises OptionsError: for an unknown name.

    Examples
    --------
    >>> sorted(get_model("trivial").free)
    ['beta', 'delta', 'ktl', 'offset', 't0']
    """
    if name not in MODELS:
        known = ", ".join(MODELS)
        raise OptionsError(
            f"model {shortened(name)} is not known.{nearest_name(name, MODELS)} Known: {known}"
        )
    return MODELS[name]


@dataclass(frozen=True)
class Fit:
    """Result of :func:`fit_trace`.

    `r_squared`: share of the variance that is explained, 0 to 1.
    `parameters`: fitted values; start values without success.
    `message`: why there is no success, else empty.
    """

    success: bool
    r_squared: float
    parameters: dict[str, float]
    message: str = ""


def fit_trace(time_h: Values, values: Values, model: str = "maturation") -> Fit:
    """Fit a model to one trace by bounded least squares.

    Parameters
    ----------
    time_h : ndarray, shape (N,)
        Hours.
    values : ndarray, shape (N,)
        Intensities; pairs with NaN are left out.
    model : str
        One of :data:`MODELS`.

    Returns
    -------
    Fit
        Without success where there are fewer points than parameters.

    Examples
    --------
    >>> t = np.linspace(0, 30, 60)
    >>> fit = fit_trace(t, 5.0 + 0 * t)
    >>> fit.r_squared
    0.0
    """
    chosen = get_model(model)
    names = list(chosen.free)
    start = {name: chosen.free[name][0] for name in names}
    known = np.isfinite(time_h) & np.isfinite(values)
    t, y = np.asarray(time_h, np.float64)[known], np.asarray(values, np.float64)[known]
    if len(y) < len(names):
        few = f"{len(y)} points for {len(names)} parameters"
        return Fit(False, 0.0, start, few)

    def residual(x: Values) -> Values:
        return y - chosen.function(t, {**chosen.fixed, **dict(zip(names, x.tolist(), strict=True))})

    bounds = ([chosen.free[name][1] for name in names], [chosen.free[name][2] for name in names])
    try:
        found = least_squares(residual, list(start.values()), bounds=bounds, x_scale="jac")
    except (ValueError, np.linalg.LinAlgError, FloatingPointError) as error:
        return Fit(False, 0.0, start, f"{type(error).__name__}: {error}")
    spread = float(np.sum((y - y.mean()) ** 2))
    left = float(np.sum(found.fun**2))
    r_squared = 0.0 if spread == 0 else float(np.clip(1.0 - left / spread, 0.0, 1.0))
    parameters = dict(zip(names, found.x.tolist(), strict=True))
    message = "" if found.success else str(found.message)
    return Fit(bool(found.success), r_squared, parameters, message)
