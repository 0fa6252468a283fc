"""Registry of methods that compute the displacement between two frames."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from scopeflow.errors import OptionsError, nearest_name
from scopeflow.flow.flow import get_displacement

Displacement: TypeAlias = Callable[..., Any]
"""``f(fixed, moving, **options) -> (H, W, 2)``.

It may have a method ``many(fixed, frames (n, H, W, C), **options) -> (n, H, W, 2)`` and an
attribute ``frames_at_once``: blocks of frames are then solved together. With a method
``prepare_frames`` (`scopeflow.flow.backends.device.DeviceMethod`) whole frames stay on a device.
"""

ALL_EXECUTORS = frozenset(
    {"sequential", "threading", "multiprocessing", "multiprocessing_fork", "multiprocessing_spawn"}
)


@dataclass(frozen=True)
class _Delivered:
    """A method that comes with scopeflow and needs a package of its own."""

    package: str
    extra: str
    module: str
    executors: frozenset[str]

    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def factory(self, **backend_params: Any) -> Displacement:
        method: Displacement = importlib.import_module(self.module).make(**backend_params)
        return method


_delivered = {
    "diso": _Delivered("cv2", "opencv", "scopeflow.flow.backends.dis", ALL_EXECUTORS),
    # One process owns the device; frames are batched there instead.
    "flowreg_torch": _Delivered(
        "torch", "torch", "scopeflow.flow.backends.torch_flow", frozenset({"sequential"})
    ),
}

_ours: set[str] = set()

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
    >>> from scopeflow.flow.flow import get_displacement
    >>> register_backend("mine", lambda **parameters: get_displacement)
    >>> is_backend_available("mine")
    True
    """
    executors = ALL_EXECUTORS if supported_executors is None else frozenset(supported_executors)
    _factories[name] = (factory, executors)
    _ours.discard(name)


def _entry(name: str) -> tuple[Callable[..., Displacement], frozenset[str]]:
    if name in _factories:
        return _factories[name]
    known = _delivered.get(name)
    if known is not None and known.is_installed():
        return known.factory, known.executors
    available = f"Available backends: {list_backends()}."
    if known is not None:
        raise OptionsError(
            f"flow backend '{name}' needs the package {known.package}, which is not installed. "
            f"Install it with: pip install 'scopeflow[{known.extra}]'. {available}"
        )
    if name == "flowreg_cuda":
        raise OptionsError(
            "flow backend 'flowreg_cuda' is not part of scopeflow. For CUDA devices use "
            f"flow_backend='flowreg_torch' with backend_params={{'device': 'cuda'}}. {available}"
        )
    raise OptionsError(
        f"Unknown flow backend: '{name}'. {available}"
        + nearest_name(str(name), [*_factories, *_delivered])
    )


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
        When the name is not registered, or its package is not installed; also a ValueError.

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


def is_built_in(name: str) -> bool:
    """Tell whether a method comes with scopeflow and was not replaced: its name says what it is."""
    return name in _ours or (name in _delivered and name not in _factories)


def list_backends() -> list[str]:
    """List the methods that can be used here, sorted.

    Returns
    -------
    list of str
        Names; those whose package is missing are left out.
    """
    installed = (name for name, known in _delivered.items() if known.is_installed())
    return sorted({*_factories, *installed})


def is_backend_available(name: str) -> bool:
    """Tell whether a method can be used here.

    Parameters
    ----------
    name : str
        Any name.

    Returns
    -------
    bool
        True when `get_backend` knows it.
    """
    return name in list_backends()


def _flowreg(**backend_params: Any) -> Displacement:  # noqa: ARG001 - it has no parameters
    return get_displacement


register_backend("flowreg", _flowreg)
_ours.add("flowreg")
