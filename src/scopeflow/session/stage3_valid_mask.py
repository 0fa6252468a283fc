"""Stage 3 under its documented module path; names only, no logic."""

from __future__ import annotations

from scopeflow.sessions.stage3 import run_stage3

__all__ = ["run_stage3"]
