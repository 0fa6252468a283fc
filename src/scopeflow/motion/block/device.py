"""Frames of a block that stay on a device, from the raw to the registered one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scopeflow._shapes import FlowYX2, FrameYXC
from scopeflow.flow.backends.device import DeviceFrames, DeviceMethod
from scopeflow.images.statistics import FlowStatistics
from scopeflow.images.temporal import temporal_radius, temporal_weight_table
from scopeflow.images.xcorr import rigid_shift
from scopeflow.motion.block.preprocess import RawFrames
from scopeflow.motion.block.values import RegisteredFrame
from scopeflow.motion.grid import reflected_frame

if TYPE_CHECKING:
    from scopeflow.motion.block.values import BatchStart, BlockRequest, Reference


class OnDevice:
    """Frames that stay on a device from the raw to the registered one."""

    def __init__(
        self,
        source: RawFrames,
        reference: Reference,
        start: BatchStart,
        request: BlockRequest,
        method: DeviceMethod,
    ) -> None:
        parameters = request.parameters
        self._source, self._reference, self._request = source, reference, request
        self._rigid = parameters.rigid_start
        self._interpolation = parameters.interpolation
        self._at_once = method.frames_at_once
        self._device: DeviceFrames = method.prepare_frames(
            reference.processed, reference.weight, parameters.flow
        )
        self._fill = self._device.upload(reference.raw[None])
        self._fixed = self._device.upload(reference.processed[None])
        self._start: Any = None  # on the motion grid
        self._initial: Any = None  # at full resolution
        if start.motion is not None:
            self._start = self._device.upload(start.motion[None])
            self._initial = self._device.upsampled(self._start)
        self._cache: list[dict[int, Any]] = [{} for _ in source.stages]

    def each(self, indices: range) -> Iterator[RegisteredFrame]:
        """Yield frames in order of time; groups of them are solved together."""
        for first in range(0, len(indices), self._at_once):
            group = indices[first : first + self._at_once]
            moving = self._filtered(len(self._cache) - 1, group)
            motion = self._rigid_motion(moving) if self._rigid else self._solved(moving)
            yield from _Group(self, group, moving, motion).frames()

    # -- preprocessing --------------------------------------------------------------------------

    def _spatial(self, stage: int, wanted: list[int]) -> list[Any]:
        """Return single frames after the filter in space; each is computed once."""
        cache = self._cache[stage]
        missing = [index for index in dict.fromkeys(wanted) if index not in cache]
        for first in range(0, len(missing), self._at_once):
            some = missing[first : first + self._at_once]
            if stage == 0:
                raw = np.stack([self._source.changed(index) for index in some])
                stack = self._device.upload(raw, exact=True)
            else:
                stack = self._filtered(stage - 1, some)
            step = self._source.stages[stage]
            done = self._device.preprocess(
                stack, step.normalization.low, step.normalization.high, step.parameters.sigma
            )
            cache.update({index: done[at : at + 1] for at, index in enumerate(some)})
        frames = [cache[index] for index in wanted]
        oldest = min(wanted) - self._source.reach
        for old in [known for known in cache if known < oldest]:
            del cache[old]
        return frames

    def _filtered(self, stage: int, indices: range | list[int]) -> Any:
        """Return a stack of frames after a stage."""
        sigma = self._source.stages[stage].parameters.sigma
        radius = temporal_radius(sigma)
        limits = self._source.limits
        windows = [
            [reflected_frame(index + offset, *limits) for index in indices]
            for offset in range(-radius, radius + 1)
        ]
        found = iter(self._spatial(stage, [index for window in windows for index in window]))
        stacks = [self._device.join([next(found) for _ in window]) for window in windows]
        if radius == 0:
            return stacks[0]
        weights = temporal_weight_table(sigma, self._source.frames.shape[-1])
        return self._device.in_time(stacks, weights)

    # -- the flow -------------------------------------------------------------------------------

    def _solved(self, moving: Any) -> Any:
        return self._device.solve(moving, self._initial)

    def _rigid_motion(self, moving: Any) -> Any:
        """Move each frame by the start and a rigid shift first, see `motion.block.solve`."""
        device, rigid = self._device, self._rigid
        assert rigid is not None
        zero = np.zeros((1, *self._reference.raw.shape[:2], 2), np.float32)
        initial = device.upload(zero) if self._initial is None else self._initial
        begun = device.join([initial] * len(moving))
        partly = device.download(device.warp(moving, begun, self._fixed, "linear"))
        shifts = [
            rigid_shift(
                self._reference.processed,
                frame,
                rigid.target_shape,
                rigid.upsample_factor,
                weights=self._reference.weight,
            )
            for frame in partly
        ]
        shift = device.upload(np.array(shifts, np.float32)[:, None, None])
        aligned = device.warp(moving, begun + shift, self._fixed, "linear")
        residual = device.solve(aligned)
        return residual + shift if self._start is None else self._start + shift + residual


class _Group:
    """Frames that were solved together; what is asked for is computed for all of them at once."""

    def __init__(self, owner: OnDevice, indices: range, moving: Any, motion: Any) -> None:
        self._owner, self._indices, self._moving = owner, indices, moving
        self._device = owner._device
        self._full = self._device.upsampled(motion)
        self._motion = self._device.download(motion)
        self._inside = self._device.inside(self._full)
        self._statistics = self._device.statistics(self._full)
        self._values: Any = None
        self._cast: tuple[NDArray[Any], list[int]] | None = None

    def frames(self) -> Iterator[RegisteredFrame]:
        for position in range(len(self._indices)):
            yield _OfGroup(self, position)

    def registered(self) -> Any:
        """Return the registered frames, a stack."""
        if self._values is None:
            raw = np.stack([self._owner._source.raw(index) for index in self._indices])
            self._values = self._device.warp(
                self._device.upload(raw), self._full, self._owner._fill, self._owner._interpolation
            )
        return self._values

    def cast(self) -> tuple[NDArray[Any], list[int]]:
        """Return the registered frames in the output dtype, and how many values were clipped."""
        if self._cast is None:
            self._cast = self._device.cast(self.registered(), self._owner._request.output_dtype)
        return self._cast


class _OfGroup:
    """One frame of a group."""

    def __init__(self, group: _Group, position: int) -> None:
        self._group, self._position = group, position
        self.motion: NDArray[np.float32] = group._motion[position]

    def register(
        self, out: NDArray[Any], valid: NDArray[np.bool_], total: NDArray[np.float64] | None
    ) -> int:
        frames, clipped = self._group.cast()
        out[...] = frames[self._position]
        self.valid(valid)
        if total is not None:
            total += self._group._device.download(self._of(self._group.registered()))[0]
        return clipped[self._position]

    def _of(self, stack: Any) -> Any:
        return stack[self._position : self._position + 1]

    def valid(self, out: NDArray[np.bool_]) -> None:
        out[...] = self._group._inside[self._position]

    def statistics(self) -> FlowStatistics:
        statistics: FlowStatistics = self._group._statistics[self._position]
        return statistics

    def flow(self) -> FlowYX2:
        return self._group._device.download(self._of(self._group._full))[0]

    def moving(self) -> FrameYXC:
        group = self._group
        warped = group._device.warp(
            self._of(group._moving),
            self._of(group._full),
            group._owner._fixed,
            group._owner._interpolation,
        )
        return group._device.download(warped)[0]
