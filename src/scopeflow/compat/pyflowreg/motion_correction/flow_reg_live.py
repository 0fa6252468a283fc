"""Online correction under its documented module path."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compat.pyflowreg.motion_correction.OF_options import ChannelNormalization
from scopeflow.motion import live

__all__ = ["FlowRegLive"]


class FlowRegLive(live.FlowRegLive):
    """As :class:`scopeflow.FlowRegLive`, with its state as attributes.

    A reference that has the same value everywhere is accepted with a warning; displacements are
    zero until it is renewed from frames.
    """

    _reference_may_be_flat = True

    @property
    def last_flow(self) -> NDArray[Any] | None:
        """Displacement ``(H, W, 2)`` of the newest frame, pixels; None before the first."""
        return self.get_current_flow()

    @property
    def norm_min(self) -> float | list[float] | None:
        """Value of the raw reference that becomes 0; a list with separate normalisation."""
        return self._bound(0)

    @property
    def norm_max(self) -> float | list[float] | None:
        """Value of the raw reference that becomes 1; a list with separate normalisation."""
        return self._bound(1)

    def _bound(self, which: int) -> float | list[float] | None:
        if self.intensity_range is None:
            return None
        values = [float(value) for value in np.ravel(self.intensity_range[which])]
        is_joint = self.options.channel_normalization is ChannelNormalization.JOINT
        return values[0] if is_joint else values
