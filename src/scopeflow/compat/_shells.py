"""Modules that only pass names on, made from the table of `scopeflow.compat._names`.

A package of the table has a second entry in its ``__path__``, behind which Python finds modules
without a file, as it finds files in the folder that is the first entry. So whatever goes by modules
works as ever: ``import``, ``importlib.reload``, ``pkgutil``, ``python -m``, and pickles that a new
process opens before it has imported anything.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

from scopeflow.compat._names import NAMES

_MARK = "names of "
_SOURCES = {
    program + path: (program, sources)
    for program, modules in NAMES.items()
    for path, sources in modules.items()
}
_MODULE = '''"""A module of another program under our prefix; names only, see `scopeflow.compat`."""

from scopeflow.compat._shells import share

__all__ = share(globals())
'''


class _Shells(InspectLoader):
    """Finds and makes what is directly below one package of the table; ImportError for others."""

    def __init__(self, entry: str) -> None:
        if not entry.startswith(_MARK):
            raise ImportError(entry)
        self.package = entry.removeprefix(_MARK)

    def find_spec(self, name: str, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        """Return how to make a module; None if it is not in the table."""
        return spec_from_loader(name, self) if name in _SOURCES else None

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """Name the modules and tell which are packages, for `pkgutil`."""
        for name in _SOURCES:
            package, _, last = name.rpartition(".")
            if package == self.package:
                yield prefix + last, self.is_package(name)

    def is_package(self, name: str) -> bool:
        """Tell whether the table has modules below this one."""
        return any(other.startswith(f"{name}.") for other in _SOURCES)

    def get_source(self, name: str) -> str:  # noqa: ARG002
        """Return the text that every module consists of."""
        return _MODULE


def share(module: dict[str, Any]) -> list[str]:
    """Put the names of the table into the globals of a module; return its ``__all__``."""
    name = module["__spec__"].name  # `__name__` is "__main__" under `python -m`
    if "__path__" in module:
        module["__path__"].append(_MARK + name)
        module["__getattr__"] = partial(_submodule, name)
    program, sources = _SOURCES[name]
    # All imports first: that of a submodule binds its name here, which may be that of a function.
    found = [(import_module(source, program), names) for source, names in sources.items()]
    shared = {}
    for source, names in found:
        for there in source.__all__ if names == "*" else names.split():
            there, _, here = there.partition("=")
            shared[here or there] = getattr(source, there)
    module.update(shared)
    return sorted(shared)


def _submodule(package: str, name: str) -> ModuleType:
    """Import a submodule when it is asked for as an attribute."""
    path = f"{package}.{name}"
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}") from None


sys.path_hooks.append(_Shells)
