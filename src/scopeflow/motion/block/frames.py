"""The frames of a block in turn, solved and resampled: one by one, or many at once on a device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scopeflow._shapes import FrameYXC
from scopeflow.flow.backends.device import device_method
from scopeflow.images.register import FrameRegistration
from scopeflow.motion.block.device import OnDevice
from scopeflow.motion.block.preprocess import FramePreprocessor, RawFrames
from scopeflow.motion.block.solve import solver_for
from scopeflow.motion.block.values import RegisteredFrame

if TYPE_CHECKING:
    from scopeflow.motion.block.values import BatchStart, BlockRequest, Reference


def registered_frames(
    source: RawFrames,
    indices: range,
    reference: Reference,
    start: BatchStart,
    request: BlockRequest,
) -> Iterator[RegisteredFrame]:
    """Solve and resample frames in order of time.

    `start`: initial displacement; the renewed reference in it is not looked at.
    """
    method = device_method(request.displacement_function)
    if method is not None:
        yield from OnDevice(source, reference, start, request, method).each(indices)
        return
    preprocessed = FramePreprocessor(source)
    solver = solver_for(reference, start, request)
    registration = FrameRegistration(reference.raw, request.parameters.interpolation)
    solved = solver.solve_each(preprocessed.frame(index) for index in indices)
    for index, (moving, motion) in zip(indices, solved, strict=True):
        yield _Single(source.raw(index), moving, motion, registration, reference)


class _Single:
    """A frame that the kernels of this processor register."""

    def __init__(
        self,
        raw: FrameYXC,
        moving: NDArray[np.float32],
        motion: NDArray[np.float32],
        registration: FrameRegistration,
        reference: Reference,
    ) -> None:
        self.motion = motion
        self._raw, self._moving, self._reference = raw, moving, reference
        self._registration = registration
        self.statistics = registration.statistics
        self.flow = registration.flow

    def register(
        self, out: NDArray[Any], valid: NDArray[np.bool_], total: NDArray[np.float64] | None
    ) -> int:
        return self._registration.apply(self.motion, self._raw, out, valid=valid, total=total)

    def valid(self, out: NDArray[np.bool_]) -> None:
        self._registration.set_motion(self.motion)
        self._registration.valid(out)

    def moving(self) -> FrameYXC:
        return self._registration.warp(self._moving, self._reference.processed)
