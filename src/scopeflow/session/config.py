"""``SessionConfig`` under its documented module path; names only, no logic."""

from __future__ import annotations

from scopeflow.sessions.config import SessionConfig, get_array_task_id

__all__ = ["SessionConfig", "get_array_task_id"]
