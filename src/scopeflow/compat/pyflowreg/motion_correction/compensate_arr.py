"""Correction of arrays under its documented module path; names only."""

from __future__ import annotations

from scopeflow.motion.arrays import compensate_arr, compensate_pair

__all__ = ["compensate_arr", "compensate_pair"]
