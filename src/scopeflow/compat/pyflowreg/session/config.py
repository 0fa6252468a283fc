"""``SessionConfig`` under its documented module path, with the errors of pydantic."""

from __future__ import annotations

from typing import Any

from scopeflow.compat.pyflowreg._errors import validation_error
from scopeflow.config import session as native
from scopeflow.config.session import get_array_task_id
from scopeflow.errors import ScopeflowError

__all__ = ["SessionConfig", "get_array_task_id"]


class SessionConfig(native.SessionConfig):
    """Options of a session, see :class:`scopeflow.SessionConfig`."""

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ScopeflowError as error:
            raise validation_error("SessionConfig", error) from None
