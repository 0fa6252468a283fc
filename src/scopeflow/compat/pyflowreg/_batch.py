"""Frames of a batch in turn: displacement and registration with functions that the caller gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.images.warp import cast_frames, warp
from scopeflow.images.xcorr import rigid_shift


@dataclass(frozen=True)
class BatchArrays:
    """The arrays of one batch, all channel-last.

    Attributes
    ----------
    batch : ndarray, shape (T, H, W, C)
        Raw frames.
    processed : ndarray of float32, shape (T, H, W, C)
        The same as the solver sees them.
    reference_raw, reference_processed : ndarray of float32, shape (H, W, C)
        The reference, likewise.
    start : ndarray of float32, shape (H, W, 2)
        Initial displacement.
    registered : ndarray, shape (T, H, W, C)
        Written: registered frames.
    flow : ndarray of float32, shape (T, H, W, 2)
        Written: displacements.
    """

    batch: NDArray[Any]
    processed: NDArray[np.float32]
    reference_raw: NDArray[np.float32]
    reference_processed: NDArray[np.float32]
    start: NDArray[np.float32]
    registered: NDArray[Any]
    flow: NDArray[np.float32]


def register_batch_frames(
    arrays: BatchArrays,
    start: int,
    stop: int,
    get_displacement: Callable[..., NDArray[Any]],
    imregister: Callable[..., NDArray[Any]],
    interpolation: str,
    flow_parameters: Mapping[str, Any],
) -> None:
    """Solve and register some frames of a batch, writing into its output arrays.

    Parameters
    ----------
    arrays : BatchArrays
        The batch.
    start, stop : int
        Which of its frames.
    get_displacement : callable
        ``f(reference, moving, *, uv, **parameters) -> (H, W, 2)``.
    imregister : callable
        ``f(moving, u, v, fill, interpolation_method=...) -> (H, W, C)`` or ``(H, W)``.
    interpolation : str
        How frames are resampled.
    flow_parameters : mapping
        Arguments of `get_displacement`, and ``cc_initialization``, ``cc_hw``, ``cc_up``.
    """
    parameters = dict(flow_parameters)
    rigid = bool(parameters.pop("cc_initialization", False))
    size = parameters.pop("cc_hw", 256)
    upsampling = int(parameters.pop("cc_up", 1))
    target = (size, size) if isinstance(size, int) else tuple(size)
    for t in range(start, stop):
        moving, begin, known = arrays.processed[t], arrays.start, None
        if rigid:
            partly = warp(moving, begin, arrays.reference_processed, "linear")
            shift = rigid_shift(
                arrays.reference_processed,
                partly,
                target,
                upsampling,
                weights=parameters.get("weight"),
            )
            known = begin + np.asarray(shift, np.float32)
            moving = warp(moving, known, arrays.reference_processed, "linear")
            begin = np.zeros_like(begin)
        flow = np.asarray(
            get_displacement(arrays.reference_processed, moving, uv=begin.copy(), **parameters),
            np.float32,
        )
        arrays.flow[t] = flow if known is None else flow + known
        moved = imregister(
            arrays.batch[t],
            arrays.flow[t, ..., 0],
            arrays.flow[t, ..., 1],
            arrays.reference_raw,
            interpolation_method=interpolation,
        )
        moved = np.asarray(moved)
        moved = moved[..., None] if moved.ndim == 2 else moved
        arrays.registered[t] = cast_frames(moved, arrays.registered.dtype)[0]
