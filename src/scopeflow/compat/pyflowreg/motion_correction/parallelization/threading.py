"""``ThreadingExecutor`` under its documented module path; names only."""

from __future__ import annotations

from scopeflow.compat.pyflowreg._executors import ThreadingExecutor

__all__ = ["ThreadingExecutor"]
