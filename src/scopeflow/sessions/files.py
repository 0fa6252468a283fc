"""Session files on disk: TOML and YAML as plain mappings, and keys that a table has swallowed."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scopeflow.errors import InputNotFoundError, OptionsError
from scopeflow.io.addresses import expanded
from scopeflow.strict.text import TextError, file_text, read_toml, read_yaml
from scopeflow.strict.values import excerpt

logger = logging.getLogger(__name__)

_KINDS = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}


def read_session_file(path: Path, kind: str | None, known: Iterable[str]) -> dict[str, Any]:
    """Read a session file into unchecked arguments of `SessionConfig`; ``root`` is absolute.

    `kind` is ``"toml"``, ``"yaml"`` or None, which tells by the suffix; `known` are the names that
    a session has.

    Raises InputNotFoundError: when the file does not exist.
    Raises OptionsError: when it has another format, is damaged, or gives a name twice.
    """
    path = expanded(path)
    if kind is None:
        kind = _KINDS.get(path.suffix.lower())
        if kind is None:
            raise OptionsError(
                f"Unsupported config file format: {path.suffix or path.name}. Use .toml, .yaml "
                "or .yml"
            )
    if not path.is_file():
        raise InputNotFoundError(f"Configuration file not found: {path}")
    try:
        text = file_text(path)
        data = read_toml(text) if kind == "toml" else read_yaml(text)
    except TextError as error:
        raise OptionsError(f"{path} cannot be read as {kind.upper()}: {error}") from None
    if not isinstance(data, dict):
        raise OptionsError(f"{path} holds no names with values; write lines such as root = '/data'")
    names = set(known)
    data = _without_swallowed_keys(data, names, path)
    if isinstance(data.get("root"), str):
        data["root"] = (path.parent / expanded(data["root"])).absolute()
    return data


def _without_swallowed_keys(data: dict[str, Any], known: set[str], path: Path) -> dict[str, Any]:
    # Lines below a [table] belong to it in TOML, also those that were meant for the session.
    table = data.get("backend_params")
    if not isinstance(table, Mapping):
        return data
    swallowed = [name for name in table if name in known]
    for name in swallowed:
        if name in data:
            raise OptionsError(
                f"{path}: {name} is given twice, once below [backend_params]; give it once, above "
                "that line"
            )
    if swallowed:
        logger.info(
            "%s: %s below [backend_params] is read as options of the session.",
            path,
            ", ".join(swallowed),
        )
    data["backend_params"] = {k: v for k, v in table.items() if k not in swallowed}
    return {**data, **{name: table[name] for name in swallowed}}


def check_parameter_names(parameters: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse names in ``backend_params`` that are one of a session, or differ from it by a slip.

    Raises OptionsError: with the name that was meant.

    Examples
    --------
    >>> check_parameter_names({"device": "cuda:0"}, ["cc_upsample"])
    >>> try:
    ...     check_parameter_names({"cc_upsampel": 4}, ["cc_upsample"])
    ... except OptionsError as error:
    ...     print(error)
    backend_params: unknown option 'cc_upsampel'. Did you mean 'cc_upsample', above that table?
    """
    names = list(known)
    for name in parameters:
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.8)
        if near:
            raise OptionsError(
                f"backend_params: unknown option '{excerpt(str(name))}'. Did you mean '{near[0]}', "
                "above that table?"
            )
