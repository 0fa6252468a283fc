"""Backward warp of one frame, its valid mask, and the cast of results to the output dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.bands import COLUMN_BORDER, pixels
from scopeflow.compiled.gateway import float32, inner, int64, kernel, nothing, readable, writable
from scopeflow.compiled.intrinsics import pointer, round_down, round_half_even
from scopeflow.compiled.scratch import scratch
from scopeflow.compiled.simd import (
    LANES,
    equal_lanes,
    lane_numbers,
    load,
    lowest_bit,
    splat,
    store,
    where_equal,
    where_less,
)
from scopeflow.errors import InputError, nearest_name
from scopeflow.images.borders import as_planes, pad_replicate, replicate_edges
from scopeflow.images.interpolation import Interpolation

INTERPOLATION_CODES: dict[str, int] = {"nearest": 0, "linear": 1, "cubic": 2}

# Border of the source of a warp: taps reach one pixel before and two after the clipped position,
# and whole vectors as far as `LANES` columns beyond the last pixel.
SOURCE_ROWS, SOURCE_COLUMNS = 2, COLUMN_BORDER

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_POSITION_STEPS = np.float32(32.0)  # per pixel, when positions are rounded as OpenCV 4 does
_A = np.float32(-0.75)  # parameter of the cubic convolution (Keys 1981)
_A2 = np.float32(-0.75 + 2)
_A3 = np.float32(-(-0.75 + 3))
_5A = np.float32(-5 * -0.75)
_8A = np.float32(8 * -0.75)
_4A = np.float32(-4 * -0.75)
_NEAREST, _LINEAR, _CUBIC = range(3)
_ALL_LANES = (1 << LANES) - 1


@inner(inlined=True)
def _cubic_weights(t):
    """Weights of four neighbours for a fraction in ``[0, 1)``."""
    far, back = t + _ONE, _ONE - t
    a = ((_A * far + _5A) * far + _8A) * far + _4A
    b = (_A2 * t + _A3) * t * t + _ONE
    c = (_A2 * back + _A3) * back * back + _ONE
    return a, b, c, _ONE - a - b - c


@inner(inlined=True)
def _cubic_line(source, q, a, b, c, d):
    return (a * load(source, q - 1) + b * load(source, q)) + (
        c * load(source, q + 1) + d * load(source, q + 2)
    )


@inner(inlined=True)
def _interpolate(code, source, q, stride, fraction_x, fraction_y):
    """Values at the same fraction-free offset ``q`` from all lanes."""
    if code == _CUBIC:
        a, b, c, d = _cubic_weights(fraction_x)
        e, f, g, h = _cubic_weights(fraction_y)
        upper = e * _cubic_line(source, q - stride, a, b, c, d) + f * _cubic_line(
            source, q, a, b, c, d
        )
        lower = g * _cubic_line(source, q + stride, a, b, c, d) + h * _cubic_line(
            source, q + 2 * stride, a, b, c, d
        )
        return upper + lower
    if code == _LINEAR:
        back_x = _ONE - fraction_x
        upper = back_x * load(source, q) + fraction_x * load(source, q + 1)
        lower = back_x * load(source, q + stride) + fraction_x * load(source, q + stride + 1)
        return (_ONE - fraction_y) * upper + fraction_y * lower
    return load(source, q)


@kernel(
    nothing,
    readable(3),  # source: planes with SOURCE_ROWS and SOURCE_COLUMNS of replicated edge around
    readable(3),  # flow: planes (2, h, w) with a border
    int64,  # flow_top: rows of that border on each side
    int64,  # flow_left: columns of it, at least LANES
    float32,  # to_cols: level pixels per unit of u
    float32,  # to_rows: level pixels per unit of v
    readable(3),  # fill: planes (C, h, w) with the border of out
    int64,  # code of the interpolation
    int64,  # rounded: 1 rounds positions to 1/32 px
    int64,  # top: rows of replicated edge above and below the result in out and fill
    int64,  # left: columns of replicated edge on either side, at least LANES
    writable(3),  # out: planes (C, h + 2 top, w + 2 left)
    writable(1),  # offsets: scratch, 2 LANES elements
)
def _warp_planes(
    source, flow, flow_top, flow_left, to_cols, to_rows, fill, code, rounded, top, left, out,
    offsets,
):  # fmt: skip
    """Resample whole vectors of pixels.

    Flow is smooth, so that the pixels of a vector mostly move by the same whole number of pixels:
    their neighbours then lie side by side, and 16 loads serve all lanes (a sixth of the time of
    one pixel after the other). Lanes that move differently take another turn.
    """
    channels = source.shape[0]
    h, w = source.shape[1] - 2 * SOURCE_ROWS, source.shape[2] - 2 * SOURCE_COLUMNS
    stride, flow_stride = source.shape[2], flow.shape[2]
    u, v = pointer(flow, 0), pointer(flow, flow.shape[1] * flow_stride)
    seen = pointer(offsets, 0)
    zero = splat(_ZERO)
    width, height = splat(np.float32(w)), splat(np.float32(h))
    last_x, last_y = splat(np.float32(w - 1)), splat(np.float32(h - 1))
    for y in range(h):
        start = (y + flow_top) * flow_stride + flow_left
        for x in range(0, w, LANES):
            column = splat(np.float32(x)) + lane_numbers()
            px = column + load(u, start + x) * to_cols
            py = splat(np.float32(y)) + load(v, start + x) * to_rows
            # Written so that NaN is outside, and is clipped to 0 rather than used as an address.
            inside = where_less(px, width, where_less(py, height, splat(_ONE), zero), zero)
            inside = where_less(px, zero, zero, where_less(py, zero, zero, inside))
            px = min(max(px, zero), last_x)
            py = min(max(py, zero), last_y)
            if rounded != 0:
                px = round_half_even(px * _POSITION_STEPS) / _POSITION_STEPS
                py = round_half_even(py * _POSITION_STEPS) / _POSITION_STEPS
            whole_x = round_half_even(px) if code == _NEAREST else round_down(px)
            whole_y = round_half_even(py) if code == _NEAREST else round_down(py)
            fraction_x, fraction_y = px - whole_x, py - whole_y
            shift_x = whole_x - column
            store(seen, 0, shift_x)
            store(seen, LANES, whole_y)
            for c in range(channels):
                plane = pointer(source, c * source.shape[1] * stride)
                place = (c * out.shape[1] + y + top) * out.shape[2] + left + x
                value = zero
                # Lanes beyond the last column are computed with the others and never looked at.
                missing = _ALL_LANES if x + LANES <= w else (1 << (w - x)) - 1
                while missing != 0:
                    lane = lowest_bit(missing)
                    move, line = seen[lane], seen[LANES + lane]
                    q = (int(line) + SOURCE_ROWS) * stride + SOURCE_COLUMNS + x + int(move)
                    found = _interpolate(code, plane, q, stride, fraction_x, fraction_y)
                    same_x, same_y = splat(move), splat(line)
                    value = where_equal(
                        shift_x, same_x, where_equal(whole_y, same_y, found, value), value
                    )
                    missing &= ~(equal_lanes(shift_x, same_x) & equal_lanes(whole_y, same_y))
                value = where_equal(inside, zero, load(pointer(fill, 0), place), value)
                store(pointer(out, 0), place, value)
    for c in range(channels):
        replicate_edges(out[c], top, left, h, w)


def warp_planes(
    source: NDArray[np.float32],
    flow: NDArray[np.float32],
    fill: NDArray[np.float32],
    *,
    h_row: float = 1.0,
    h_col: float = 1.0,
    flow_border: tuple[int, int],
    border: tuple[int, int],
    interpolation: Interpolation = "cubic",
    round_positions: bool = False,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Warp channel planes with borders; the form that the solver uses on its levels.

    `source`: ``(C, h + 2 SOURCE_ROWS, w + 2 SOURCE_COLUMNS)`` float32, the moving image with
        repeated edges around.
    `flow`: ``(2, h + 2 flow_border[0], w + 2 flow_border[1])`` float32 planes of u and v in
        full-resolution pixels.
    `fill`: ``(C, h + 2 border[0], w + 2 border[1])`` float32, used where the position is outside.
    `h_row`, `h_col`: full-resolution pixels per pixel of `source`.
    `flow_border`, `border`: rows and columns on either side of the used block of `flow`, and of
        `fill` and the result; at least `LANES` columns.
    `interpolation`: ``{"cubic", "linear", "nearest"}``, interpolation.
    `round_positions`: round positions to 1/32 px, for comparison with OpenCV 4 only.
    `out`: array of the shape of `fill`, written and returned.
    Returns: shape of `fill`, float32; the border repeats the edges.
    """
    if out is None:
        out = np.empty(fill.shape, np.float32)
    _warp_planes(
        source,
        flow,
        *flow_border,
        np.float32(1.0 / h_col),
        np.float32(1.0 / h_row),
        fill,
        INTERPOLATION_CODES[interpolation],
        int(round_positions),
        *border,
        out,
        scratch("warp offsets", (2 * LANES,)),
    )
    return out


def bordered(planes: NDArray[np.float32], border: tuple[int, int], name: str) -> NDArray[Any]:
    """Copy planes ``(C, h, w)`` to a scratch array with rows and columns of repeated edge."""
    channels, h, w = planes.shape
    out = scratch(name, (channels, h + 2 * border[0], w + 2 * border[1]))
    pad_replicate(planes, *border, out)
    return out


def check_interpolation(interpolation: str) -> None:
    """Raise an `InputError` when the name of an interpolation is not known."""
    if interpolation not in INTERPOLATION_CODES:
        known = ", ".join(sorted(INTERPOLATION_CODES))
        raise InputError(
            f"Interpolation '{interpolation}' is not known; use one of {known}."
            + nearest_name(interpolation, INTERPOLATION_CODES)
        )


def warp(
    moving: NDArray[Any],
    flow: NDArray[Any],
    fill: NDArray[Any],
    interpolation: Interpolation = "cubic",
    *,
    round_positions: bool = False,
) -> NDArray[np.float32]:
    """Resample a frame at displaced positions: ``out(y, x) = moving(y + v, x + u)``.

    Positions are exact float32. Cubic convolution uses ``a = -0.75`` on 4 × 4 pixels, nearest
    rounds half to even; borders are replicated. Where the position is left of the first or beyond
    the last pixel (``x < 0`` or ``x >= W``, rows alike), the value of `fill` is taken.

    `moving`: ``(H, W, C)``, any real dtype; computed in float32, so integers above 2**24 are
        rounded.
    `flow`: ``(H, W, 2)`` displacement in pixels; non-finite values count as outside.
    `fill`: ``(H, W, C)`` values for positions outside, usually the reference.
    `interpolation`: ``{"cubic", "linear", "nearest"}``, interpolation.
    `round_positions`: round positions to 1/32 px as OpenCV 4 does. For tests of equivalence only.
    Returns: ``(H, W, C)`` float32.
    Raises InputError: when the shapes do not agree or the interpolation is not known.

    Examples
    --------
    >>> import numpy as np
    >>> frame = np.arange(12.0).reshape(3, 4, 1)
    >>> flow = np.zeros((3, 4, 2), np.float32)
    >>> flow[..., 0] = 1
    >>> warp(frame, flow, np.full_like(frame, -1))[0, :, 0].tolist()
    [1.0, 2.0, 3.0, -1.0]
    """
    moving, flow, fill = np.asarray(moving), np.asarray(flow), np.asarray(fill)
    check_interpolation(interpolation)
    if moving.ndim != 3 or fill.shape != moving.shape or flow.shape != (*moving.shape[:2], 2):
        raise InputError(
            f"A frame {moving.shape}, displacements {flow.shape} and fill values {fill.shape} were "
            "given; the shapes (H, W, C), (H, W, 2) and (H, W, C) are needed."
        )
    border = (0, COLUMN_BORDER)
    result = warp_planes(
        bordered(as_planes(moving), (SOURCE_ROWS, SOURCE_COLUMNS), "warp source"),
        bordered(as_planes(flow), border, "warp flow"),
        bordered(as_planes(fill), border, "warp fill"),
        flow_border=border,
        border=border,
        interpolation=interpolation,
        round_positions=round_positions,
    )
    return np.ascontiguousarray(np.moveaxis(pixels(result, 0), 0, -1))


def valid_mask(flow: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which registered pixels come from inside the moving frame.

    `flow`: ``(H, W, 2)`` displacement in pixels, floating point.
    Returns: ``(H, W)`` bool; False where a displacement is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> valid_mask(np.full((1, 3, 2), [1.0, 0.0], np.float32)).tolist()
    [[True, True, False]]
    """
    flow = np.asarray(flow)
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=flow.dtype)[None, :] + flow[..., 0]
    y = np.arange(height, dtype=flow.dtype)[:, None] + flow[..., 1]
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


def warp_mask(mask: NDArray[np.bool_], flow: NDArray[Any]) -> NDArray[np.bool_]:
    """Resample a mask to the nearest pixel; False where the position is outside.

    `mask`: ``(H, W)`` bool.
    `flow`: ``(H, W, 2)`` displacement in pixels.
    Returns: ``(H, W)`` bool.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.array([[True, False, True]])
    >>> warp_mask(mask, np.full((1, 3, 2), [1.0, 0.0], np.float32)).tolist()
    [[False, True, False]]
    """
    values = np.asarray(mask, bool)[..., None]
    moved = warp(values, flow, np.zeros(values.shape, np.float32), "nearest")
    return moved[..., 0] > 0.5


def cast_frames(values: NDArray[Any], dtype: Any) -> tuple[NDArray[Any], int]:
    """Convert computed values to the dtype of the recording without wrap-around.

    Integers are rounded half to even and clipped to the range of the dtype; bool is true above
    0.5; values too large for a floating dtype are clipped to its largest. NaN cannot be an integer
    and becomes 0; it is counted as clipped.

    Parameters
    ----------
    values : numpy.ndarray
        Floating point, any shape.
    dtype : dtype
        bool, any integer or any floating dtype.

    Returns
    -------
    array : numpy.ndarray
        Same shape, the given dtype.
    clipped : int
        Number of values that were outside the range of the dtype.

    Examples
    --------
    >>> import numpy as np
    >>> cast_frames(np.array([-3.0, 0.5, 1.5, 300.0]), np.uint8)
    (array([  0,   0,   2, 255], dtype=uint8), 2)
    """
    target = np.dtype(dtype)
    values = np.asarray(values)
    if target.kind == "b":
        return values > 0.5, 0
    if target.kind == "f":
        if target.itemsize >= values.dtype.itemsize:
            return values.astype(target, copy=False), 0
        limits = np.finfo(target)
        too_large = np.isfinite(values) & (np.abs(values) > float(limits.max))
        clipped = int(np.count_nonzero(too_large))
        if clipped:
            values = np.where(too_large, np.copysign(values.dtype.type(limits.max), values), values)
        return values.astype(target), clipped
    if target.kind not in "iu":
        raise InputError(
            f"Frames cannot be written as '{target}'; use bool, an integer or a floating dtype."
        )
    bounds = np.iinfo(target)
    rounded = np.rint(values)
    low, high = float(bounds.min), float(bounds.max)
    # Floats next to the largest 32- and 64-bit integers may round beyond them: compare as float64
    # and set the bound as an integer.
    too_low = rounded < low
    too_high = rounded > high if target.itemsize < 4 else rounded.astype(np.float64) > high
    undefined = np.isnan(rounded)
    at_top = rounded.astype(np.float64) >= high if target.itemsize >= 4 else too_high
    clipped = int(np.count_nonzero(too_low) + np.count_nonzero(too_high))
    clipped += int(np.count_nonzero(undefined))
    inside = np.where(too_low | at_top | undefined, 0, rounded)
    result = inside.astype(target)
    result[too_low] = bounds.min
    result[at_top] = bounds.max
    return result, clipped
