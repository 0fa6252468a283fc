"""Sessions under the names of PyFlowReg; names only."""

from __future__ import annotations

from scopeflow.compat.pyflowreg.session.config import SessionConfig, get_array_task_id
from scopeflow.sessions.run import SessionResult, run_session, session_status
from scopeflow.sessions.stage1 import run_stage1, run_stage1_array
from scopeflow.sessions.stage2 import run_stage2
from scopeflow.sessions.stage3 import run_stage3

__all__ = [
    "SessionConfig",
    "SessionResult",
    "get_array_task_id",
    "run_session",
    "run_stage1",
    "run_stage1_array",
    "run_stage2",
    "run_stage3",
    "session_status",
]
