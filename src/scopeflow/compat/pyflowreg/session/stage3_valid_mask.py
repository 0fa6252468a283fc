"""Stage 3 under its documented module path; names only."""

from __future__ import annotations

from scopeflow.sessions.stage3 import run_stage3

__all__ = ["run_stage3"]
