"""Names of the ways to resample an image."""

from __future__ import annotations

from typing import Literal

Interpolation = Literal["cubic", "linear", "nearest"]
