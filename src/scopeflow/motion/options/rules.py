"""Rules of the options that only `OFOptions` has; knows no option model and no data.

Those that decide numbers stand beside the frozen parameters, in `flow.parameters` and
`motion.parameters`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scopeflow.errors import OptionsError
from scopeflow.flow.arguments import weight_values
from scopeflow.io.addresses import path_or_address
from scopeflow.io.formats import OutputFormat
from scopeflow.motion.parameters import correlation_shape, filter_widths
from scopeflow.strict.values import (
    Rule,
    explained,
    is_integer,
    is_sequence,
    one_of,
    optional,
    plain,
)

TYPENAMES: dict[str, np.dtype[Any]] = {
    "single": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "uint8": np.dtype(np.uint8),
    "uint16": np.dtype(np.uint16),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
}
"""Names that ``output_typename`` accepts, and their dtypes."""

typename = optional(one_of(TYPENAMES))

_SEVERAL = (
    "a recording has one reference. For one that needs several, correct its parts one by one, or "
    "set update_reference=True and leave {name} out"
)
_UNAVAILABLE: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "n_references": (lambda value: value == 1, f"must be 1: {_SEVERAL}"),
    "min_frames_per_reference": (lambda value: value == 20, f"must be 20: {_SEVERAL}"),
    "output_format": (
        lambda value: value is not OutputFormat.BEGONIA,
        "{value} cannot be written: the layout of its TSeries folders is not published. Begonia "
        "opens TIFF stacks too; use one of "
        + ", ".join(name for name in OutputFormat if name is not OutputFormat.BEGONIA),
    ),
}
"""Options of other programs of which only some values are available here: which, and why."""


def check_available(name: str, value: Any) -> None:
    """Refuse a value of an option that has no effect here, or that no run can honour."""
    possible, sentence = _UNAVAILABLE[name]
    if not possible(value):
        sentence = sentence.format(name=name, value=value)
        raise OptionsError(explained(name, value, sentence))


def available_number(name: str) -> Rule:
    """Return the rule of an option that has one possible value, a whole number."""
    possible, sentence = _UNAVAILABLE[name]

    def rule(value: Any) -> int:
        value = plain(value)
        if not is_integer(value) or not possible(value):
            raise ValueError(sentence.format(name=name))
        return int(value)

    return rule


def channel_weights(value: Any) -> list[float] | np.ndarray | None:
    """Turn weights into a list of sum 1, or a float64 map ``(H, W)`` or ``(H, W, C)``."""
    weights = weight_values(value)
    if weights is None or weights.ndim > 1:
        return weights
    return [float(entry) for entry in weights / weights.sum()]


def sigma_rows(value: Any) -> list[list[float]]:
    """Turn sigma into rows ``[sx, sy, st]``, one a channel, which callers may edit."""
    return [list(row) for row in filter_widths(value)]


def correlation_size(value: Any) -> int | tuple[int, int]:
    """Check the image size of the rigid start, and keep one number where one was given."""
    shape = correlation_shape(value)
    return shape if is_sequence(value) else shape[0]


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
