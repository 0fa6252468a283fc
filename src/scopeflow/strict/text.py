"""YAML as people write it: numbers such as ``1e-3``, which YAML 1.1 takes for text, are numbers."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Plain values only; numbers as in YAML 1.2, as TOML and JSON have them too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(text: str) -> Any:
    """Return the plain values of a YAML text; `yaml.YAMLError` for one that is none.

    Examples
    --------
    >>> read_yaml("eta: 8e-1")
    {'eta': 0.8}
    """
    return yaml.load(text, Loader=_Loader)
