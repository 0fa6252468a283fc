"""``BaseExecutor`` under its documented module path; names only."""

from __future__ import annotations

from scopeflow.compat.pyflowreg._executors import BaseExecutor

__all__ = ["BaseExecutor"]
