"""``SessionConfig`` under its documented module path; names only."""

from __future__ import annotations

from scopeflow.config.session import SessionConfig, get_array_task_id

__all__ = ["SessionConfig", "get_array_task_id"]
