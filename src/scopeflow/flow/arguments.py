"""Images and weights that callers give to the flow: finite, and of the shape that is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, OptionsError
from scopeflow.strict.values import check_fields, is_sequence, number_array


def check_finite(values: NDArray[Any], what: str) -> None:
    """Refuse images with NaN or infinite values.

    Raises
    ------
    InputError
        Says how many values of `what` are not finite.
    """
    # One sum is several times faster than testing every value, and NaN and infinity survive it.
    with np.errstate(invalid="ignore", over="ignore"):
        total = float(values.sum(dtype=np.float64))
    if math.isfinite(total):
        return
    bad = int(values.size - np.count_nonzero(np.isfinite(values)))
    if bad:
        raise InputError(
            f"{what} holds {bad} values that are NaN or infinite; motion needs finite values. "
            "Replace or mask them first."
        )


def weight_values(value: Any) -> NDArray[np.float64] | None:
    """Check a weight: numbers ``(n,)`` of channels, or a map ``(H, W)`` or ``(H, W, C)``.

    A single number is one of a channel; true counts as 1, for masks. None counts all alike.
    """
    if value is None:
        return None
    try:
        weights = number_array(value if is_sequence(value) else [value], "biuf")
    except (TypeError, ValueError):
        raise ValueError("weight must be numbers: one a channel, or a map of pixels") from None
    if weights.ndim > 3:
        raise ValueError("weight must be 1-D (channels), 2-D (H, W) or 3-D (H, W, C)")
    if weights.size == 0 or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError("weight must hold finite numbers that are not negative")
    if weights.max() == 0:
        raise ValueError("weight must be positive somewhere, or no channel counts")
    return weights


def channel_weights(
    weight: Any, shape: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Resolve the weight of each channel, and of each pixel where a map is given.

    Parameters
    ----------
    weight : array_like or None
        None: equal weights. One number per channel: missing ones are ``1 / C``, surplus ones are
        dropped, then all are divided by their sum. ``(H, W)``: the same map for every channel.
        ``(H, W, C)``: used as it is.
    shape : tuple of int
        ``(H, W, C)`` of the frames.

    Returns
    -------
    weights : numpy.ndarray
        ``(C,)`` float32.
    maps : numpy.ndarray or None
        ``(C, H, W)`` float32 factors.

    Raises
    ------
    OptionsError
        When the shape does not fit, or values are negative, not finite, or all zero.

    Examples
    --------
    >>> channel_weights([3.0, 1.0], (16, 16, 2))[0].tolist()
    [0.75, 0.25]
    """
    channels = shape[2]
    values = check_fields({"weight": weight_values}, {"weight": weight})["weight"]
    if values is None:
        return np.full(channels, 1.0 / channels, np.float32), None
    if values.ndim == 1:
        full = np.array(_of_channels(values, channels))
        return (full / full.sum()).astype(np.float32), None
    _need_frame_shape(values, shape)
    if values.ndim == 2:
        values = np.broadcast_to(values[..., None], shape)
    if values.shape[2] != channels:
        raise OptionsError(
            f"weight is a map of {values.shape[2]} channel(s), frames have {channels}. Give a map "
            "(H, W), a map (H, W, C), or one number a channel"
        )
    maps = np.ascontiguousarray(np.moveaxis(values, -1, 0), np.float32)
    return np.ones(channels, np.float32), maps


def pixel_weights(weight: Any, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Weights ``(H, W, C)`` of every pixel and channel, as options mean them: see `weight_at`.

    Raises OptionsError: when a map has another frame size, or no channel of the frames counts.
    """
    if isinstance(weight, np.ndarray):
        _need_frame_shape(weight, shape)
    result = np.empty(shape, dtype=np.float64)
    for channel in range(shape[2]):
        result[..., channel] = weight_at(weight, channel, shape[2])
    if not result.any():
        raise _no_channel_counts(f"of shape {np.shape(weight)}", shape[2])
    return result


def weight_at(
    weight: Sequence[float] | NDArray[Any] | None, channel: int, n_channels: int
) -> float | NDArray[np.float64]:
    """Weight of one channel, a number or a map ``(H, W)``, for numbers whose sum is 1.

    Numbers for fewer channels than there are leave ``1 / n_channels`` to the others; for more, the
    first ones are scaled to sum 1. A map ``(H, W)`` is that of the first channel.
    """
    if n_channels < 1:
        raise OptionsError(f"n_channels is {n_channels}; a recording has at least one channel")
    if weight is None:
        return 1.0 / n_channels
    if not isinstance(weight, np.ndarray):
        kept = _of_channels(weight, n_channels)
        return kept[channel] / (sum(kept) if len(weight) > n_channels else 1.0)
    own = weight if weight.ndim == 2 and channel == 0 else None
    if weight.ndim == 3 and channel < weight.shape[2]:
        own = weight[:, :, channel]
    return np.full(weight.shape[:2], 1.0 / n_channels) if own is None else own.copy()


def _of_channels(numbers: Sequence[float] | NDArray[Any], n_channels: int) -> list[float]:
    kept = [float(number) for number in numbers[:n_channels]]
    full = kept + [1.0 / n_channels] * (n_channels - len(kept))
    if not any(full):
        raise _no_channel_counts(str([float(number) for number in numbers]), n_channels)
    return full


def _no_channel_counts(given: str, n_channels: int) -> OptionsError:
    return OptionsError(
        f"weight {given} is 0 for all {n_channels} channel(s) of the recording. "
        "Give each channel that counts a positive weight"
    )


def _need_frame_shape(weight: NDArray[Any], shape: tuple[int, int, int]) -> None:
    if weight.shape[:2] != shape[:2]:
        raise OptionsError(
            f"weight is a map of {weight.shape[0]} x {weight.shape[1]} pixels, frames have "
            f"{shape[0]} x {shape[1]}. Give a map of the frame's size (after channel and frame "
            "selection), or one number a channel"
        )
