"""Pixels of any type as 16-bit counts: what fits, is refused, or is scaled; writes nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError
from scopeflow.io.read.protocol import Source

__all__ = ["check_pixels", "count_factors", "to_counts"]

logger = logging.getLogger(__name__)

_LARGEST = 65535
_FITTING = (np.dtype(np.uint16), np.dtype(np.uint8), np.dtype(bool))

Blocks = Sequence[tuple[int, int]]


def to_counts(
    frames: NDArray[Any], convert: str, where: str, factor: float = 1.0
) -> tuple[NDArray[np.uint16], int]:
    """Return pixels as uint16 and how many were clipped or rounded.

    `convert` is explained in :class:`~scopeflow.cells.config.ProcessingParams`, `factor` is that of
    ``scale``; `where` is what the pixels are of, for messages.

    Raises InputError: if pixels are no integers from 0 to 65535 and ``convert`` is ``"exact"``.

    Examples
    --------
    >>> to_counts(np.array([[-3.0, 1.5, 7.0]]), "clip", "test")
    (array([[0, 2, 7]], dtype=uint16), 2)
    >>> to_counts(np.array([[0.5, 0.25]]), "scale", "test", 65534.0)[0].tolist()
    [[32767, 16384]]
    """
    if frames.dtype in _FITTING:
        return frames.astype(np.uint16), 0
    if convert == "scale":
        frames = frames.astype(np.float64) * factor
    rounded = np.clip(np.nan_to_num(np.rint(frames)), 0, _LARGEST).astype(np.uint16)
    if convert == "scale":  # rounding is what was asked for
        return rounded, 0
    changed = int(np.count_nonzero(rounded != frames))
    if changed and convert != "clip":
        raise InputError(
            f"{where}: {changed} pixels of type {frames.dtype} are no integers from 0 to {_LARGEST}"
            f" (values {np.nanmin(frames):g} to {np.nanmax(frames):g}). Scale the recording to "
            "counts, set convert=scale, or set convert=clip to round and clip them"
        )
    return rounded, changed


def check_pixels(source: Source, channels: Iterable[int], blocks: Blocks, convert: str) -> None:
    """Refuse pixels that 16-bit counts cannot hold; integers of other types are looked at.

    Nothing is refused here unless `convert` is ``exact``; `blocks` of frames are looked at
    together.

    Raises InputError: naming the recording, channel, frames and values.
    """
    if convert != "exact" or source.dtype in _FITTING:
        return
    if source.dtype.kind == "f":
        raise InputError(
            f"{source.description}: pixels are {source.dtype}, and images are stored as integer "
            "counts from 0 to 65535. Scale the recording to counts, or set params.convert=scale "
            "to multiply each channel by one factor, or params.convert=clip to round and clip"
        )
    for start, stop, channel, low, high in _extremes(source, channels, blocks):
        if low < 0 or high > _LARGEST:
            raise InputError(
                f"{source.description}, channel {channel}: frames {start} to {stop - 1} hold "
                f"values from {low:g} to {high:g}, and counts are 0 to {_LARGEST}. Scale the "
                "recording, or set params.convert=clip to clip them, or params.convert=scale to "
                "multiply each channel by one factor"
            )


def count_factors(
    sources: Sequence[Source], channels: Iterable[int], blocks_of: Callable[[Source], Blocks]
) -> tuple[tuple[int, float], ...]:
    """Return the factor of each channel that makes its largest value 65535; reads all frames.

    All fields of view count, so that a factor does not depend on which of them are processed.

    Channels whose values are counts already are left out.

    Raises InputError: for negative and for infinite or missing values, which no factor makes
        counts.
    """
    highest: dict[int, float] = {}
    for source in sources:
        if source.dtype in _FITTING:
            continue
        present = [channel for channel in sorted(set(channels)) if channel < source.shape[3]]
        for start, stop, channel, low, high in _extremes(source, present, blocks_of(source)):
            if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
                raise InputError(
                    f"{source.description}, channel {channel}: frames {start} to {stop - 1} hold "
                    f"values from {low:g} to {high:g}, and params.convert=scale needs numbers from "
                    "0. Subtract the offset or repair the frames first, or set params.convert=clip"
                )
            if high > highest.get(channel, 0) and (source.dtype.kind == "f" or high > _LARGEST):
                highest[channel] = high
    factors = {channel: _LARGEST / high for channel, high in sorted(highest.items())}
    for channel, factor in factors.items():
        logger.warning("channel %d: counts are the recorded values × %.6g", channel, factor)
    return tuple(factors.items())


def _extremes(
    source: Source, channels: Iterable[int], blocks: Blocks
) -> Iterator[tuple[int, int, int, float, float]]:
    for start, stop in blocks:
        frames = source.read(start, stop)
        for channel in sorted(set(channels)):
            values = frames[..., channel]
            yield start, stop, channel, float(values.min()), float(values.max())
