"""Executors of batches under their documented module path; names only."""

from __future__ import annotations

from scopeflow.compat.pyflowreg._executors import (
    BaseExecutor,
    MultiprocessingExecutor,
    SequentialExecutor,
    ThreadingExecutor,
)

__all__ = ["BaseExecutor", "MultiprocessingExecutor", "SequentialExecutor", "ThreadingExecutor"]
