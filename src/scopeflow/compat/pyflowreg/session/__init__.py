"""Sessions under the names of PyFlowReg."""

from __future__ import annotations

from scopeflow.compat._shells import share

__all__ = share(globals())
