"""``SequentialExecutor`` under its documented module path; names only."""

from __future__ import annotations

from scopeflow.runtime.batch_executors import SequentialExecutor

__all__ = ["SequentialExecutor"]
