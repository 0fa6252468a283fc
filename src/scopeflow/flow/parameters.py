"""Frozen parameters of the flow, and the rule of each, which every entrance goes through.

They are small, hashable and picklable, travel inside dask tasks, and enter the fingerprint that
decides whether a finished block may be reused. Everything about *where* work runs stays out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import OptionsError, nearest_name
from scopeflow.strict.values import (
    Number,
    Rule,
    Whole,
    check_dataclass,
    explained,
    finite_number,
    is_sequence,
    number_array,
    optional,
)

DataTerm = Literal["gc", "gray", "cs"]

_DATA_TERMS: dict[str, DataTerm] = {
    "gc": "gc",
    "gradient": "gc",
    "gray": "gray",
    "brightness": "gray",
    "cs": "cs",
    "census": "cs",
}


def smoothness_weight(value: Any) -> float:
    """Check one smoothness weight: a positive number."""
    number = finite_number(value, "Alpha")
    if number <= 0:
        raise ValueError("Alpha must be positive")
    return number


def smoothness_weights(value: Any) -> tuple[float, float]:
    """Turn a scalar, one or two numbers into ``(alpha_x, alpha_y)``, both positive."""
    if not is_sequence(value):
        number = smoothness_weight(value)
        return (number, number)
    numbers = [finite_number(entry, "Alpha") for entry in value]
    if len(numbers) not in (1, 2):
        raise ValueError("Alpha must be scalar or 2-element tuple")
    if min(numbers) <= 0:
        raise ValueError("All alpha values must be positive")
    return (numbers[0], numbers[-1])


def data_exponents(value: Any) -> float | tuple[float, ...]:
    """Turn ``a_data`` into one exponent or one a channel, each in (0, 1].

    Beyond 1 the penalty grows faster than the square: outliers decide, and the lagged weights of
    the solver need not converge.
    """
    scalar = not is_sequence(value)
    numbers = tuple(finite_number(entry, "a_data") for entry in ([value] if scalar else value))
    if not numbers or min(numbers) <= 0 or max(numbers) > 1:
        raise ValueError("a_data must be greater than 0 and at most 1")
    return numbers[0] if scalar else numbers


def exponents_of_channels(
    a_data: float | tuple[float, ...], n_channels: int
) -> NDArray[np.float32]:
    """Return one exponent a channel, ``(C,)`` float32.

    Raises
    ------
    OptionsError
        For a number of exponents that is neither one nor that of the channels.
    """
    exponents = np.atleast_1d(np.asarray(a_data, np.float32))
    if exponents.size not in (1, n_channels):
        raise OptionsError(
            f"a_data has {exponents.size} exponents, the recording {n_channels} channel(s). "
            "Give one number for all channels or one for each"
        )
    return np.ascontiguousarray(np.broadcast_to(exponents, (n_channels,)))


def data_term_name(name: Any) -> DataTerm:
    """Canonical name of a constancy assumption.

    `name`: ``"gc"``/``"gradient"``, ``"gray"``/``"brightness"``, ``"cs"``/``"census"`` in any case,
        or an enum with such a value.

    Examples
    --------
    >>> data_term_name("Census")
    'cs'
    """
    text = str(getattr(name, "value", name)).strip().lower()
    if text not in _DATA_TERMS:
        known = ", ".join(sorted(_DATA_TERMS))
        raise ValueError(
            f"Unknown constancy assumption; use one of {known}.{nearest_name(text, _DATA_TERMS)}"
        )
    return _DATA_TERMS[text]


def gnc_stages(value: Any) -> tuple[float, ...] | None:
    """Check the stage weights of graduated non-convexity (Blake and Zisserman 1987).

    At least two, not decreasing, from 0 (quadratic) to 1 (robust).

    Examples
    --------
    >>> gnc_stages([0, 0.5, 1])
    (0.0, 0.5, 1.0)
    """
    if value is None:
        return None
    try:
        stages = number_array(value)
    except (TypeError, ValueError):
        raise ValueError("gnc_schedule must be a 1D sequence of stage weights") from None
    if stages.ndim != 1:
        raise ValueError("gnc_schedule must be a 1D sequence of stage weights")
    if stages.size < 2:
        raise ValueError("gnc_schedule must contain at least two stages")
    # Written so that NaN fails too.
    if not bool(np.all((stages >= 0) & (stages <= 1))):
        raise ValueError("gnc_schedule entries must lie in [0, 1]")
    if bool(np.any(np.diff(stages) < 0)):
        raise ValueError("gnc_schedule must be monotone nondecreasing")
    if not np.isclose(stages[0], 0.0):
        raise ValueError("gnc_schedule must start at 0.0")
    if not np.isclose(stages[-1], 1.0):
        raise ValueError("gnc_schedule must end at 1.0")
    return tuple(float(stage) for stage in stages)


FLOW_RULES: Mapping[str, Rule] = {
    "alpha": smoothness_weights,
    "levels": Whole(1),
    "min_level": Whole(0),
    "eta": Number(above=0, most=1),
    "update_lag": Whole(1),
    "iterations": Whole(1),
    # Measured with all data terms: beyond, the lagged weights may diverge, to NaN from 1.45 on.
    "a_smooth": Number(least=0, most=1.25),
    "a_data": data_exponents,
    "data_term": data_term_name,
    "gnc_schedule": gnc_stages,
    "warping_steps": optional(Whole(1)),
}
"""The rule of each field of `FlowParameters`; option models use the same ones."""

_LEAST_SMOOTH_GRAY = 0.01


def need_smoothness(data_term: str, a_smooth: float) -> None:
    """Refuse brightness constancy without smoothness.

    Brightness says nothing of motion along edges (the aperture problem): measured at 0 and 1e-6,
    displacements run to 1e12 px and more. The other data terms stay bounded at 0.
    """
    if data_term == "gray" and a_smooth < _LEAST_SMOOTH_GRAY:
        needed = f"must be at least {_LEAST_SMOOTH_GRAY} with the constancy assumption gray"
        raise OptionsError(explained("a_smooth", a_smooth, needed))


@dataclass(frozen=True)
class FlowParameters:
    """Parameters of the variational optical flow of one frame against the reference.

    Values are brought to their normal form; `OptionsError` names those that no solver can use.

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
        Exponent of the smoothness penalty, 0 to 1.25; 1 is quadratic, 0 stops smoothing with the
        first update.
    a_data : float or tuple of float
        Exponent of the data penalty in (0, 1], one for all channels or one for each.
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

    def __post_init__(self) -> None:
        check_dataclass(self, FLOW_RULES)
        need_smoothness(self.data_term, self.a_smooth)
