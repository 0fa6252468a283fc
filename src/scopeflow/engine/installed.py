"""Whether code is a user's, or Python's or a package's, which a name and a version identify."""

from __future__ import annotations

import functools
import importlib.util
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any


def file_of(value: Any, module: str) -> str | None:
    """Return the file that a function, module or class comes from; `module` is that of a class."""
    if isinstance(value, FunctionType):
        return value.__code__.co_filename
    if isinstance(value, ModuleType):
        return getattr(value, "__file__", None)
    return origin_of(module)


@functools.cache
def package_version(top: str) -> str:
    """Return the version of the package that brings a module, after a space; none of Python's."""
    if top in sys.stdlib_module_names:
        return ""
    for distribution in packages_distributions().get(top, ()):
        try:
            return f" {version(distribution)}"
        except PackageNotFoundError:
            continue
    return ""


def origin_of(module: str) -> str | None:
    """Return the file of a module without importing it."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        spec = getattr(loaded, "__spec__", None)
        return getattr(loaded, "__file__", None) or (spec.origin if spec else None)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return spec.origin if spec else None


def is_users(file: str | None) -> bool:
    """Tell whether a file is neither Python's nor that of an installed package."""
    if file is None or file in ("built-in", "frozen"):
        return False
    if file.startswith("<"):  # a notebook, an interactive session, or code made while running
        return not file.startswith(("<frozen", "<__array_function__"))
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in _installed_folders())


@functools.cache
def _installed_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {Path(place).resolve() for n in names if (place := sysconfig.get_path(n))}
    # Folders of packages that an environment sees besides its own.
    folders |= {
        Path(p).resolve() for p in sys.path if p.endswith(("site-packages", "dist-packages"))
    }
    return tuple(folders)
