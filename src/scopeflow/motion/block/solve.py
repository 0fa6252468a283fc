"""The displacement of one preprocessed frame: our solver, a function, or a method on a device."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scopeflow._shapes import FlowYX2
from scopeflow.errors import InputError
from scopeflow.flow.backends.device import DeviceMethod, device_method, plain_function
from scopeflow.flow.flow import prepare_start, solve_prepared
from scopeflow.flow.reference import reference_for
from scopeflow.images.resize import upsample_flow
from scopeflow.images.warp import warp
from scopeflow.images.xcorr import rigid_shift
from scopeflow.motion.parameters import RigidStartParameters

if TYPE_CHECKING:
    from scopeflow.motion.block.values import (
        BatchStart,
        BlockRequest,
        DisplacementFunction,
        Reference,
    )


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


class FrameSolver(ABC):
    """The displacements of frames against one reference; made by :func:`solver_for`.

    With a rigid start every frame is moved by the start and a rigid shift first, and what is left
    is solved from zero.
    """

    def __init__(self, reference: Reference, start: BatchStart, request: BlockRequest) -> None:
        height, width, _ = reference.raw.shape
        self._shape = (height, width)
        self._grid = request.motion_shape(height, width)
        self._reference = reference
        self._rigid = request.parameters.rigid_start
        self.start_from(start.motion)

    def start_from(self, motion: NDArray[np.float32] | None) -> None:
        """Let the frames that follow start from a displacement on the motion grid, or from zero."""
        self._start = np.zeros((*self._grid, 2), dtype=np.float32) if motion is None else motion
        self._initial = upsample_flow(self._start, self._shape)

    def solve_each(
        self, frames: Iterable[NDArray[np.float32]]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Yield each preprocessed frame with its displacement on the motion grid."""
        for frame in frames:
            yield frame, self.solve(frame)

    def solve(self, moving: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the displacement of one preprocessed frame on the motion grid."""
        if self._rigid is None:
            return self._from(moving, self._initial)
        aligned, combined = _rigid_start(moving, self._initial, self._reference, self._rigid)
        shift = combined[0, 0] - self._initial[0, 0]
        residual = self._from(aligned, np.zeros_like(self._initial))
        # Sampling the start on the motion grid and adding a constant commute with upsampling.
        return self._start + shift + residual

    @abstractmethod
    def _from(self, moving: NDArray[np.float32], initial: FlowYX2) -> NDArray[np.float32]:
        """Solve one frame from a displacement at full resolution."""


class OwnSolver(FrameSolver):
    """The variational solver of scopeflow; what it needs of the reference is prepared once."""

    def __init__(self, reference: Reference, start: BatchStart, request: BlockRequest) -> None:
        self._prepared = reference_for(
            reference.processed, reference.weight, request.parameters.flow
        )
        super().__init__(reference, start, request)

    def start_from(self, motion: NDArray[np.float32] | None) -> None:
        """Also bring the start to the coarsest level, once for all frames."""
        super().start_from(motion)
        from_zero = motion is None or self._rigid is not None
        self._coarse_start = None if from_zero else prepare_start(self._prepared, self._initial)

    def _from(self, moving: NDArray[np.float32], initial: FlowYX2) -> NDArray[np.float32]:  # noqa: ARG002 - see `start_from`
        return solve_prepared(self._prepared, moving, self._coarse_start)


class DeviceSolver(FrameSolver):
    """A method that keeps its frames on a device, asked for one frame at a time."""

    def __init__(
        self, method: DeviceMethod, reference: Reference, start: BatchStart, request: BlockRequest
    ) -> None:
        self._device = method.prepare_frames(
            reference.processed, reference.weight, request.parameters.flow
        )
        super().__init__(reference, start, request)

    def _from(self, moving: NDArray[np.float32], initial: FlowYX2) -> NDArray[np.float32]:
        motion: NDArray[np.float32] = self._device.displacements(moving[None], initial)[0]
        return motion


class GivenFunction(FrameSolver):
    """A function of the user, or that of a backend; what it returns is checked."""

    def __init__(
        self,
        function: DisplacementFunction,
        reference: Reference,
        start: BatchStart,
        request: BlockRequest,
    ) -> None:
        self._function = function
        super().__init__(reference, start, request)

    def solve_each(
        self, frames: Iterable[NDArray[np.float32]]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Yield each frame with its displacement; a function of many gets as many as it wants."""
        function, keywords = plain_function(self._function)
        many = getattr(function, "many", None)
        at_once = getattr(function, "frames_at_once", 1)
        if many is None or at_once == 1 or self._rigid is not None:
            yield from super().solve_each(frames)
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

    def _from(self, moving: NDArray[np.float32], initial: FlowYX2) -> NDArray[np.float32]:
        reference = self._reference
        return self._checked(
            self._function(reference.processed, moving, uv=initial, weight=reference.weight)
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


def solver_for(reference: Reference, start: BatchStart, request: BlockRequest) -> FrameSolver:
    """Return what solves the frames of a block: our solver, a device, or a given function.

    `start`: initial displacement; the renewed reference in it is not looked at.
    """
    function = request.displacement_function
    if function is None:
        return OwnSolver(reference, start, request)
    method = device_method(function)
    if method is not None:
        return DeviceSolver(method, reference, start, request)
    return GivenFunction(function, reference, start, request)
