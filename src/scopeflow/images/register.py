"""Registration of raw frames: full-resolution flow, warp, cast, valid mask and statistics.

All steps work on planes in memory that the calling thread keeps, so that nothing is allocated
while a recording is processed. Results are those of `warp.warp`, `warp.cast_frames`,
`warp.valid_mask` and `statistics.flow_statistics`. `FrameRegistration.apply` takes all steps as one
recorded sequence: threads that work side by side then meet at Python's lock once in a frame.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.bands import COLUMN_BORDER, pixels
from scopeflow.compiled.gateway import (
    float64,
    inner,
    int16,
    int64,
    kernel,
    nothing,
    readable,
    uint8,
    uint16,
    writable,
)
from scopeflow.compiled.intrinsics import disjoint, pointer, round_half_even
from scopeflow.compiled.scratch import scratch
from scopeflow.compiled.sequence import repeated
from scopeflow.images.borders import (
    add_pixels,
    as_planes,
    pad_replicate,
    replicate_border,
    replicate_edges,
)
from scopeflow.images.interpolation import Interpolation
from scopeflow.images.resize import full_resolution_tables, resize_planes
from scopeflow.images.statistics import (
    FlowStatistics,
    measure_planar_flow,
    planar_flow_statistics,
)
from scopeflow.images.warp import (
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


@functools.lru_cache(maxsize=16)
def _nowhere(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Planes of NaN: what a chain of displacements has beyond the image."""
    planes = np.full(shape, np.nan, np.float32)
    planes.flags.writeable = False
    return planes


@inner
def _to_float_row(n, values, step, out):
    disjoint()
    for x in range(n):
        out[x] = np.float32(values[x * step])


@inner
def _to_source(frame, rows, columns, out):
    """Split a frame into float32 planes with ``rows`` and ``columns`` of repeated edge."""
    h, w, channels = frame.shape
    for c in range(channels):
        for y in range(h):
            target = pointer(out, (c * out.shape[1] + rows + y) * out.shape[2] + columns)
            if channels == 1:  # a constant step: the loop is vectorised
                _to_float_row(w, pointer(frame, y * w), 1, target)
            else:
                _to_float_row(w, pointer(frame, y * w * channels + c), channels, target)
        replicate_edges(out[c], rows, columns, h, w)


@kernel(nothing, readable(3, uint8), int64, int64, writable(3))
def _uint8_to_source(frame, rows, columns, out):
    _to_source(frame, rows, columns, out)


@kernel(nothing, readable(3, uint16), int64, int64, writable(3))
def _uint16_to_source(frame, rows, columns, out):
    _to_source(frame, rows, columns, out)


@kernel(nothing, readable(3, int16), int64, int64, writable(3))
def _int16_to_source(frame, rows, columns, out):
    _to_source(frame, rows, columns, out)


@kernel(nothing, readable(3), int64, int64, writable(3))
def _float32_to_source(frame, rows, columns, out):
    _to_source(frame, rows, columns, out)


_TO_SOURCE = {
    np.dtype(np.uint8): _uint8_to_source,
    np.dtype(np.uint16): _uint16_to_source,
    np.dtype(np.int16): _int16_to_source,
    np.dtype(np.float32): _float32_to_source,
}
"""Compiled copies of frames of the usual camera dtypes; others are copied by numpy."""


@kernel(nothing, readable(3), int64, writable(3, float64))
def _add_to_total(planes, left, total):
    h, w, channels = total.shape
    for y in range(h):
        for x in range(w):
            for c in range(channels):
                total[y, x, c] += planes[c, y, left + x]


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
def _cast_planes(planes, left, low, high, out, clipped):
    """Round and clip planes to an integer dtype of at most 16 bits, channels last, and count."""
    h, w, channels = out.shape
    count = 0
    for c in range(channels):
        for y in range(h):
            row = pointer(planes, (c * h + y) * planes.shape[2] + left)
            target = pointer(out, y * w * channels + c)
            if channels == 1:  # a constant step: the loop is vectorised
                count += _cast_row(w, row, low, high, target, 1)
            else:
                count += _cast_row(w, row, low, high, target, channels)
    clipped[0] = count


@kernel(nothing, readable(3), int64, writable(3, uint8), writable(1, int64))
def _cast_to_uint8(planes, left, out, clipped):
    _cast_planes(planes, left, np.float32(0), np.float32(255), out, clipped)


@kernel(nothing, readable(3), int64, writable(3, uint16), writable(1, int64))
def _cast_to_uint16(planes, left, out, clipped):
    _cast_planes(planes, left, np.float32(0), np.float32(65535), out, clipped)


@kernel(nothing, readable(3), int64, writable(3, int16), writable(1, int64))
def _cast_to_int16(planes, left, out, clipped):
    _cast_planes(planes, left, np.float32(-32768), np.float32(32767), out, clipped)


_CASTS = {
    np.dtype(np.uint8): _cast_to_uint8,
    np.dtype(np.uint16): _cast_to_uint16,
    np.dtype(np.int16): _cast_to_int16,
}
"""Compiled casts of the usual camera dtypes; others go through `cast_frames`."""


def _full_flow(
    planes: NDArray[np.float32], shape: tuple[int, ...], then: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Bring planes of motion to full resolution with columns of border, and chain them."""
    height, columns = shape
    size = (height, columns - 2 * COLUMN_BORDER)
    flow = resize_planes(
        planes,
        full_resolution_tables(planes.shape[1:], size),
        border=_BORDER,
        out=scratch("full flow", (2, height, columns)),
    )
    if then is None:
        return flow
    source = scratch("chained source", (2, height + 2 * SOURCE_ROWS, columns))
    pad_replicate(flow, SOURCE_ROWS, 0, source)
    chained = warp_planes(
        source,
        then,
        _nowhere(flow.shape),
        flow_border=_BORDER,
        border=_BORDER,
        interpolation="linear",
        out=scratch("chained flow", flow.shape),
    )
    add_pixels(chained, then, 0, 0, chained)
    return chained


def _warped(
    frame: NDArray[Any],
    flow: NDArray[np.float32],
    fill: NDArray[np.float32],
    interpolation: Interpolation,
) -> NDArray[np.float32]:
    """Resample a frame as planes with columns of border."""
    height, width, channels = frame.shape
    rows, columns = height + 2 * SOURCE_ROWS, width + 2 * SOURCE_COLUMNS
    source = scratch("warp source", (channels, rows, columns))
    compiled = _TO_SOURCE.get(frame.dtype) if frame.flags.c_contiguous else None
    if compiled is not None:
        compiled(frame, SOURCE_ROWS, SOURCE_COLUMNS, source)
    else:
        for c in range(channels):
            block = source[c, SOURCE_ROWS:-SOURCE_ROWS, SOURCE_COLUMNS:-SOURCE_COLUMNS]
            block[:] = frame[..., c]
        replicate_border(source, SOURCE_ROWS, SOURCE_COLUMNS)
    return warp_planes(
        source,
        flow,
        fill,
        flow_border=_BORDER,
        border=_BORDER,
        interpolation=interpolation,
        out=scratch("warped frame", fill.shape),
    )


def _cast(planes: NDArray[np.float32], out: NDArray[Any]) -> NDArray[np.int64]:
    """Round and clip planes to the dtype of `out`; return the number of clipped values."""
    count = scratch("clipped values", (2,)).view(np.int64)
    _CASTS[out.dtype](planes, COLUMN_BORDER, out, count)
    return count


def _registration(
    interpolation: Interpolation,
    planes: NDArray[np.float32],
    frame: NDArray[Any],
    out: NDArray[Any],
    fill: NDArray[np.float32],
    then: NDArray[np.float32] | None = None,
    valid: NDArray[np.uint8] | None = None,
    total: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64] | None]:
    """All of `FrameRegistration.apply`, by kernels alone: flow, clipped values, statistics."""
    flow = _full_flow(planes, fill.shape[1:], then)
    warped = _warped(frame, flow, fill, interpolation)
    if total is not None:
        _add_to_total(warped, COLUMN_BORDER, total)
    count = _cast(warped, out)
    if valid is not None:
        _inside(flow, COLUMN_BORDER, _numbers(valid.shape[1]), valid)
    # A chain is not measured: it has no displacement where its first part leads outside.
    return flow, count, measure_planar_flow(flow, COLUMN_BORDER) if then is None else None


@functools.lru_cache(maxsize=8)
def _owner(kind: Hashable) -> object:
    """To whom the recorded sequence of a kind of registration belongs; the last few are kept."""
    return kind, object()


class FrameRegistration:
    """Applies motion to the raw frames of one block.

    `fill`: ``(H, W, C)`` values for pixels that come from outside the frame, the raw reference.
    `interpolation`: ``{"cubic", "linear", "nearest"}``, interpolation.
    `then`: ``(H, W, 2)`` displacement behind which each motion is chained: at a pixel ``p`` the sum
        is ``then(p) + motion(p + then(p))``, linearly interpolated, and NaN where ``p + then(p)``
        is outside.
    Raises InputError: when the interpolation is not known.

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
        self._statistics: FlowStatistics | None = None  # of the motion that is set
        self._then: NDArray[np.float32] | None = None
        if then is not None:
            self._then = np.empty((2, *self._fill.shape[1:]), np.float32)
            pad_replicate(as_planes(then), *_BORDER, self._then)

    def _padded_fill(self, fill: NDArray[Any]) -> NDArray[np.float32]:
        height, width, channels = self._shape
        out = np.empty((channels, height, width + 2 * COLUMN_BORDER), np.float32)
        pad_replicate(as_planes(fill), *_BORDER, out)
        return out

    def apply(
        self,
        motion: NDArray[np.float32],
        frame: NDArray[Any],
        out: NDArray[Any],
        *,
        valid: NDArray[np.bool_] | None = None,
        total: NDArray[np.float64] | None = None,
    ) -> int:
        """Set the motion of a frame, register it and write the mask, all in one.

        Returns: number of values that were clipped to the range of the dtype.
        """
        compiled = frame.dtype in _TO_SOURCE and out.dtype in _CASTS
        readable = frame.flags.c_contiguous and frame.flags.aligned
        written = [one for one in (out, valid, total) if one is not None]
        if not (compiled and readable and all(one.flags.carray for one in written)):
            self.set_motion(motion)
            if valid is not None:
                self.valid(valid)
            return self.register(frame, out, total)
        given: dict[str, NDArray[Any] | None] = {
            "planes": as_planes(motion),
            "frame": frame,
            "out": out,
            "fill": self._fill,
            "then": self._then,
            "valid": None if valid is None else valid.view(np.uint8),
            "total": total,
        }
        inputs = {name: array for name, array in given.items() if array is not None}
        key = tuple((name, array.shape, array.dtype.str) for name, array in inputs.items())
        interpolation = self._interpolation

        def run(*arrays: NDArray[Any]) -> Any:
            return _registration(interpolation, **dict(zip(inputs, arrays, strict=True)))

        self._flow, count, numbers = repeated(
            _owner((interpolation, key)), key, run, list(inputs.values())
        )
        self._statistics = None if numbers is None else FlowStatistics(*numbers.tolist())
        return int(count[0])

    def set_motion(self, motion: NDArray[np.float32]) -> None:
        """Bring the displacement of a frame to full resolution for the calls that follow.

        `motion`: ``(h, w, 2)`` float32 displacement in full-resolution pixels, on any grid.
        """
        self._flow = _full_flow(as_planes(motion), self._fill.shape[1:], self._then)
        self._statistics = None

    def warp(
        self, frame: NDArray[Any], fill: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Resample a frame; the result is valid until the next call.

        `frame`: ``(H, W, C)``, any real dtype.
        `fill`: ``(H, W, C)`` other values for pixels from outside.
        Returns: ``(H, W, C)`` float32 view.
        """
        return np.moveaxis(pixels(self._warped(frame, fill), 0), 0, -1)

    def _warped(
        self, frame: NDArray[Any], fill: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        fill = self._fill if fill is None else self._padded_fill(fill)
        return _warped(frame, self._flow, fill, self._interpolation)

    def register(
        self, frame: NDArray[Any], out: NDArray[Any], total: NDArray[np.float64] | None = None
    ) -> int:
        """Resample a raw frame into an array of the output dtype, see `cast_frames`.

        `frame`: ``(H, W, C)``, any real dtype.
        `out`: ``(H, W, C)``, written.
        `total`: ``(H, W, C)`` float64, to which the values before the cast are added.
        Returns: number of values that were clipped to the range of the dtype.
        """
        planes = self._warped(frame)
        values = np.moveaxis(pixels(planes, 0), 0, -1)
        if total is not None:
            total += values
        if out.dtype in _CASTS and out.flags.c_contiguous:
            return int(_cast(planes, out)[0])
        out[...], clipped = cast_frames(values, out.dtype)
        return clipped

    def valid(self, out: NDArray[np.bool_]) -> None:
        """Write where the registered frame shows what is inside the raw frame.

        `out`: ``(H, W)`` bool, C-contiguous.
        """
        _inside(self._flow, COLUMN_BORDER, _numbers(out.shape[1]), out.view(np.uint8))

    def statistics(self) -> FlowStatistics:
        """Summarise the displacement, see `flow_statistics`."""
        if self._statistics is None:
            self._statistics = planar_flow_statistics(self._flow, COLUMN_BORDER)
        return self._statistics

    def flow(self) -> NDArray[np.float32]:
        """Return the full-resolution displacement.

        Returns: ``(H, W, 2)`` float32, a copy.
        """
        return np.ascontiguousarray(np.moveaxis(pixels(self._flow, 0), 0, -1))
