"""Registration of raw frames: full-resolution flow, warp, cast, valid mask and statistics.

All steps work on planes in memory that the calling thread keeps, so that nothing is allocated
while a recording is processed. Results are those of `warp.warp`, `warp.cast_frames`,
`warp.valid_mask` and `statistics.flow_statistics`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.config.specs import Interpolation
from scopeflow.kernels._bands import COLUMN_BORDER, pixels
from scopeflow.kernels._jit import (
    disjoint,
    inner,
    int16,
    int64,
    kernel,
    nothing,
    pointer,
    readable,
    round_half_even,
    uint8,
    uint16,
    writable,
)
from scopeflow.kernels._scratch import scratch
from scopeflow.kernels.borders import pad_replicate, replicate_border
from scopeflow.kernels.resize import full_resolution_tables, resize_planes
from scopeflow.kernels.statistics import FlowStatistics, planar_flow_statistics
from scopeflow.kernels.warp import (
    SOURCE_COLUMNS,
    SOURCE_ROWS,
    cast_frames,
    check_interpolation,
    warp_planes,
)

_BORDER = (0, COLUMN_BORDER)
_ZERO = np.float32(0.0)


@functools.lru_cache(maxsize=16)
def _numbers(count: int) -> NDArray[np.float32]:
    """Whole numbers from 0: turning loop counters into floats would cost most of the time."""
    numbers = np.arange(count, dtype=np.float32)
    numbers.flags.writeable = False
    return numbers


@inner
def _inside_row(n, columns, y, u, v, width, height, out):
    disjoint()
    for x in range(n):
        px, py = columns[x] + u[x], y + v[x]
        inside = (px >= _ZERO) & (px < width) & (py >= _ZERO) & (py < height)
        out[x] = 1 if inside else 0


@kernel(nothing, readable(3), int64, readable(1), writable(2, uint8))
def _inside(flow, left, columns, out):
    h, w = out.shape
    stride = flow.shape[2]
    for y in range(h):
        _inside_row(
            w,
            pointer(columns, 0),
            np.float32(y),
            pointer(flow, y * stride + left),
            pointer(flow, (flow.shape[1] + y) * stride + left),
            np.float32(w),
            np.float32(h),
            pointer(out, y * w),
        )


@inner
def _cast_row(n, values, low, high, out, step):
    disjoint()
    clipped = 0
    for x in range(n):
        value = round_half_even(values[x])
        # NaN fails both tests: it is counted and becomes 0.
        clipped += 0 if (value >= low) & (value <= high) else 1
        value = min(high, max(low, value)) if value == value else _ZERO
        out[x * step] = np.int32(value)
    return clipped


@inner
def _cast_planes(planes, left, low, high, out):
    """Round and clip planes to an integer dtype of at most 16 bits, channels last."""
    h, w, channels = out.shape
    clipped = 0
    for c in range(channels):
        for y in range(h):
            row = pointer(planes, (c * h + y) * planes.shape[2] + left)
            target = pointer(out, y * w * channels + c)
            if channels == 1:  # a constant step: the loop is vectorised
                clipped += _cast_row(w, row, low, high, target, 1)
            else:
                clipped += _cast_row(w, row, low, high, target, channels)
    return clipped


@kernel(int64, readable(3), int64, writable(3, uint8))
def _cast_to_uint8(planes, left, out):
    return _cast_planes(planes, left, np.float32(0), np.float32(255), out)


@kernel(int64, readable(3), int64, writable(3, uint16))
def _cast_to_uint16(planes, left, out):
    return _cast_planes(planes, left, np.float32(0), np.float32(65535), out)


@kernel(int64, readable(3), int64, writable(3, int16))
def _cast_to_int16(planes, left, out):
    return _cast_planes(planes, left, np.float32(-32768), np.float32(32767), out)


_CASTS = {
    np.dtype(np.uint8): _cast_to_uint8,
    np.dtype(np.uint16): _cast_to_uint16,
    np.dtype(np.int16): _cast_to_int16,
}
"""Compiled casts of the usual camera dtypes; others go through `cast_frames`."""


class FrameRegistration:
    """Applies motion to the raw frames of one block.

    Parameters
    ----------
    fill : numpy.ndarray
        ``(H, W, C)`` values for pixels that come from outside the frame, the raw reference.
    interpolation : {"cubic", "linear", "nearest"}
        Interpolation.
    then : numpy.ndarray, optional
        ``(H, W, 2)`` displacement behind which each motion is chained: at a pixel ``p`` the sum is
        ``then(p) + motion(p + then(p))``, linearly interpolated, and NaN where ``p + then(p)`` is
        outside.

    Raises
    ------
    InputError
        When the interpolation is not known.

    Examples
    --------
    >>> import numpy as np
    >>> frame = np.arange(300.0, dtype=np.float32).reshape(15, 20, 1)
    >>> registration = FrameRegistration(frame, "cubic")
    >>> registration.set_motion(np.zeros((15, 20, 2), np.float32))
    >>> bool(np.allclose(registration.warp(frame), frame))
    True
    """

    def __init__(
        self,
        fill: NDArray[Any],
        interpolation: Interpolation,
        then: NDArray[Any] | None = None,
    ) -> None:
        check_interpolation(interpolation)
        self._interpolation = interpolation
        self._shape = fill.shape
        self._fill = self._padded_fill(fill)
        self._flow = np.empty(0, np.float32)
        self._then: NDArray[np.float32] | None = None
        if then is not None:
            self._then = np.empty((2, *self._fill.shape[1:]), np.float32)
            planes = np.require(np.moveaxis(then, -1, 0), np.float32, ["C", "A"])
            pad_replicate(planes, *_BORDER, self._then)
            self._nowhere = np.full_like(self._then, np.nan)

    def _padded_fill(self, fill: NDArray[Any]) -> NDArray[np.float32]:
        height, width, channels = self._shape
        planes = np.require(np.moveaxis(fill, -1, 0), np.float32, ["C", "A"])
        out = np.empty((channels, height, width + 2 * COLUMN_BORDER), np.float32)
        pad_replicate(planes, *_BORDER, out)
        return out

    def set_motion(self, motion: NDArray[np.float32]) -> None:
        """Bring the displacement of a frame to full resolution for the calls that follow.

        Parameters
        ----------
        motion : numpy.ndarray
            ``(h, w, 2)`` float32 displacement in full-resolution pixels, on any grid.
        """
        height, width, _ = self._shape
        planes = scratch("motion planes", (2, *motion.shape[:2]))
        planes[0], planes[1] = motion[..., 0], motion[..., 1]
        self._flow = resize_planes(
            planes,
            full_resolution_tables(motion.shape[:2], (height, width)),
            border=_BORDER,
            out=scratch("full flow", (2, height, width + 2 * COLUMN_BORDER)),
        )
        if self._then is not None:
            self._flow = self._chained(self._flow, self._then)

    def _chained(self, flow: NDArray[np.float32], then: NDArray[np.float32]) -> NDArray[np.float32]:
        _, height, columns = flow.shape
        source = scratch("chained source", (2, height + 2 * SOURCE_ROWS, columns))
        source[:, SOURCE_ROWS:-SOURCE_ROWS] = flow
        replicate_border(source, SOURCE_ROWS, SOURCE_COLUMNS)
        moved = warp_planes(
            source,
            then,
            self._nowhere,
            flow_border=_BORDER,
            border=_BORDER,
            interpolation="linear",
            out=scratch("chained flow", flow.shape),
        )
        moved += then
        return moved

    def warp(
        self, frame: NDArray[Any], fill: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Resample a frame; the result is valid until the next call.

        Parameters
        ----------
        frame : numpy.ndarray
            ``(H, W, C)``, any real dtype.
        fill : numpy.ndarray, optional
            ``(H, W, C)`` other values for pixels from outside.

        Returns
        -------
        numpy.ndarray
            ``(H, W, C)`` float32 view.
        """
        return np.moveaxis(pixels(self._warped(frame, fill), 0), 0, -1)

    def _warped(
        self, frame: NDArray[Any], fill: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        height, width, channels = self._shape
        rows, columns = height + 2 * SOURCE_ROWS, width + 2 * SOURCE_COLUMNS
        source = scratch("warp source", (channels, rows, columns))
        for c in range(channels):
            block = source[c, SOURCE_ROWS:-SOURCE_ROWS, SOURCE_COLUMNS:-SOURCE_COLUMNS]
            block[:] = frame[..., c]
        replicate_border(source, SOURCE_ROWS, SOURCE_COLUMNS)
        return warp_planes(
            source,
            self._flow,
            self._fill if fill is None else self._padded_fill(fill),
            flow_border=_BORDER,
            border=_BORDER,
            interpolation=self._interpolation,
            out=scratch("warped frame", self._fill.shape),
        )

    def register(
        self, frame: NDArray[Any], out: NDArray[Any], total: NDArray[np.float64] | None = None
    ) -> int:
        """Resample a raw frame into an array of the output dtype, see `cast_frames`.

        Parameters
        ----------
        frame : numpy.ndarray
            ``(H, W, C)``, any real dtype.
        out : numpy.ndarray
            ``(H, W, C)``, written.
        total : numpy.ndarray, optional
            ``(H, W, C)`` float64, to which the values before the cast are added.

        Returns
        -------
        int
            Number of values that were clipped to the range of the dtype.
        """
        planes = self._warped(frame)
        values = np.moveaxis(pixels(planes, 0), 0, -1)
        if total is not None:
            total += values
        cast = _CASTS.get(out.dtype)
        if cast is not None and out.flags.c_contiguous:
            return int(cast(planes, COLUMN_BORDER, out))
        out[...], clipped = cast_frames(values, out.dtype)
        return clipped

    def valid(self, out: NDArray[np.bool_]) -> None:
        """Write where the registered frame shows what is inside the raw frame.

        Parameters
        ----------
        out : numpy.ndarray
            ``(H, W)`` bool, C-contiguous.
        """
        _inside(self._flow, COLUMN_BORDER, _numbers(out.shape[1]), out.view(np.uint8))

    def statistics(self) -> FlowStatistics:
        """Summarise the displacement, see `flow_statistics`.

        Returns
        -------
        FlowStatistics
            Of the full-resolution displacement.
        """
        return planar_flow_statistics(self._flow, COLUMN_BORDER)

    def flow(self) -> NDArray[np.float32]:
        """Return the full-resolution displacement.

        Returns
        -------
        numpy.ndarray
            ``(H, W, 2)`` float32, a copy.
        """
        return np.ascontiguousarray(np.moveaxis(pixels(self._flow, 0), 0, -1))
