"""The package ``pyama.processing.workflow``; names only, no logic."""

from __future__ import annotations

from scopeflow.cells.methods.registered import register_preprocessor
from scopeflow.compat.pyama._services import run_complete_workflow, run_single_worker

__all__ = ["register_preprocessor", "run_complete_workflow", "run_single_worker"]
