"""The flow and its backends under the names of PyFlowReg."""

from scopeflow.compat._shells import share

__all__ = share(globals())
