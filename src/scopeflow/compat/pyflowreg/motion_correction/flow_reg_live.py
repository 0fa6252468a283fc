"""Online correction under its documented module path; names only."""

from __future__ import annotations

from typing import Any

import scopeflow


def __getattr__(name: str) -> Any:
    if name != "FlowRegLive":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return scopeflow.FlowRegLive
