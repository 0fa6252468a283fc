"""What users write, checked the same way everywhere: whole numbers, and errors of option models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic import ValidationError

from scopeflow.errors import OptionsError, nearest_name


def options_error(error: ValidationError, known: Iterable[str], what: str) -> OptionsError:
    """Turn a pydantic error into one message that names each bad option.

    Parameters
    ----------
    error : pydantic.ValidationError
        What validation raised.
    known : iterable of str
        The option names that exist.
    what : str
        Name of the model, for the message.

    Returns
    -------
    OptionsError
        To be raised by the caller.

    Examples
    --------
    >>> from pydantic import BaseModel, ValidationError
    >>> class Model(BaseModel, extra="forbid"):
    ...     alpha: float = 1.0
    >>> try:
    ...     Model(alhpa=2)
    ... except ValidationError as error:
    ...     print(options_error(error, ["alpha"], "Model"))
    Model: unknown option 'alhpa'. Did you mean 'alpha'?
    """
    names = list(known)
    lines = []
    for item in error.errors(include_url=False):
        name = str(item["loc"][0]) if item["loc"] else ""
        if item["type"] == "extra_forbidden":
            hint = nearest_name(name, names) or f" Options are: {', '.join(sorted(names))}."
            lines.append(f"unknown option '{name}'.{hint}")
            continue
        message = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        hint = ""
        if item["type"] == "enum" and isinstance(item["input"], str):
            expected = str(item.get("ctx", {}).get("expected", ""))
            choices = expected.replace("'", "").replace(" or ", ", ").split(", ")
            hint = nearest_name(item["input"], choices) or nearest_name(
                item["input"].upper(), choices
            )
        given = "" if item["type"] == "missing" else f" (given {_shortened(item['input'])})"
        lines.append(f"{name}: {message}{given}.{hint}" if name else message)
    return OptionsError(f"{what}: " + "; ".join(dict.fromkeys(lines)))


def _shortened(value: object, limit: int = 80) -> str:
    if isinstance(value, np.ndarray):
        return f"array of shape {value.shape}, {value.dtype}"
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def is_integer(value: object) -> bool:
    """Tell whether a value is a whole number; booleans are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def plain_integer(value: Any) -> Any:
    """Turn a numpy integer into an ``int``; refuse booleans; leave the rest to the type."""
    if isinstance(value, (bool, np.bool_)):
        # Pydantic reports ValueError; a TypeError would pass through it.
        raise ValueError("needs a whole number, not a boolean")  # noqa: TRY004
    return int(value) if isinstance(value, np.integer) else value
