"""``SessionConfig`` under its documented module path, with the errors of pydantic."""

from __future__ import annotations

from typing import Any

from scopeflow.compat.pyflowreg._errors import validation_error
from scopeflow.errors import ScopeflowError
from scopeflow.sessions import config as native
from scopeflow.sessions.config import get_array_task_id

__all__ = ["SessionConfig", "get_array_task_id"]


class SessionConfig(native.SessionConfig):
    """Options of a session, see :class:`scopeflow.SessionConfig`."""

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ScopeflowError as error:
            raise validation_error("SessionConfig", error) from None
