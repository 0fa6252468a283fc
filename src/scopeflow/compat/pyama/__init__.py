"""The names of the PyAMA workflow reference on top of scopeflow; names only, no logic.

``pyama.processing.workflow.run`` becomes ``scopeflow.compat.pyama.processing.workflow.run``.
"""

from scopeflow.compat._shells import share

__all__ = share(globals())
