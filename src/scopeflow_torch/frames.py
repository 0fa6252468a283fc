"""Frames on a device, many at once: normalise, filter, solve, resample, cast and measure in torch.

Each step is that of the module of scopeflow.images with the same subject. Stacks are planes
``(n, C, H, W)`` on the device; arrays of numpy come in and go out channel-last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scopeflow.backends import (
    DEFAULT_WARPING_STEPS,
    SMALLEST_FILTERED,
    FlowParameters,
    FlowStatistics,
    Level,
    OptionsError,
    cast_frames,
    channel_weights,
    check_finite,
    exponents_of_channels,
    full_resolution_tables,
    pyramid_levels,
    pyramid_tables,
    sigma_rows,
)
from scopeflow_torch import planes
from scopeflow_torch.planes import Planes
from scopeflow_torch.solver import motion_tensor, solve_level

_EXACT_IN_FLOAT32 = ("b1", "i1", "u1", "i2", "u2", "f2", "f4")
# Of unsigned 16 bits torch knows few operations; the bits of the signed ones are the same.
_CASTS = {"u1": torch.uint8, "i1": torch.int8, "u2": torch.int16, "i2": torch.int16}


def _on_device(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run without gradients, and say what to do when the memory of the device is used up."""

    @wraps(method)
    def run(*arguments: Any, **keywords: Any) -> Any:
        try:
            with torch.inference_mode():
                return method(*arguments, **keywords)
        except torch.OutOfMemoryError as error:
            raise OptionsError(
                "the frames do not fit into the memory of the device: "
                f"{str(error).split('. ')[0]}. Use fewer at once, "
                "backend_params={'frames_at_once': ...}"
            ) from error

    return run


class TorchFrames:
    """A reference prepared on a device, to which frames are registered many at once.

    `reference`: ``(H, W, C)``, normalised and filtered reference.
    `weight`: weights of channels or pixels, see `channel_weights`.
    `dtype`: float32 or float64.
    `shape`: ``(H, W, C)``.
    `levels`: pyramid, coarsest first; motion is on the grid of the last one.
    Raises InputError: when the reference is too small or not finite, or the weight or the number of
        exponents does not fit.
    """

    @_on_device
    def __init__(
        self,
        reference: NDArray[Any],
        weight: Any,
        params: FlowParameters,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        check_finite(reference, "The reference")
        self._params = params
        self._like: dict[str, Any] = {"device": device, "dtype": dtype}
        height, width, channels = reference.shape
        self.shape = (height, width, channels)
        self.levels = pyramid_levels((height, width), params)
        self._tables: dict[Any, tuple[planes.Table, planes.Table] | None] = {}
        fixed = self.upload(reference[None])
        weights, maps = channel_weights(weight, self.shape)
        self._a_data = exponents_of_channels(params.a_data, channels).tolist()
        self._images, self._weights = [], []
        for level in self.levels:
            self._images.append(self._resized(fixed, (level.rows, level.cols)))
            here = torch.as_tensor(weights, **self._like)[None, :, None, None]
            if maps is not None:
                full = torch.as_tensor(maps, **self._like)[None]
                here = here * self._resized(full, (level.rows, level.cols))
            self._weights.append(here)

    @_on_device
    def upload(self, frames: NDArray[Any], *, exact: bool = False) -> Planes:
        """Bring arrays ``(n, H, W, C)`` to the device.

        With `exact`, types that float32 cannot hold become float64, for `preprocess`.
        """
        values = np.ascontiguousarray(np.moveaxis(np.asarray(frames), -1, 1))
        wide = values.dtype.str[1:] not in _EXACT_IN_FLOAT32
        if values.dtype.kind in "iu" and values.dtype not in (np.uint8, np.int16):
            # torch knows few operations on the other integers.
            values = values.astype(np.float64 if wide else np.float32)
        like = {**self._like, "dtype": torch.float64} if exact and wide else self._like
        return torch.as_tensor(values).to(**like)

    def _resized(self, stack: Planes, shape: tuple[int, int], *, to_full: bool = False) -> Planes:
        size = (stack.shape[-2], stack.shape[-1])
        key = (size, shape, to_full)
        if key not in self._tables:
            found = (full_resolution_tables if to_full else pyramid_tables)(size, shape)
            self._tables[key] = None
            if found is not None:
                rows, columns = (planes.table_on(table, self._like) for table in found)
                self._tables[key] = rows, columns
        return planes.resampled(stack, self._tables[key])

    # -- before the flow is solved --------------------------------------------------------------

    @_on_device
    def preprocess(self, raw: Planes, low: Any, high: Any, sigma: Any) -> Planes:
        """Normalise and filter in space, see `filters.preprocess_frame`."""
        channels = self.shape[2]
        low, high = (np.broadcast_to(np.asarray(b, np.float64), (channels,)) for b in (low, high))
        like = {"device": raw.device, "dtype": raw.dtype}
        offset = torch.as_tensor(low.copy(), **like)[:, None, None]
        scale = torch.as_tensor(1.0 / (high - low + 1e-8), **like)[:, None, None]
        scaled = ((raw - offset) * scale).to(**self._like)
        rows = sigma_rows(sigma, channels)
        parts = [
            planes.gaussian(scaled[:, c : c + 1], rows[c, 1], rows[c, 0]) for c in range(channels)
        ]
        return parts[0] if channels == 1 else torch.cat(parts, dim=1)

    @_on_device
    def join(self, frames: list[Planes]) -> Planes:
        """Put frames of stacks into one stack."""
        return frames[0] if len(frames) == 1 else torch.cat(frames)

    @_on_device
    def in_time(self, stacks: list[Planes], weights: NDArray[np.float64]) -> Planes:
        """Weighted sum of stacks, weights ``(len(stacks), C)``; see `temporal.filter_in_time`."""
        total = torch.zeros_like(stacks[0])
        for stack, weight in zip(stacks, weights.astype(np.float32), strict=True):
            if np.any(weight):
                total += torch.as_tensor(weight, **self._like)[:, None, None] * stack
        return total

    # -- the flow -------------------------------------------------------------------------------

    @_on_device
    def solve(self, moving: Planes, start: Planes | None = None) -> Planes:
        """Displacements ``(n, 2, h, w)`` on the finest grid, in full-resolution pixels.

        `start` is ``(n or 1, 2, H, W)``; see `flow.solve_flow`.
        """
        shares = self._params.gnc_schedule or (None,)
        flow = self._pass(moving, start, shares[0])
        for share in shares[1:]:
            flow = self._pass(moving, self.upsampled(flow), share)
        return flow

    def _pass(self, moving: Planes, start: Planes | None, share: float | None) -> Planes:
        first = self.levels[0]
        flow = moving.new_zeros((moving.shape[0], 2, first.rows, first.cols))
        if start is not None:
            flow = flow + self._resized(start, (first.rows, first.cols))
        steps = 1 if share is None else (self._params.warping_steps or DEFAULT_WARPING_STEPS)
        for position, level in enumerate(self.levels):
            flow = self._resized(flow, (level.rows, level.cols))
            image = self._resized(moving, (level.rows, level.cols))
            filtered = min(level.rows, level.cols) >= SMALLEST_FILTERED
            for _ in range(steps):
                # The coarsest level is compared as it is, even when an initial flow is given.
                is_warped = share is not None or position > 0
                increment = self._increment(position, level, image, flow, is_warped, share)
                if share is None:
                    flow = flow + (planes.median_5x5(increment) if filtered else increment)
                else:
                    flow = flow + increment
                    flow = planes.median_5x5(flow) if filtered else flow
        return flow

    def _increment(
        self,
        position: int,
        level: Level,
        image: Planes,
        flow: Planes,
        is_warped: bool,
        share: float | None,
    ) -> Planes:
        params = self._params
        fixed = self._images[position].expand_as(image)
        if is_warped:
            u, v = flow[:, 0] * (1 / level.h_col), flow[:, 1] * (1 / level.h_row)
            image = planes.warp_planes(image, u, v, fixed)
        return solve_level(
            motion_tensor(fixed, image, level.h_row, level.h_col, params.data_term),
            self._weights[position],
            flow,
            alpha=(params.alpha[0] * level.alpha_scale, params.alpha[1] * level.alpha_scale),
            h_row=level.h_row,
            h_col=level.h_col,
            iterations=params.iterations,
            update_lag=params.update_lag,
            a_data=self._a_data,
            a_smooth=params.a_smooth,
            stage=1.0 if share is None else share,
        )

    @_on_device
    def upsampled(self, flow: Planes) -> Planes:
        """Displacements ``(n, 2, H, W)`` at full resolution."""
        return self._resized(flow, self.shape[:2], to_full=True)

    # -- what is done with it -------------------------------------------------------------------

    @_on_device
    def warp(self, moving: Planes, flow: Planes, fill: Planes, interpolation: str) -> Planes:
        """Resample at displacements ``(n, 2, H, W)``, see `warp.warp`."""
        fill = fill.expand_as(moving)
        return planes.warp_planes(moving, flow[:, 0], flow[:, 1], fill, interpolation)

    @_on_device
    def cast(self, stack: Planes, dtype: Any) -> tuple[NDArray[Any], list[int]]:
        """Bring values to the dtype of a recording; also how many of each frame were clipped.

        See `warp.cast_frames`.
        """
        target = np.dtype(dtype)
        on_device = _CASTS.get(target.str[1:])
        if on_device is None:
            done = [cast_frames(frame, target) for frame in self.download(stack)]
            return np.stack([frame for frame, _ in done]), [count for _, count in done]
        bounds = np.iinfo(target)
        rounded = stack.round()
        fits = (rounded >= bounds.min) & (rounded <= bounds.max)  # not NaN
        clipped = (~fits).sum(dim=(1, 2, 3)).tolist()
        values = torch.nan_to_num(rounded, nan=0.0).clamp(bounds.min, bounds.max)
        channel_last = values.to(torch.int32).to(on_device).permute(0, 2, 3, 1)
        return channel_last.contiguous().cpu().numpy().view(target), clipped

    @_on_device
    def download(self, stack: Planes) -> NDArray[np.float32]:
        """Bring a stack to an array ``(n, h, w, C)`` of float32."""
        values = stack.permute(0, 2, 3, 1).to(torch.float32).contiguous().cpu().numpy()
        return np.asarray(values, np.float32)

    @_on_device
    def inside(self, flow: Planes) -> NDArray[np.bool_]:
        """Where a registered pixel comes from inside the frame, ``(n, H, W)``."""
        return np.asarray(planes.inside(flow[:, 0], flow[:, 1]).cpu().numpy(), np.bool_)

    @_on_device
    def statistics(self, flow: Planes) -> list[FlowStatistics]:
        """Summaries of displacements ``(n, 2, H, W)``, see `statistics.flow_statistics`.

        Frames are summed one by one, so that a sum does not depend on the frames beside it.
        """
        measured = [_statistics_of(frame.to(torch.float64)) for frame in flow]
        return [FlowStatistics(*row) for row in torch.stack(measured).cpu().tolist()]

    @_on_device
    def displacements(
        self, moving: NDArray[Any], start: NDArray[Any] | None = None
    ) -> NDArray[np.float32]:
        """Displacements ``(n, h, w, 2)`` of preprocessed frames ``(n, H, W, C)``.

        `start` is ``(H, W, 2)``.
        """
        initial = None if start is None else self.upload(start[None])
        return self.download(self.solve(self.upload(moving), initial))


def _statistics_of(flow: torch.Tensor) -> torch.Tensor:
    u, v = flow[0], flow[1]
    length = torch.sqrt(u * u + v * v)
    slope = _mean_gradient(u.sum(dim=0), u.shape[0]) + _mean_gradient(v.sum(dim=1), v.shape[1])
    mean_u, mean_v = u.mean(), v.mean()
    translation = torch.sqrt(mean_u * mean_u + mean_v * mean_v)
    return torch.stack([length.mean(), length.max(), slope, translation])


def _mean_gradient(sums: torch.Tensor, per_sum: int) -> torch.Tensor:
    return torch.gradient(sums)[0].mean() / per_sum
