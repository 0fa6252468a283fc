"""Rules of single values: each returns the normal form, or says in one sentence what is needed.

A rule raises `ValueError` with a sentence that does not depend on where the value was given. Frozen
parameters apply rules with `check_fields`, option models as pydantic annotations; both word the
refusal with `explained`, so every entrance says the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from scopeflow.errors import OptionsError, nearest_name

Rule = Callable[[Any], Any]


def is_integer(value: object) -> bool:
    """Tell whether a value is a whole number; booleans are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def plain(value: Any) -> Any:
    """Turn a numpy scalar or an array without axes into the Python value; leave all else."""
    without_axes = isinstance(value, np.generic) or (
        isinstance(value, np.ndarray) and value.ndim == 0
    )
    return value.item() if without_axes else value


def is_sequence(value: Any) -> bool:
    """Tell whether a value holds others in order: a list, a tuple, a range, an array with axes."""
    return isinstance(value, (list, tuple, range)) or getattr(value, "ndim", 0) > 0


class _Annotation:
    """Lets a rule stand in ``Annotated``: pydantic applies it before its own check of the type."""

    def __call__(self, value: Any) -> Any:
        raise NotImplementedError

    def bounds(self) -> dict[str, Any]:
        """Return the limits in the words of JSON schema."""
        return {}

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.__call__, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return {**handler(schema), **self.bounds()}


@dataclass(frozen=True)
class Whole(_Annotation):
    """A whole number between two limits, both allowed.

    Examples
    --------
    >>> Whole(1)(np.int16(5))
    5
    >>> Whole(1)(2.0)
    Traceback (most recent call last):
    ValueError: must be a positive integer, 1 or more
    """

    least: int
    most: int | None = None

    def __call__(self, value: Any) -> int:
        """Return the number as ``int``; booleans, text and floats are refused."""
        value = plain(value)
        if isinstance(value, bool):
            # Pydantic reports ValueError; a TypeError would pass through it.
            raise ValueError(f"{self._needed()}; a boolean is no whole number")  # noqa: TRY004
        if not isinstance(value, int) or value < self.least:
            raise ValueError(self._needed())
        if self.most is not None and value > self.most:
            raise ValueError(self._needed())
        return int(value)

    def _needed(self) -> str:
        if self.most is not None:
            return f"must be an integer from {self.least} to {self.most}"
        if self.least == 1:
            return "must be a positive integer, 1 or more"
        return f"must be an integer, {self.least} or more"

    def bounds(self) -> dict[str, Any]:
        """Return the limits in the words of JSON schema."""
        return {"minimum": self.least} | ({} if self.most is None else {"maximum": self.most})


@dataclass(frozen=True)
class Number(_Annotation):
    """A finite number: above a limit, or from one on, and up to another.

    Examples
    --------
    >>> Number(above=0, most=1)(np.float32(0.5))
    0.5
    >>> Number(above=0, most=1)(0)
    Traceback (most recent call last):
    ValueError: must be greater than 0 and at most 1
    """

    above: float | None = None
    least: float | None = None
    most: float | None = None

    def __call__(self, value: Any) -> float:
        """Return the number as ``float``; booleans and text are refused."""
        number = finite_number(value)
        if (
            (self.above is not None and number <= self.above)
            or (self.least is not None and number < self.least)
            or (self.most is not None and number > self.most)
        ):
            raise ValueError(f"must be {self._needed()}")
        return number

    def _needed(self) -> str:
        limits = {"greater than": self.above, "at least": self.least, "at most": self.most}
        return " and ".join(f"{word} {at:g}" for word, at in limits.items() if at is not None)

    def bounds(self) -> dict[str, Any]:
        """Return the limits in the words of JSON schema."""
        words = {"exclusiveMinimum": self.above, "minimum": self.least, "maximum": self.most}
        return {word: limit for word, limit in words.items() if limit is not None}


def finite_number(value: Any, subject: str = "") -> float:
    """Return a finite ``float``; booleans and text are refused, with `subject` in the sentence."""
    needs = f"{subject} must be".lstrip()
    value = plain(value)
    if isinstance(value, (bool, str, bytes)):
        raise ValueError(f"{needs} a number")  # noqa: TRY004
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{needs} a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{needs} finite")
    return number


def number_array(value: Any, kinds: str = "iuf") -> np.ndarray:
    """Return numbers as float64 array; text, objects and ragged lists are a `ValueError`.

    `kinds` are the allowed kinds of numpy types; with ``"b"`` among them, true counts as 1.
    """
    array = np.asarray(value)
    if array.size and array.dtype.kind not in kinds:
        raise ValueError("must hold numbers")
    return np.array(array, dtype=np.float64)


def boolean(value: Any) -> bool:
    """Return a ``bool``; numbers and text are refused."""
    value = plain(value)
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004
    return value


def one_of(names: Collection[str]) -> Rule:
    """Return the rule of a name that has to be among `names`."""

    def rule(value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            hint = nearest_name(value, names) if isinstance(value, str) else ""
            raise ValueError(f"must be one of {', '.join(names)}" + (f".{hint}" if hint else ""))
        return value

    return rule


def optional(rule: Rule) -> Rule:
    """Return the rule that lets None pass."""
    return lambda value: None if value is None else rule(value)


def shortened(value: object, limit: int = 80) -> str:
    """Return what was given, for messages: at most `limit` characters, arrays by their shape."""
    value = value.value if isinstance(value, Enum) else plain(value)
    if isinstance(value, np.ndarray):
        return f"array of shape {value.shape}, {value.dtype}"
    try:
        text = repr(value)
    except Exception:  # numbers of too many digits, lists nested too deep, objects of users
        text = f"<{type(value).__name__}>"
    return excerpt(text, limit)


def excerpt(text: str, limit: int = 300) -> str:
    """Return a text for messages: one line of at most `limit` characters."""
    # Split only what can be shown: a text may have any length.
    text = " ".join(text[: 4 * limit].split()) + ("…" if len(text) > 4 * limit else "")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def explained(name: str, value: object, sentence: str) -> str:
    """Return the refusal of one value: name, what was given, the sentence of the rule.

    Examples
    --------
    >>> explained("params.min_frames", 0, "must be a positive integer, 1 or more")
    'params.min_frames=0: min_frames must be a positive integer, 1 or more'
    """
    if sentence.startswith("must "):
        sentence = f"{name.rsplit('.', 1)[-1]} {sentence}"
    # A table of many values would hide the sentence.
    given = "" if isinstance(value, Mapping) else f"={shortened(value)}"
    return f"{name}{given}: {sentence}"


def check_fields(rules: Mapping[str, Rule], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the normal form of each value.

    Raises OptionsError: names every value that its rule refuses.
    """
    normal, refused = {}, []
    for name, value in values.items():
        try:
            normal[name] = rules[name](value)
        except ValueError as error:
            refused.append(explained(name, value, str(error)))
    if refused:
        raise OptionsError("; ".join(refused))
    return normal


def check_dataclass(instance: Any, rules: Mapping[str, Rule]) -> None:
    """Bring the fields of a frozen dataclass that have a rule to their normal form.

    Raises OptionsError: as `check_fields`.
    """
    given = {name: getattr(instance, name) for name in rules}
    for name, value in check_fields(rules, given).items():
        object.__setattr__(instance, name, value)
