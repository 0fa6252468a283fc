"""Stage 2 under its documented module path; names only."""

from __future__ import annotations

from scopeflow.sessions.stage2 import run_stage2

__all__ = ["run_stage2"]
