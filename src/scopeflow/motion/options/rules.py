"""Checks and normal forms of single option values; knows no option model and no data."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scopeflow.errors import OptionsError, nearest_name
from scopeflow.io.addresses import path_or_address
from scopeflow.strict import is_integer

TYPENAMES: dict[str, np.dtype[Any]] = {
    "single": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "uint8": np.dtype(np.uint8),
    "uint16": np.dtype(np.uint16),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
}
"""Names that ``output_typename`` accepts, and their dtypes."""


def _finite_float(value: Any, name: str) -> float:
    if isinstance(value, (bool, np.bool_, str, bytes)) or value is None:
        raise ValueError(f"{name} must be a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite")
    return number


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple, range)) or getattr(value, "ndim", 0) > 0


def one_reference(value: Any) -> Any:
    """Refuse more references than one."""
    return _only(value, 1, "n_references")


def default_reference_length(value: Any) -> Any:
    """Refuse another length than 20, which would have no effect."""
    return _only(value, 20, "min_frames_per_reference")


def _only(value: Any, possible: int, name: str) -> int:
    if not is_integer(value) or value != possible:
        raise ValueError(
            f"must be {possible}: a recording has one reference. For one that needs several, "
            f"correct its parts one by one, or set update_reference=True and leave {name} out"
        )
    return possible


def smoothness_weights(value: Any) -> tuple[float, float]:
    """Turn a scalar, one or two numbers into ``(alpha_x, alpha_y)``, both positive."""
    if not _is_sequence(value):
        number = _finite_float(value, "Alpha")
        if number <= 0:
            raise ValueError("Alpha must be positive")
        return (number, number)
    numbers = [_finite_float(entry, "Alpha") for entry in value]
    if len(numbers) not in (1, 2):
        raise ValueError("Alpha must be scalar or 2-element tuple")
    if min(numbers) <= 0:
        raise ValueError("All alpha values must be positive")
    return (numbers[0], numbers[-1])


def channel_weights(value: Any) -> list[float] | np.ndarray:
    """Turn weights into a list of sum 1, or a float64 map ``(H, W)`` or ``(H, W, C)``."""
    if not _is_sequence(value):
        value = [value]
    try:
        weights = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("weight must be numbers: one a channel, or a map of pixels") from None
    if weights.ndim > 3:
        raise ValueError("weight must be 1-D (channels), 2-D (H, W) or 3-D (H, W, C)")
    if weights.size == 0 or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError("weight must hold finite numbers that are not negative")
    if weights.max() == 0:
        raise ValueError("weight must be positive somewhere, or no channel counts")
    if weights.ndim > 1:
        return weights
    return [float(entry) for entry in weights / weights.sum()]


def filter_widths(value: Any) -> list[list[float]]:
    """Turn sigma into rows ``[sx, sy, st]``, one a channel."""
    try:
        sigma = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("2D sigma must be (n_channels, 3)") from None
    if sigma.ndim < 2:
        if sigma.shape != (3,):
            raise ValueError("1D sigma must be [sx, sy, st]")
        sigma = sigma[np.newaxis]
    if sigma.ndim != 2 or sigma.shape[1] != 3 or sigma.shape[0] == 0:
        raise ValueError("2D sigma must be (n_channels, 3)")
    if not np.isfinite(sigma).all() or sigma.min() < 0:
        raise ValueError("sigma must hold finite numbers that are not negative")
    return [[float(entry) for entry in row] for row in sigma]


def data_exponents(value: Any) -> float | tuple[float, ...]:
    """Turn ``a_data`` into one exponent or one a channel, each in (0, 1]."""
    scalar = not _is_sequence(value)
    numbers = tuple(_finite_float(entry, "a_data") for entry in ([value] if scalar else value))
    if not numbers or min(numbers) <= 0 or max(numbers) > 1:
        raise ValueError("a_data must be greater than 0 and at most 1")
    return numbers[0] if scalar else numbers


def gnc_stages(value: Any) -> tuple[float, ...] | None:
    """Check the stage weights of graduated non-convexity.

    Parameters
    ----------
    value : sequence of float or None
        At least two weights, monotone, from 0 to 1.

    Returns
    -------
    tuple of float or None
        The schedule.

    Raises
    ------
    ValueError
        When it is no such schedule.

    Examples
    --------
    >>> gnc_stages([0, 0.5, 1])
    (0.0, 0.5, 1.0)
    """
    if value is None:
        return None
    try:
        stages = np.asarray(value, dtype=np.float64)
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


def reference_choice(value: Any) -> Any:
    """Turn ``reference_frames`` into a list of ints, a path, or an image array."""
    need = "reference_frames must be a list of frame indices, a path to an image, or an image array"
    if isinstance(value, (str, Path)):
        return value
    if isinstance(value, (bytes, bytearray)):
        raise ValueError(need)  # noqa: TRY004 - pydantic reports ValueError only
    if isinstance(value, (range, Sequence)) and all(is_integer(entry) for entry in value):
        if len(value) == 0:
            raise ValueError(f"{need}; an empty list names no frame")
        return [int(entry) for entry in value]
    if isinstance(value, Sequence):
        try:
            value = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(need) from None
        if value.ndim < 2:
            raise ValueError(need)
    dimensions = getattr(value, "ndim", None)
    if dimensions is None or not hasattr(value, "dtype") or dimensions == 0:
        raise ValueError(f"{need}; for one frame write [5]" if is_integer(value) else need)
    if dimensions == 1:
        if value.dtype.kind not in "iu" or value.size == 0:
            raise ValueError(need)
        return [int(entry) for entry in value]
    if dimensions > 3:
        raise ValueError(f"{need}, shape (H, W) or (H, W, C)")
    return value


def place(value: Any) -> Any:
    """Keep remote addresses as text, also those that went through `Path`; all else is a path."""
    return path_or_address(value) if isinstance(value, (str, os.PathLike)) else value


def channel_choice(value: Any) -> int | list[int] | None:
    """Check a channel index or a list of distinct ones, counted from 0."""
    if value is None:
        return None
    if is_integer(value):
        if value < 0:
            raise ValueError("channel_idx counts from 0 and is not negative")
        return int(value)
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise ValueError("channel_idx must be a whole number or a list of them")
    indices = list(value)
    if not indices or not all(is_integer(entry) and entry >= 0 for entry in indices):
        raise ValueError("channel_idx must be whole numbers counted from 0, at least one")
    if len(set(indices)) != len(indices):
        raise ValueError("channel_idx names a channel twice")
    return [int(entry) for entry in indices]


def typename(value: Any) -> str | None:
    """Check the name of an output type."""
    if value is None:
        return None
    if not isinstance(value, str) or value not in TYPENAMES:
        hint = nearest_name(value, TYPENAMES) if isinstance(value, str) else ""
        raise ValueError(
            f"output_typename must be one of {', '.join(TYPENAMES)}, or None to keep the input's"
            f"{hint}"
        )
    return value


def correlation_shape(value: Any) -> int | tuple[int, int]:
    """Check the image size of the rigid start: one number, or rows and columns."""
    if is_integer(value):
        sizes: tuple[int, ...] = (int(value),)
    elif isinstance(value, (list, tuple, np.ndarray)) and len(value) == 2:
        if not all(is_integer(entry) for entry in value):
            raise ValueError("cc_hw must be one whole number or two (rows, columns)")
        sizes = (int(value[0]), int(value[1]))
    else:
        raise ValueError("cc_hw must be one whole number or two (rows, columns)")
    if min(sizes) < 1:
        raise ValueError("cc_hw must be at least 1")
    return sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1])


def weight_at(weight: Any, channel: int, n_channels: int) -> float | np.ndarray:
    """Weight of one channel, a number or a map ``(H, W)``; see `OFOptions.get_weight_at`."""
    need_channels(n_channels)
    if isinstance(weight, list):
        if channel >= len(weight):
            return 1.0 / n_channels
        kept = weight[:n_channels]
        total = sum(kept) if len(weight) > n_channels else 1.0
        if total == 0:
            raise OptionsError(
                f"weight {weight} is 0 for all {n_channels} channel(s) of the recording. "
                "Give each channel that counts a positive weight"
            )
        return kept[channel] / total
    own = weight if weight.ndim == 2 and channel == 0 else None
    if weight.ndim == 3 and channel < weight.shape[2]:
        own = weight[:, :, channel]
    return np.full(weight.shape[:2], 1.0 / n_channels) if own is None else own.copy()


def need_channels(n_channels: int) -> None:
    """Refuse a recording without channels."""
    if n_channels < 1:
        raise OptionsError(f"n_channels is {n_channels}; a recording has at least one channel")
