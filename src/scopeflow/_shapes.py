"""Names for the array shapes that every layer speaks of.

The axes are ``T`` frames, ``H``/``Y`` rows (down), ``W``/``X`` columns (right), ``C`` channels.
Displacements are in pixels of the full-resolution frame, ``[..., 0] = u`` (x, columns, right) and
``[..., 1] = v`` (y, rows, down). Warping is backward: ``out(y, x) = moving(y + v, x + u)``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FrameYXC: TypeAlias = NDArray[Any]
"""One frame, shape ``(H, W, C)``."""

VideoTYXC: TypeAlias = NDArray[Any]
"""Several frames, shape ``(T, H, W, C)``."""

FlowYX2: TypeAlias = NDArray[np.float32]
"""Displacement of one frame, shape ``(H, W, 2)``, pixels."""

FlowTYX2: TypeAlias = NDArray[np.float32]
"""Displacements of several frames, shape ``(T, H, W, 2)``, pixels."""

MaskTYX: TypeAlias = NDArray[np.bool_]
"""True where a registered pixel comes from inside the moving frame, shape ``(T, H, W)``."""
