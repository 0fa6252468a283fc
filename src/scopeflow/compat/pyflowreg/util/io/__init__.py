"""Readers and writers under the names of PyFlowReg, on the readers and writers of scopeflow."""

from scopeflow.compat._shells import share

__all__ = share(globals())
