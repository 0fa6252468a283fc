"""The module ``pyama.processing.workflow.run``; names only, no logic."""

from __future__ import annotations

from scopeflow.compat.pyama._services import run_complete_workflow, run_single_worker
from scopeflow.compat.pyama._services import split_worker_ranges as _split_worker_ranges

__all__ = ["_split_worker_ranges", "run_complete_workflow", "run_single_worker"]
