"""The import tree of PyFlowReg: a script moves over by changing the prefix of its imports.

Defaults that differ there are kept here: ``output_format`` is ``MAT``, and files are corrected in
processes unless something else is asked for. What the documentation of PyFlowReg promises holds.
"""

from scopeflow.compat._shells import share

__all__ = share(globals())
