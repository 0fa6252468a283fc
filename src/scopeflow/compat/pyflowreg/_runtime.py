"""``RuntimeContext`` under its documented module path; names only."""

from __future__ import annotations

from scopeflow.compat.pyflowreg._context import RuntimeContext

__all__ = ["RuntimeContext"]
