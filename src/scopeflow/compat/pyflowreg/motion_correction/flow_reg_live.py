"""Online correction under its documented module path."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from scopeflow.pipelines import live

__all__ = ["FlowRegLive"]


class FlowRegLive(live.FlowRegLive):
    """As :class:`scopeflow.FlowRegLive`; the newest displacement is an attribute, too."""

    @property
    def last_flow(self) -> NDArray[Any] | None:
        """Displacement ``(H, W, 2)`` of the newest frame, pixels; None before the first."""
        return self.get_current_flow()
