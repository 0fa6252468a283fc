"""The flow and its backends under the names of PyFlowReg."""

from __future__ import annotations

from scopeflow.compat.pyflowreg.core.backend_registry import (
    get_backend,
    get_backend_executors,
    is_backend_available,
    list_backends,
    register_backend,
)
from scopeflow.compat.pyflowreg.core.optical_flow import get_displacement

__all__ = [
    "get_backend",
    "get_backend_executors",
    "get_displacement",
    "is_backend_available",
    "list_backends",
    "register_backend",
]
