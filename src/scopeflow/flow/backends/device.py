"""Displacement methods that do whole frames on a device: what they offer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scopeflow._shapes import FlowYX2, VideoTYXC
from scopeflow.flow.parameters import FlowParameters


class DeviceFrames(Protocol):
    """A reference prepared on a device, and what can be done with stacks of frames there.

    A stack is whatever the method keeps frames in; it can be indexed and sliced along frames.
    Arithmetic on stacks is elementwise.
    """

    def upload(self, frames: VideoTYXC, *, exact: bool = False) -> Any:
        """Return arrays ``(n, H, W, C)`` as a stack; `exact` keeps all digits of the raw values."""

    def preprocess(self, raw: Any, low: Any, high: Any, sigma: Any) -> Any:
        """Return raw frames normalised and filtered in space."""

    def join(self, frames: list[Any]) -> Any:
        """Return single frames of stacks as one stack."""

    def in_time(self, stacks: list[Any], weights: NDArray[np.float64]) -> Any:
        """Return the weighted sum of stacks, weights ``(len(stacks), C)``."""

    def solve(self, moving: Any, start: Any = None) -> Any:
        """Return displacements on the motion grid; `start` is at full resolution."""

    def upsampled(self, flow: Any) -> Any:
        """Return displacements at full resolution."""

    def warp(self, moving: Any, flow: Any, fill: Any, interpolation: str) -> Any:
        """Return frames resampled at full-resolution displacements."""

    def cast(self, stack: Any, dtype: Any) -> tuple[NDArray[Any], list[int]]:
        """Return frames in a dtype, and how many values of each were clipped."""

    def download(self, stack: Any) -> NDArray[np.float32]:
        """Return a stack as an array, channel-last."""

    def inside(self, flow: Any) -> NDArray[np.bool_]:
        """Return where displacements stay inside the frame."""

    def statistics(self, flow: Any) -> list[Any]:
        """Return the `FlowStatistics` of each displacement."""

    def displacements(self, moving: VideoTYXC, start: FlowYX2 | None = None) -> NDArray[np.float32]:
        """Return displacements ``(n, h, w, 2)`` of preprocessed frames on the motion grid."""


class DeviceMethod(Protocol):
    """A displacement function that can do whole frames on a device.

    Attributes
    ----------
    frames_at_once : int
        Frames that are on the device together.
    """

    frames_at_once: int

    def prepare_frames(
        self, fixed: NDArray[Any], weight: NDArray[Any], params: FlowParameters
    ) -> DeviceFrames:
        """Prepare a preprocessed reference."""


def plain_function(function: Any) -> tuple[Any, dict[str, Any]]:
    """Return the function that options were bound to, and these options."""
    if isinstance(function, functools.partial) and not function.args:
        return function.func, function.keywords
    return function, {}


def device_method(function: Callable[..., Any] | None) -> DeviceMethod | None:
    """Return the method behind a displacement function that does whole frames, else None."""
    method, _ = plain_function(function)
    return (
        method if hasattr(method, "prepare_frames") and hasattr(method, "frames_at_once") else None
    )
