"""Online correction under its documented module path; names only."""

from __future__ import annotations

from scopeflow.pipelines.live import FlowRegLive

__all__ = ["FlowRegLive"]
