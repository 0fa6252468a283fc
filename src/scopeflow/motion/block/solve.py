"""The displacement of one preprocessed frame: our solver, a function, or a method on a device."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scopeflow._shapes import FlowYX2
from scopeflow.errors import InputError
from scopeflow.flow.backends.device import DeviceFrames, device_method, plain_function
from scopeflow.flow.flow import prepare_start, solve_prepared
from scopeflow.flow.reference import FlowReference, reference_for
from scopeflow.images.resize import upsample_flow
from scopeflow.images.warp import warp
from scopeflow.images.xcorr import rigid_shift
from scopeflow.motion.parameters import RigidStartParameters

if TYPE_CHECKING:
    from scopeflow.motion.block.values import BatchStart, BlockRequest, Reference


def _rigid_start(
    moving: NDArray[np.float32],
    initial: FlowYX2,
    reference: Reference,
    rigid: RigidStartParameters,
) -> tuple[NDArray[np.float32], FlowYX2]:
    """Return the frame moved by start plus rigid shift, and that displacement."""
    partly = warp(moving, initial, reference.processed, "linear")
    dx, dy = rigid_shift(
        reference.processed,
        partly,
        rigid.target_shape,
        rigid.upsample_factor,
        weights=reference.weight,
    )
    combined = initial + np.array([dx, dy], dtype=np.float32)
    return warp(moving, combined, reference.processed, "linear"), combined


class FrameSolver:
    """The displacement of one frame, by our solver or by another function.

    `start`: initial displacement; the renewed reference in it is not looked at.
    """

    def __init__(self, reference: Reference, start: BatchStart, request: BlockRequest) -> None:
        height, width, _ = reference.raw.shape
        self._shape = (height, width)
        self._grid = request.motion_shape(height, width)
        self._reference = reference
        self._request = request
        self._rigid = request.parameters.rigid_start
        self._prepared: FlowReference | None = None
        self._device: DeviceFrames | None = None
        if method := device_method(request.displacement_function):
            self._device = method.prepare_frames(
                reference.processed, reference.weight, request.parameters.flow
            )
        elif request.displacement_function is None:
            self._prepared = reference_for(
                reference.processed, reference.weight, request.parameters.flow
            )
        self.start_from(start.motion)

    def start_from(self, motion: NDArray[np.float32] | None) -> None:
        """Let the frames that follow start from a displacement on the motion grid, or from zero."""
        self._start = np.zeros((*self._grid, 2), dtype=np.float32) if motion is None else motion
        self._initial = upsample_flow(self._start, self._shape)
        self._coarse_start: NDArray[np.float32] | None = None
        # With a rigid start every frame is moved first and starts from zero.
        if self._prepared is not None and motion is not None and self._rigid is None:
            self._coarse_start = prepare_start(self._prepared, self._initial)

    def solve_each(
        self, frames: Iterable[NDArray[np.float32]]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Yield each preprocessed frame with its displacement on the motion grid.

        A function that solves many frames together gets as many as it asks for.
        """
        function, keywords = plain_function(self._request.displacement_function)
        many = getattr(function, "many", None)
        at_once = getattr(function, "frames_at_once", 1)
        if many is None or at_once == 1 or self._rigid is not None:
            for frame in frames:
                yield frame, self.solve(frame)
            return
        left = iter(frames)
        while group := list(itertools.islice(left, at_once)):
            flows = many(
                self._reference.processed,
                np.stack(group),
                uv=self._initial,
                weight=self._reference.weight,
                **keywords,
            )
            for frame, flow in zip(group, flows, strict=True):
                yield frame, self._checked(flow)

    def solve(self, moving: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the displacement of one preprocessed frame on the motion grid."""
        if self._rigid is None:
            return self._flow(moving, self._initial)
        aligned, combined = _rigid_start(moving, self._initial, self._reference, self._rigid)
        shift = combined[0, 0] - self._initial[0, 0]
        residual = self._flow(aligned, np.zeros_like(self._initial))
        # Sampling the start on the motion grid and adding a constant commute with upsampling.
        return self._start + shift + residual

    def _flow(self, moving: NDArray[np.float32], initial: FlowYX2) -> NDArray[np.float32]:
        if self._prepared is not None:
            return solve_prepared(self._prepared, moving, self._coarse_start)
        if self._device is not None:
            motion: NDArray[np.float32] = self._device.displacements(moving[None], initial)[0]
            return motion
        function = self._request.displacement_function
        assert function is not None
        return self._checked(
            function(self._reference.processed, moving, uv=initial, weight=self._reference.weight)
        )

    def _checked(self, flow: Any) -> NDArray[np.float32]:
        flow = np.asarray(flow, dtype=np.float32)
        if flow.shape != (*self._shape, 2):
            raise InputError(
                f"the given displacement function returned shape {flow.shape}, "
                f"needed is (H, W, 2) = {(*self._shape, 2)}"
            )
        if not np.isfinite(flow).all():
            raise InputError("the given displacement function returned NaN or infinite values")
        return flow
