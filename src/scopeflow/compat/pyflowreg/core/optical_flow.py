"""The solver and the warp under their documented module path; names only."""

from __future__ import annotations

from scopeflow.compat.pyflowreg.core.warping import imregister_wrapper
from scopeflow.flow.flow import get_displacement

__all__ = ["get_displacement", "imregister_wrapper"]
