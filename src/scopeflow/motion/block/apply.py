"""Displacements of a few frames put to use: frames resampled, masks, statistics, compositions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow._shapes import VideoTYXC
from scopeflow.images.interpolation import Interpolation
from scopeflow.images.register import FrameRegistration
from scopeflow.images.resize import upsample_flow
from scopeflow.motion.block.preprocess import non_finite_pixels
from scopeflow.motion.block.values import STATISTICS, BlockResult


def upsample_motion(motion: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Bring displacements from the solver's grid to full resolution.

    `motion`: ``(n, h, w, 2)`` float32, displacements on any grid, pixels of the frame.
    `shape`: ``(H, W)``.
    Returns: ``(n, H, W, 2)`` float32, the same displacements.
    """
    out = np.empty((len(motion), *shape, 2), np.float32)
    for position, frame in enumerate(motion):
        out[position] = upsample_flow(frame, shape)
    return out


def register_frames(
    frames: VideoTYXC,
    motion: NDArray[np.float32],
    first_frame: NDArray[np.int64] | int,
    *,
    fill: NDArray[Any],
    frame_shape: tuple[int, int],
    origin: tuple[int, int],
    interpolation: Interpolation,
    dtype: str,
    non_finite: str,
) -> VideoTYXC:
    """Resample raw frames, or the same part of each, along displacements that are known.

    `frames`: ``(n, h, w, C)``, raw frames; a part of the field of view where `origin` says so.
    `motion`: ``(n, rows, columns, 2)`` float32, displacements of whole frames, on any grid.
    `fill`: ``(h, w, C)``, values of pixels that come from outside.
    `frame_shape`, `origin`: ``(H, W)`` of whole frames, and row and column where the part begins.
    `interpolation`: ``{"cubic", "linear", "nearest"}``, interpolation.
    `dtype`: of the result; values are rounded half to even and clipped.
    `non_finite`: ``{"error", "mask"}``, NaN and infinite pixels raise, or are replaced by `fill`.
    Returns: ``(n, h, w, C)``, registered frames.
    Raises InputError: if frames are not finite and not to be masked.
    """
    height, width = fill.shape[:2]
    number = int(np.ravel(first_frame)[0])
    not_finite = non_finite_pixels(frames, number, non_finite)
    if not_finite is not None:
        frames = np.where(not_finite[..., None], fill.astype(frames.dtype), frames)
    registered = np.empty(frames.shape, dtype=dtype)
    registration = FrameRegistration(fill, interpolation)
    is_part = (height, width) != tuple(frame_shape)
    rows, columns = slice(origin[0], origin[0] + height), slice(origin[1], origin[1] + width)
    for position, frame in enumerate(frames):
        grid = motion[position]
        if is_part:
            grid = upsample_flow(grid, frame_shape)[rows, columns]
        registration.apply(grid, frame, registered[position])
    return registered


def valid_pixels(motion: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which pixels of registered frames come from inside the raw frames.

    `motion`: ``(n, h, w, 2)`` float32, displacements on any grid.
    `shape`: ``(H, W)``.
    Returns: ``(n, H, W)`` bool, True where a pixel comes from inside.
    """
    out = np.empty((len(motion), *shape), np.bool_)
    registration = FrameRegistration(np.zeros((*shape, 1), np.float32), "linear")
    for position, grid in enumerate(motion):
        registration.set_motion(grid)
        registration.valid(out[position])
    return out


def motion_statistics(motion: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Measure displacements.

    `motion`: ``(n, h, w, 2)`` float32, displacements on any grid. Pixels without a displacement
        (NaN, in compositions) do not count.
    `shape`: ``(H, W)``.
    Returns: ``(n, 4)`` float64, mean and largest displacement, mean divergence and mean translation
        of each frame.
    """
    out = np.empty((len(motion), len(STATISTICS)))
    registration = FrameRegistration(np.zeros((*shape, 1), np.float32), "linear")
    for position, grid in enumerate(motion):
        if np.isfinite(grid).all():
            registration.set_motion(grid)
            out[position] = registration.statistics()
        else:
            out[position] = _statistics_of_part(upsample_flow(grid, shape))
    return out


def _statistics_of_part(flow: NDArray[np.float32]) -> list[float]:
    u, v = flow[..., 0].astype(np.float64), flow[..., 1].astype(np.float64)
    inside = np.isfinite(u) & np.isfinite(v)
    if not inside.any():
        return [np.nan] * len(STATISTICS)
    length = np.hypot(u, v)[inside]
    divergence = np.gradient(u, axis=1) + np.gradient(v, axis=0)
    measured = np.isfinite(divergence)
    return [
        float(length.mean()),
        float(length.max()),
        float(divergence[measured].mean()) if measured.any() else np.nan,
        float(np.hypot(u[inside].mean(), v[inside].mean())),
    ]


def compose_motion(
    first: NDArray[np.float32], second: NDArray[np.float32], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Chain two displacements: those of a correction, and those of a correction of its result.

    `first`, `second`: ``(n, h, w, 2)`` float32, on any grids. The second moves what the first has
        registered.
    `shape`: ``(H, W)``.
    Returns: ``(n, H, W, 2)`` float32, ``second(p) + first(p + second(p))``, the first linearly
        interpolated; NaN where ``p + second(p)`` is outside.
    """
    out = np.empty((len(first), *shape, 2), np.float32)
    fill = np.zeros((*shape, 1), np.float32)
    for position, (before, after) in enumerate(zip(first, second, strict=True)):
        registration = FrameRegistration(fill, "linear", then=upsample_flow(after, shape))
        registration.set_motion(before)
        out[position] = registration.flow()
    return out


def result_of_motion(motion: NDArray[np.float32], shape: tuple[int, int]) -> BlockResult:
    """Return displacements with their statistics, as a block of a correction has them.

    `motion`: ``(n, h, w, 2)`` float32, displacements on any grid.
    `shape`: ``(H, W)``.
    """
    measured = motion_statistics(motion, shape)
    return BlockResult(
        registered=np.empty((0, *shape, 1), np.float32),
        motion=motion,
        valid=np.empty((0, *shape), np.bool_),
        statistics={name: measured[:, column] for column, name in enumerate(STATISTICS)},
        clipped=np.zeros(len(motion), np.int64),
    )
