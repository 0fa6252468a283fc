"""One short name for settings, equal exactly when results must be; compares, never decides."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Set
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
from pydantic import BaseModel

_MISSING = object()


def settings_dict(settings: Any) -> Any:
    """Turn nested settings into plain JSON values that can be stored and compared later.

    Dataclasses and option models become objects, tuples lists, enums their values, paths
    strings. An array becomes its dtype, shape and a hash of its values.

    `settings`: nested dataclasses, models, mappings, sequences, arrays, numbers, strings, None.
    Raises TypeError: for an object without a defined form, with its place.

    Examples
    --------
    >>> settings_dict({"alpha": (1.5, 1.5)})
    {'alpha': [1.5, 1.5]}
    """
    return _plain(settings, "settings")


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value, place)
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, np.generic):
        return _plain(value.item(), place)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, np.ndarray):
        return _array_identity(value, place)
    if isinstance(value, PurePath):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name), f"{place}.{name}") for name in names}
    if isinstance(value, BaseModel):
        fields = [n for n, field in type(value).model_fields.items() if not field.exclude]
        return {name: _plain(getattr(value, name), f"{place}.{name}") for name in fields}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{place} has the key {key!r}; keys of settings are strings")
        return {str(key): _plain(entry, f"{place}.{key}") for key, entry in value.items()}
    if isinstance(value, Set):
        return sorted((_plain(entry, place) for entry in value), key=_canonical)
    if isinstance(value, (list, tuple, range)):
        return [_plain(entry, f"{place}[{n}]") for n, entry in enumerate(value)]
    raise TypeError(f"{place} is a {type(value).__name__}, which has no defined fingerprint")


def _array_identity(array: np.ndarray, place: str) -> dict[str, Any]:
    if array.dtype.hasobject:
        raise TypeError(f"{place} is an array of objects, which has no defined fingerprint")
    # The same numbers give the same hash on every machine and in every memory layout.
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)
    digest = hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "blake2b": digest}


def _canonical(plain: Any) -> str:
    return json.dumps(_numbers_unified(plain), sort_keys=True, separators=(",", ":"))


def _numbers_unified(plain: Any) -> Any:
    # 1 and 1.0 mean the same setting, also after a visit to a JSON file.
    if isinstance(plain, float) and plain.is_integer() and abs(plain) < 2**53:
        return int(plain)
    if isinstance(plain, dict):
        return {key: _numbers_unified(entry) for key, entry in plain.items()}
    if isinstance(plain, list):
        return [_numbers_unified(entry) for entry in plain]
    return plain


def fingerprint(settings: Any) -> str:
    """Hash of settings: 32 hexadecimal digits (BLAKE2b of canonical JSON).

    Returns: independent of key order, of lists versus tuples, of 1 versus 1.0, of array memory
        layout.
    Raises TypeError: for an object without a defined form.

    Examples
    --------
    >>> fingerprint({"a": 1, "b": (2.0,)}) == fingerprint({"b": [2], "a": 1})
    True
    """
    text = _canonical(settings_dict(settings))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def diff_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name every setting that differs, for the error about results of other settings.

    `old`, `new`: settings as for `settings_dict`, such as one read from JSON and one of this run.
    Returns: one sentence a setting, in order of names; empty exactly when the fingerprints are
        equal.

    Examples
    --------
    >>> diff_settings({"flow": {"alpha": [1.5, 1.5]}}, {"flow": {"alpha": (4.0, 4.0)}})
    ['flow.alpha: was (1.5, 1.5), now (4.0, 4.0)']
    """
    return _differences(settings_dict(old), settings_dict(new), "")


def _differences(old: Any, new: Any, name: str) -> list[str]:
    both = isinstance(old, dict) and isinstance(new, dict)
    if both and not _is_array(old) and not _is_array(new):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            inner = f"{name}.{key}" if name else key
            lines += _differences(old.get(key, _MISSING), new.get(key, _MISSING), inner)
        return lines
    if old is not _MISSING and new is not _MISSING and _canonical(old) == _canonical(new):
        return []
    return [f"{name}: was {_shown(old)}, now {_shown(new)}"]


def _is_array(plain: Any) -> bool:
    # Settings that were stored may have been changed by anybody since.
    return (
        isinstance(plain, dict)
        and plain.keys() == {"dtype", "shape", "blake2b"}
        and isinstance(plain["blake2b"], str)
    )


def _shown(plain: Any) -> str:
    if plain is _MISSING:
        return "not set"
    if _is_array(plain):
        shape = _shown(plain["shape"])
        return f"array {plain['dtype']} {shape} #{plain['blake2b'][:8]}"
    if isinstance(plain, list):
        if len(plain) > 12:
            ends = ", ".join(map(_shown, plain[:3])), ", ".join(map(_shown, plain[-2:]))
            # The hash tells two long lists with equal ends apart.
            mark = hashlib.blake2b(_canonical(plain).encode(), digest_size=4).hexdigest()
            return f"({ends[0]}, …, {ends[1]}; {len(plain)} entries #{mark})"
        inner = ", ".join(map(_shown, plain))
        return f"({inner},)" if len(plain) == 1 else f"({inner})"
    if isinstance(plain, dict):
        return "{" + ", ".join(f"{key}: {_shown(entry)}" for key, entry in plain.items()) + "}"
    return repr(plain)
