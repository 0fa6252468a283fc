"""Registry of methods that compute the displacement between two frames."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeAlias

from scopeflow.errors import OptionsError, nearest_name
from scopeflow.flow.flow import get_displacement

logger = logging.getLogger(__name__)

Displacement: TypeAlias = Callable[..., Any]
"""``f(fixed, moving, **options) -> (H, W, 2)``.

It may have a method ``many(fixed, frames (n, H, W, C), **options) -> (n, H, W, 2)`` and an
attribute ``frames_at_once``: blocks of frames are then solved together. With a method
``prepare_frames`` (`scopeflow.backends.DeviceMethod`) whole frames stay on a device.
"""

ENTRY_POINTS = "scopeflow.flow_backends"
"""Group of the entry points by which installed packages offer methods.

The name of an entry point is that of the method; it names a `Backend`, or a factory alone.
"""

ALL_EXECUTORS = frozenset(
    {"sequential", "threading", "multiprocessing", "multiprocessing_fork", "multiprocessing_spawn"}
)


@dataclass(frozen=True)
class Backend:
    """A displacement method that can be chosen by name.

    Parameters
    ----------
    factory : callable or str
        ``factory(**backend_params)`` returns ``f(fixed, moving, **options) -> (H, W, 2)``. As text,
        ``"module:name"``, it is imported when the method is made, not when methods are listed.
    executors : frozenset of str
        Executors that can run it.
    package : str, optional
        Package that it imports and that may be missing.
    install : str
        What brings that package: the words behind ``pip install``.

    Examples
    --------
    >>> method = Backend("scopeflow.flow.backends.dis:make", package="cv2")
    >>> method.is_installed(), method.make(preset="fast").get_params()["preset"]
    (True, 1)
    """

    factory: Callable[..., Displacement] | str
    executors: frozenset[str] = ALL_EXECUTORS
    package: str | None = None
    install: str = ""

    def is_installed(self) -> bool:
        """Tell whether the package that it needs is there, without importing it."""
        return self.package is None or importlib.util.find_spec(self.package) is not None

    def make(self, **backend_params: Any) -> Displacement:
        """Make the displacement function.

        Raises
        ------
        OptionsError
            When parameters do not fit, or the factory cannot be imported.
        """
        if not isinstance(self.factory, str):
            return self.factory(**backend_params)
        module, _, name = self.factory.partition(":")
        try:
            factory = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise OptionsError(
                f"the flow backend {self.factory} cannot be imported: {_reason(error)}"
            ) from error
        method: Displacement = factory(**backend_params)
        return method


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


_backends: dict[str, Backend] = {
    "diso": Backend("scopeflow.flow.backends.dis:make", package="cv2", install="opencv-python"),
}
"""Those that come with scopeflow and those that were registered; they hide entry points."""


@functools.cache
def _offered() -> dict[str, list[EntryPoint]]:
    """Entry points of installed packages by name, looked for once: it takes milliseconds."""
    offered: dict[str, list[EntryPoint]] = {}
    for each in entry_points(group=ENTRY_POINTS):
        offered.setdefault(each.name, []).append(each)
    return offered


def _package_of(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


@functools.cache
def _discovered(name: str) -> Backend:
    """Load what an installed package offers under a name."""
    first, *others = _offered()[name]
    if others:
        packages = ", ".join(sorted(map(_package_of, [first, *others])))
        raise OptionsError(
            f"flow backend '{name}' is offered by several packages: {packages}. Uninstall all but "
            "one of them."
        )
    try:
        found = first.load()
    except Exception as error:  # whatever another package raises on import
        raise OptionsError(
            f"flow backend '{name}' of the package {_package_of(first)} cannot be loaded: "
            f"{_reason(error)}. Repair or uninstall that package."
        ) from error
    if isinstance(found, Backend):
        return found
    if callable(found):
        return Backend(found)
    raise OptionsError(
        f"flow backend '{name}' of the package {_package_of(first)} cannot be loaded: "
        f"{first.value} is a {type(found).__name__}; a scopeflow.backends.Backend or a factory is "
        "needed. Repair or uninstall that package."
    )


def _known(name: str) -> Backend | None:
    if name in _backends:
        return _backends[name]
    return _discovered(name) if name in _offered() else None


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
    _backends[name] = Backend(factory, executors)


def _usable(name: str) -> Backend:
    known = _known(name)
    if known is not None and known.is_installed():
        return known
    available = f"Available backends: {list_backends()}."
    if known is not None:
        raise OptionsError(
            f"flow backend '{name}' needs the package {known.package}, which is not installed. "
            f"Install it with: pip install '{known.install or known.package}'. {available}"
        )
    if name == "flowreg_cuda":
        raise OptionsError(
            "flow backend 'flowreg_cuda' is not part of scopeflow. For CUDA devices use "
            f"flow_backend='flowreg_torch' with backend_params={{'device': 'cuda'}}. {available}"
        )
    raise OptionsError(
        f"Unknown flow backend: '{name}'. {available}"
        + nearest_name(str(name), [*_backends, *_offered()])
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
        When the name is not registered, its package is not installed, or the package that offers
        it is broken; also a ValueError.

    Examples
    --------
    >>> get_backend("flowreg")().__name__
    'get_displacement'
    """
    known = _usable(name)
    return known.make if isinstance(known.factory, str) else known.factory


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
    return set(_usable(name).executors)


def is_built_in(name: str) -> bool:
    """Tell whether a method comes with scopeflow and was not replaced: its name says what it is."""
    if name in _backends:
        return _backends[name] is _BUILT_IN.get(name)
    return (offered_by(name) or "").partition(" ")[0] == "scopeflow"


def offered_by(name: str) -> str | None:
    """Return name and version of the package that offers a method; None where none is needed."""
    return None if name in _backends or name not in _offered() else _package_of(_offered()[name][0])


def list_backends() -> list[str]:
    """List the methods that can be used here, sorted.

    Those that installed packages offer by entry points are among them; what they need (torch) is
    not imported.

    Returns
    -------
    list of str
        Names; those whose package is missing or broken are left out.

    Examples
    --------
    >>> "flowreg" in list_backends()
    True
    """
    names = []
    for name in {*_backends, *_offered()}:
        try:
            known = _known(name)
        except OptionsError as error:
            logger.warning("%s", error)
            continue
        if known is not None and known.is_installed():
            names.append(name)
    return sorted(names)


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
_BUILT_IN = dict(_backends)
