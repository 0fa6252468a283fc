"""Where a flow backend can run."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Set

from scopeflow.engine.place import RegistrationConfig
from scopeflow.flow.backends.registry import get_backend_executors

PREFERENCE = ("multiprocessing", "threading", "sequential")
"""Order in which the executors of arrays and batches are chosen by themselves."""


AVAILABLE = frozenset({"sequential", "threading", "multiprocessing", "dask"})
"""Ways to run that every machine has."""


def preferred_place(backend: str, available: Set[str] = AVAILABLE) -> str:
    """Return the executor that a flow backend takes when none is asked for.

    Raises RuntimeError: if nothing is both available and supported by the backend.
    """
    supported = get_backend_executors(backend)
    for name in PREFERENCE:
        if name in supported and name in available:
            return name
    raise RuntimeError(
        f"No compatible parallelization executor found for backend '{backend}': it supports "
        f"{sorted(supported)}, available are {sorted(available)}"
    )


def supported_config(
    config: RegistrationConfig, backend: str, available: Set[str] = AVAILABLE
) -> RegistrationConfig:
    """Return the configuration, or one with an executor that a flow backend can run on.

    Returns: the same where the backend supports it. Else the first of multiprocessing, threading
        and sequential that it supports, with a warning if another one was asked for by name.
    Raises RuntimeError: if nothing fits.
    """
    supported = get_backend_executors(backend)
    usable = supported & available
    on_cluster = config.client is not None or config.scheduler_address is not None
    wanted = "dask" if on_cluster else config.parallelization
    # Workers of a cluster are processes.
    needed = "multiprocessing" if wanted == "dask" else wanted
    if needed in usable:
        return config
    if needed is None and {"multiprocessing", "threading"} <= usable:
        return config
    chosen = preferred_place(backend, available)
    if wanted is not None and needed not in supported:
        warnings.warn(
            f"Backend '{backend}' does not support '{wanted}' executor. Supported executors: "
            f"{sorted(supported)}. Falling back to '{chosen}'.",
            UserWarning,
            stacklevel=3,
        )
    elif wanted is not None:
        warnings.warn(
            f"Executor '{wanted}' is not available on this system. Available executors: "
            f"{sorted(usable)}. Falling back to '{chosen}'.",
            UserWarning,
            stacklevel=3,
        )
    return dataclasses.replace(config, parallelization=chosen, client=None, scheduler_address=None)
