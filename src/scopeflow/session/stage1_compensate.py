"""Stage 1 under its documented module path; names only, no logic."""

from __future__ import annotations

from scopeflow.io.files import atomic_save_npy, atomic_save_npz
from scopeflow.sessions.stage1 import run_stage1, run_stage1_array

__all__ = ["atomic_save_npy", "atomic_save_npz", "run_stage1", "run_stage1_array"]
