"""The registry of flow backends under its documented module path; names only."""

from __future__ import annotations

from scopeflow.flow.backends.registry import (
    get_backend,
    get_backend_executors,
    is_backend_available,
    list_backends,
    register_backend,
)

__all__ = [
    "get_backend",
    "get_backend_executors",
    "is_backend_available",
    "list_backends",
    "register_backend",
]
