"""Arguments of the flow that callers write: names, schedules, weights; checked, made canonical."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, OptionsError, nearest_name
from scopeflow.flow.parameters import DataTerm

_DATA_TERMS: dict[str, DataTerm] = {
    "gc": "gc",
    "gradient": "gc",
    "gray": "gray",
    "brightness": "gray",
    "cs": "cs",
    "census": "cs",
}


def data_term_name(name: Any) -> DataTerm:
    """Canonical name of a constancy assumption.

    Parameters
    ----------
    name : str or enum
        ``"gc"``/``"gradient"``, ``"gray"``/``"brightness"``, ``"cs"``/``"census"`` in any case, or
        an enum with such a value.

    Returns
    -------
    {"gc", "gray", "cs"}
        Name in `FlowParameters`.

    Raises
    ------
    OptionsError
        When the name is not known.

    Examples
    --------
    >>> data_term_name("Census")
    'cs'
    """
    text = str(getattr(name, "value", name)).strip().lower()
    if text not in _DATA_TERMS:
        known = ", ".join(sorted(_DATA_TERMS))
        raise OptionsError(
            f"Unknown constancy assumption '{name}'; use one of {known}."
            + nearest_name(text, _DATA_TERMS)
        )
    return _DATA_TERMS[text]


def check_gnc_schedule(schedule: Sequence[float] | None) -> tuple[float, ...] | None:
    """Check the stage weights of graduated non-convexity (Blake and Zisserman 1987).

    Parameters
    ----------
    schedule : sequence of float or None
        From 0 (quadratic) to 1 (robust), not decreasing, at least two.

    Returns
    -------
    tuple of float or None
        The same values.

    Raises
    ------
    OptionsError
        Saying which rule is broken.

    Examples
    --------
    >>> check_gnc_schedule([0, 0.5, 1])
    (0.0, 0.5, 1.0)
    """
    if schedule is None:
        return None
    values = np.asarray(schedule, float)
    if values.ndim != 1:
        raise OptionsError("gnc_schedule must be a 1D sequence of stage weights")
    if values.size < 2:
        raise OptionsError("gnc_schedule must contain at least two stages")
    if not np.all((values >= 0) & (values <= 1)):
        raise OptionsError("gnc_schedule entries must lie in [0, 1]")
    if np.any(np.diff(values) < 0):
        raise OptionsError("gnc_schedule must be monotone nondecreasing")
    if not np.isclose(values[0], 0.0):
        raise OptionsError("gnc_schedule must start at 0.0")
    if not np.isclose(values[-1], 1.0):
        raise OptionsError("gnc_schedule must end at 1.0")
    return tuple(float(v) for v in values)


def check_finite(values: NDArray[Any], what: str) -> None:
    """Refuse images with NaN or infinite values.

    Raises
    ------
    InputError
        Says how many values of `what` are not finite.
    """
    # One sum is several times faster than testing every value, and NaN and infinity survive it.
    with np.errstate(invalid="ignore", over="ignore"):
        total = float(values.sum(dtype=np.float64))
    if math.isfinite(total):
        return
    bad = int(values.size - np.count_nonzero(np.isfinite(values)))
    if bad:
        raise InputError(
            f"{what} holds {bad} values that are NaN or infinite; motion needs finite values. "
            "Replace or mask them first."
        )


def channel_weights(
    weight: Any, shape: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Resolve the weight of each channel, and of each pixel where a map is given.

    Parameters
    ----------
    weight : array_like or None
        None: equal weights. One number per channel: missing ones are ``1 / C``, surplus ones are
        dropped, then all are divided by their sum. ``(H, W)``: the same map for every channel.
        ``(H, W, C)``: used as it is.
    shape : tuple of int
        ``(H, W, C)`` of the frames.

    Returns
    -------
    weights : numpy.ndarray
        ``(C,)`` float32.
    maps : numpy.ndarray or None
        ``(C, H, W)`` float32 factors.

    Raises
    ------
    InputError
        When the shape does not fit, or values are negative or not finite.

    Examples
    --------
    >>> channel_weights([3.0, 1.0], (16, 16, 2))[0].tolist()
    [0.75, 0.25]
    """
    height, width, channels = shape
    if weight is None:
        return np.full(channels, 1.0 / channels, np.float32), None
    values = np.asarray(weight, float)
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        raise InputError("Channel weights must be finite and not negative.")
    if values.ndim == 0:
        values = values[None]
    if values.ndim == 1:
        full = np.full(channels, 1.0 / channels)
        count = min(channels, values.size)
        full[:count] = values[:count]
        if full.sum() == 0:
            raise InputError(f"Channel weights {values.tolist()} sum to zero; give one above zero.")
        return (full / full.sum()).astype(np.float32), None
    if values.ndim == 2:
        values = np.broadcast_to(values[..., None], (*values.shape, channels))
    if values.shape != (height, width, channels):
        raise InputError(
            f"A weight of shape {np.shape(weight)} was given for frames of shape {shape}; use one "
            "number per channel, a map (H, W), or a map (H, W, C)."
        )
    maps = np.ascontiguousarray(np.moveaxis(values, -1, 0), np.float32)
    return np.ones(channels, np.float32), maps
