"""``SequentialExecutor`` under its documented module path; names only."""

from __future__ import annotations

from scopeflow.compat.pyflowreg._executors import SequentialExecutor

__all__ = ["SequentialExecutor"]
