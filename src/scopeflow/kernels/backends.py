"""Registry of methods that compute the displacement between two frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from scopeflow.errors import OptionsError, nearest_name
from scopeflow.kernels.flow import get_displacement

Displacement: TypeAlias = Callable[..., Any]
"""``f(fixed, moving, **options) -> (H, W, 2)``."""

ALL_EXECUTORS = frozenset(
    {"sequential", "threading", "multiprocessing", "multiprocessing_fork", "multiprocessing_spawn"}
)

_factories: dict[str, tuple[Callable[..., Displacement], frozenset[str]]] = {}


def register_backend(
    name: str,
    factory: Callable[..., Displacement],
    supported_executors: Iterable[str] | None = None,
) -> None:
    """Add a method, or replace the one of that name.

    Parameters
    ----------
    name : str
        Its name.
    factory : callable
        ``factory(**backend_params)`` returns ``f(fixed, moving, **options) -> (H, W, 2)``.
    supported_executors : iterable of str, optional
        Executors that can run it; all when None.

    Examples
    --------
    >>> from scopeflow.kernels.flow import get_displacement
    >>> register_backend("mine", lambda **parameters: get_displacement)
    >>> is_backend_available("mine")
    True
    """
    executors = ALL_EXECUTORS if supported_executors is None else frozenset(supported_executors)
    _factories[name] = (factory, executors)


def _entry(name: str) -> tuple[Callable[..., Displacement], frozenset[str]]:
    if name not in _factories:
        raise OptionsError(
            f"Unknown flow backend: '{name}'. Available backends: {list_backends()}."
            + nearest_name(str(name), _factories)
        )
    return _factories[name]


def get_backend(name: str) -> Callable[..., Displacement]:
    """Look up the factory of a method.

    Parameters
    ----------
    name : str
        Registered name.

    Returns
    -------
    callable
        ``factory(**backend_params) -> f(fixed, moving, **options)``.

    Raises
    ------
    OptionsError
        When the name is not registered; also a ValueError.

    Examples
    --------
    >>> get_backend("flowreg")().__name__
    'get_displacement'
    """
    return _entry(name)[0]


def get_backend_executors(name: str) -> set[str]:
    """Executors that can run a method, as a copy.

    Parameters
    ----------
    name : str
        Registered name.

    Returns
    -------
    set of str
        Names of executors.

    Raises
    ------
    OptionsError
        When the name is not registered.
    """
    return set(_entry(name)[1])


def list_backends() -> list[str]:
    """List the registered names, sorted.

    Returns
    -------
    list of str
        Names.
    """
    return sorted(_factories)


def is_backend_available(name: str) -> bool:
    """Tell whether a method is registered.

    Parameters
    ----------
    name : str
        Any name.

    Returns
    -------
    bool
        True when `get_backend` knows it.
    """
    return name in _factories


def _flowreg(**backend_params: Any) -> Displacement:  # noqa: ARG001 - it has no parameters
    return get_displacement


register_backend("flowreg", _flowreg)
