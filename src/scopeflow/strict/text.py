"""YAML, TOML and JSON that others wrote, read with limits; every failure is one short sentence.

No text can take more time or memory than its size explains: nesting, references to other parts of
a YAML text, numbers and names are limited before anything is built from them.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from scopeflow.strict.values import excerpt

DEPTH = 64
"""Lists and tables within each other, and parts of a dotted name."""
DIGITS = 300
"""Digits of a whole number; the largest float has 309."""
SIZE = 4 << 20
"""Bytes of a text that people write."""
_REPEATED = 10_000
_VALUES = 700_000
"""Of a YAML text, whose parser is slow; times of as many frames are among what is written."""


class TextError(ValueError):
    """Why a text cannot be read, in one sentence that does not say where the text stands."""


def file_text(path: str | os.PathLike[str], limit: int = SIZE) -> str:
    """Return the text of a file that somebody wrote.

    Raises TextError: it is a device or a pipe, larger than `limit` bytes, or no UTF-8.
    Raises OSError: it is missing or cannot be read.
    """
    # A pipe that nobody writes to would be waited for, a device has no end.
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise TextError("it is no regular file")
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    return _text(data, limit)


def read_json(text: str | bytes, limit: int = SIZE) -> Any:
    """Return the values of a JSON text.

    `limit` is the largest size, bytes; records of programs may be larger than what people write.

    Raises TextError: it is none, or leaves the limits.

    Examples
    --------
    >>> read_json('{"eta": [0.8, 1]}')
    {'eta': [0.8, 1]}
    >>> read_json("[" * 1000 + "]" * 1000)
    Traceback (most recent call last):
    scopeflow.strict.text.TextError: lists and tables are nested deeper than 64 levels
    """

    def read(text: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise TextError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None

    return _limited(text, limit, read)


def read_toml(text: str | bytes) -> dict[str, Any]:
    """Return the values of a TOML text.

    Raises TextError: it is none, or leaves the limits.

    Examples
    --------
    >>> read_toml("eta = 8e-1")
    {'eta': 0.8}
    """

    def read(text: str) -> Any:
        _check_toml(text)
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise TextError(excerpt(str(error))) from None

    read_values: dict[str, Any] = _limited(text, SIZE, read)
    return read_values


def read_yaml(text: str | bytes) -> Any:
    """Return the plain values of a YAML text; ``1e-3``, text in YAML 1.1, is a number.

    Raises TextError: it is none, or leaves the limits.

    Examples
    --------
    >>> read_yaml("eta: 8e-1")
    {'eta': 0.8}
    """

    def read(text: str) -> Any:
        try:
            return yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise TextError(excerpt(str(error))) from None

    return _limited(text, SIZE, read)


def _text(data: bytes, limit: int) -> str:
    if len(data) > limit:
        raise TextError(f"it is larger than {limit} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"it is not text ({error.reason} at byte {error.start})") from None


def _limited(text: str | bytes, limit: int, read: Callable[[str], Any]) -> Any:
    if isinstance(text, bytes):
        text = _text(text, limit)
    elif len(text) > limit:
        raise TextError(f"it is larger than {limit} bytes")
    try:
        values = read(text)
        _check_values(values)
    except TextError:
        raise
    except RecursionError:
        raise TextError(_too_deep()) from None
    except Exception as error:  # whatever parsers raise for numbers, dates and tags
        raise TextError(excerpt(f"{error}") or type(error).__name__) from None
    return values


def _too_deep() -> str:
    return f"lists and tables are nested deeper than {DEPTH} levels"


def _check_values(values: Any) -> None:
    level = [values]
    for _ in range(DEPTH + 2):
        for value in level:
            # As many bits as 300 digits: the text of a larger one may not even be shown.
            if type(value) is int and value.bit_length() > DIGITS * 3.33:
                raise TextError(f"a whole number has more than {DIGITS} digits")
        level = [one for value in level for one in _within(value)]
        if not level:
            return
    raise TextError(_too_deep())


def _within(value: Any) -> Any:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()] if not _all_text(value) else value.values()
    return value if isinstance(value, (list, tuple, set)) else ()


def _all_text(table: dict[Any, Any]) -> bool:
    return all(type(key) is str for key in table)


# ----------------------------------------------------------------------------------------- TOML

_OPAQUE = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"{3,5}|\Z)'
    r"|'''.*?(?:'{3,5}|\Z)"
    r'|"(?:\\.|[^"\\\n])*(?:"|(?=\n)|\Z)'
    r"|'[^'\n]*(?:'|(?=\n)|\Z)"
    r"|#[^\n]*",
    re.DOTALL,
)
"""Strings and comments of TOML; each alternative matches what is not closed, too."""


def _check_toml(text: str) -> None:
    """Refuse what costs the parser a call per level, or a copy of a name for each of its parts."""
    bare = _OPAQUE.sub("s", text)
    if any(part.count(".") >= DEPTH for part in re.split(r"[=,\[\]{}\n]", bare)):
        raise TextError(f"a name has more than {DEPTH} parts")
    depth = 0
    for bracket in re.finditer(r"[\[\]{}]", bare):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > DEPTH:
            raise TextError(_too_deep())


# ----------------------------------------------------------------------------------------- YAML


class _Loader(yaml.SafeLoader):
    """Plain values only; numbers as in YAML 1.2, as TOML and JSON have them too.

    An alias repeats what its anchor holds: a few lines can mean more than any memory holds.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}
        self._repeated = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > DEPTH:
            raise TextError(_too_deep())
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not is_alias:
            if len(self._sizes) >= _VALUES:
                raise TextError(f"it has more than {_VALUES} values")
            self._sizes[id(node)] = 1 + sum(self._sizes[id(one)] for one in _children(node))
            return node
        if id(node) not in self._sizes:
            raise TextError("a part refers to itself")
        self._repeated += self._sizes[id(node)]
        if self._repeated > _REPEATED:
            raise TextError(f"aliases repeat more than {_REPEATED} values; write them out")
        return node

    def construct_yaml_int(self, node: Any) -> int:
        if len(str(node.value)) > DIGITS:
            raise TextError(f"a whole number has more than {DIGITS} digits")
        return int(super().construct_yaml_int(node))


def _children(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        return [one for pair in node.value for one in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
