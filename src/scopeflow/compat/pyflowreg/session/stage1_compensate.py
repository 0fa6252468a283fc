"""Stage 1 under its documented module path; names only."""

from __future__ import annotations

from scopeflow.pipelines.session_stage1 import run_stage1, run_stage1_array
from scopeflow.store.files import atomic_save_npy, atomic_save_npz

__all__ = ["atomic_save_npy", "atomic_save_npz", "run_stage1", "run_stage1_array"]
