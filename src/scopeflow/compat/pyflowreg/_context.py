"""Which ways of running in parallel this machine has, and which of them a run takes."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import multiprocessing
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, ClassVar

from scopeflow.engine.cpus import available_cpus
from scopeflow.errors import OptionsError, nearest_name
from scopeflow.flow.backends.registry import list_backends
from scopeflow.motion.place import AVAILABLE, PREFERENCE, preferred_place
from scopeflow.strict.text import read_json

_changes: ContextVar[dict[str, Any] | None] = ContextVar("scopeflow_runtime_context", default=None)


class RuntimeContext:
    """What is available here, by name; settings that hold for the process or for a ``with`` block.

    Keys: ``max_workers`` (processors this process may use), ``available_parallelization`` and
    ``available_features`` (sets of str), ``available_backends`` (set of str, the flow backends) and
    ``parallelization_registry`` (executors by name).

    Examples
    --------
    >>> available = RuntimeContext.get("available_parallelization", set())
    >>> sorted(available & {"sequential", "threading", "multiprocessing"})
    ['multiprocessing', 'sequential', 'threading']
    >>> with RuntimeContext.use(max_workers=3):
    ...     RuntimeContext.get("max_workers")
    3
    """

    _settings: ClassVar[dict[str, Any]] = {}
    _registry: ClassVar[dict[str, Any]] = {
        name: f"scopeflow.compat.pyflowreg._executors.{name.capitalize()}Executor"
        for name in PREFERENCE
    }

    @classmethod
    def init(cls, force: bool = False) -> None:
        """Find out what is available; again if `force`, which forgets what was set."""
        if cls._settings and not force:
            return
        cls._settings = {
            "max_workers": available_cpus(),
            "available_parallelization": _found_parallelization(),
            "available_features": _found_features(),
        }

    @classmethod
    def get(cls, key: str, default: Any = None) -> Any:
        """Return a setting; `default` for an unknown key."""
        cls.init()
        local = _changes.get() or {}
        if key in local:
            return local[key]
        if key == "available_backends":
            return set(list_backends())
        if key == "parallelization_registry":
            return dict(cls._registry)
        return cls._settings.get(key, default)

    @classmethod
    @contextlib.contextmanager
    def use(cls, **settings: Any) -> Iterator[type[RuntimeContext]]:
        """Set values inside a ``with`` block."""
        token = _changes.set({**(_changes.get() or {}), **settings})
        try:
            yield cls
        finally:
            _changes.reset(token)

    @classmethod
    def register_parallelization_executor(cls, name: str, executor: Any) -> None:
        """Add an executor, as class or as dotted path of one."""
        cls.init()
        cls._registry[name] = executor
        cls._settings["available_parallelization"] = {
            *cls._settings["available_parallelization"],
            name,
        }

    @classmethod
    def get_parallelization_executor(cls, name: str) -> Any:
        """Return the class of an executor; None if no executor has this name."""
        found = cls._registry.get(name)
        if isinstance(found, str):
            module, _, attribute = found.rpartition(".")
            found = getattr(importlib.import_module(module), attribute)
            cls._registry[name] = found
        return found

    @classmethod
    def get_available_parallelization(cls) -> set[str]:
        """Return the names of ways to run in parallel."""
        return {*cls.get("available_parallelization")}

    @classmethod
    def is_parallelization_available(cls, name: str) -> bool:
        """Tell whether a way to run in parallel is there."""
        return name in cls.get_available_parallelization()

    @classmethod
    def require_parallelization(cls, name: str) -> None:
        """Raise `OptionsError` unless a way to run in parallel is there."""
        known = sorted(cls.get_available_parallelization())
        if name not in known:
            raise OptionsError(
                f"the parallelization '{name}' is not available here; available are "
                f"{', '.join(known)}." + nearest_name(name, known)
            )

    @classmethod
    def get_optimal_parallelization(cls, backend: str = "flowreg") -> str:
        """Return the executor that is taken for a flow backend when none is asked for.

        Raises
        ------
        RuntimeError
            If no executor is both available and supported by the backend.
        """
        return preferred_place(backend, cls.get_available_parallelization())

    @classmethod
    def to_env(cls, name: str = "PYFLOWREG_CONTEXT") -> dict[str, str]:
        """Put the settings into an environment variable, which processes started later inherit."""
        keys = ("max_workers", "available_parallelization", "available_features")
        text = json.dumps({key: cls.get(key) for key in keys}, default=sorted)  # sets
        os.environ[name] = text
        return {name: text}

    @classmethod
    def from_env(cls, name: str = "PYFLOWREG_CONTEXT") -> bool:
        """Take over the settings of an environment variable; False if it is not set."""
        text = os.environ.get(name)
        if text is None:
            return False
        cls.init()
        try:
            for key, value in read_json(text).items():
                cls._settings[key] = set(value) if isinstance(value, list) else value
        except (ValueError, AttributeError) as error:
            raise OptionsError(
                f"the environment variable {name} holds no settings ({error}); unset it"
            ) from None
        return True


def _found_parallelization() -> set[str]:
    found = set(AVAILABLE)
    found |= {f"multiprocessing_{how}" for how in multiprocessing.get_all_start_methods()}
    return found - {"multiprocessing_forkserver"}


def _found_features() -> set[str]:
    packages = {"cuda": "cupy", "torch": "torch", "opencv": "cv2", "napari": "napari"}
    return {name for name, package in packages.items() if importlib.util.find_spec(package)}
