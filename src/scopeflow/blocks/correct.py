"""Motion correction of one block of frames: arrays in, arrays out; no dask, no files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.blocks.accumulate import fixed_point_mean, to_fixed_point
from scopeflow.blocks.frames import registered_frames
from scopeflow.blocks.preprocess import (
    FrameFunction,
    Normalization,
    PreprocessStage,
    RawFrames,
    non_finite_pixels,
)
from scopeflow.blocks.solve import device_method
from scopeflow.config.specs import CorrectionParameters, PreprocessParameters
from scopeflow.kernels.filters import intensity_range, preprocess_frame
from scopeflow.kernels.pyramid import motion_grid_shape
from scopeflow.kernels.temporal import temporal_radius
from scopeflow.kernels.warp import warp_mask
from scopeflow.typing import VideoTYXC

DisplacementFunction = Callable[..., NDArray[Any]]
"""``f(reference (H,W,C), moving (H,W,C), *, uv, weight) -> (H,W,2)``, given by the user."""

STATISTICS = ("mean_disp", "max_disp", "mean_div", "mean_translation")


@dataclass(frozen=True)
class Reference:
    """The image that frames are registered to, raw and as the solver sees it.

    Attributes
    ----------
    raw : ndarray of float64, shape (H, W, C)
        In units of the recording; fills pixels that move in from outside.
    processed : ndarray of float32, shape (H, W, C)
        Normalised and filtered.
    normalization : Normalization
        Range of the raw reference; frames are normalised with it.
    weight : ndarray of float32, shape (H, W, C)
        Weight of each channel in the data term.
    """

    raw: NDArray[np.float64]
    processed: NDArray[np.float32]
    normalization: Normalization
    weight: NDArray[np.float32]


@dataclass(frozen=True)
class BatchStart:
    """What a batch takes over from the batch before.

    Attributes
    ----------
    motion : ndarray of float32, shape (h, w, 2), or None
        Initial displacement on the solver's finest grid; None starts from zero.
    processed_reference : ndarray of float32, shape (H, W, C), or None
        Renewed reference; None keeps the first one.
    """

    motion: NDArray[np.float32] | None = None
    processed_reference: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class BlockRequest:
    """What to compute besides the registered frames, and with which user functions.

    Attributes
    ----------
    parameters : CorrectionParameters
        Everything that decides the numbers.
    output_dtype : str
        dtype of the registered frames.
    non_finite : {"error", "mask"}
        NaN and infinite pixels raise, or are replaced by the reference and become invalid.
    sum_registered : bool
        Also sum the registered frames (float64), for a reference.
    register : bool
        False computes displacements only: no frame is resampled.
    prefilter : PreprocessStage or None
        Extra filter while a reference is built.
    displacement_function, frame_function : callable or None
        User functions in place of the solver, and before normalisation.
    """

    parameters: CorrectionParameters
    output_dtype: str
    non_finite: str = "error"
    sum_registered: bool = False
    register: bool = True
    prefilter: PreprocessStage | None = None
    displacement_function: DisplacementFunction | None = None
    frame_function: FrameFunction | None = None

    def motion_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the grid that motion is kept on."""
        function = self.displacement_function
        if function is not None and device_method(function) is None:
            return height, width
        return motion_grid_shape((height, width), self.parameters.flow)

    @property
    def halo(self) -> int:
        """Frames on either side that temporal filters need."""
        halo = temporal_radius(self.parameters.preprocess.sigma)
        if self.prefilter is not None:
            halo += temporal_radius(self.prefilter.parameters.sigma)
        return halo


@dataclass
class BlockResult:
    """Everything that one block computes.

    Attributes
    ----------
    registered : ndarray, shape (n, H, W, C)
        Corrected frames in the output dtype.
    motion : ndarray of float32, shape (n, h, w, 2)
        Displacements on the solver's finest grid, in full-resolution pixels.
    valid : ndarray of bool, shape (n, H, W)
        True where the pixel comes from inside the raw frame.
    statistics : dict of str to ndarray of float64, shape (n,)
        Mean and largest displacement, mean divergence, mean translation.
    clipped : ndarray of int64, shape (n,)
        Values of each frame that did not fit the output dtype and were clipped.
    tail : dict of str to ndarray
        Sums that the next batch depends on; empty outside the tail of a batch.
    registered_sum : ndarray of float64, shape (H, W, C), or None
        Sum of the registered frames before the cast, if asked for.
    """

    registered: VideoTYXC
    motion: NDArray[np.float32]
    valid: NDArray[np.bool_]
    statistics: dict[str, NDArray[np.float64]]
    clipped: NDArray[np.int64]
    tail: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    registered_sum: NDArray[np.float64] | None = None


def make_reference(
    raw: NDArray[Any], preprocess: PreprocessParameters, weight: NDArray[Any]
) -> Reference:
    """Normalise and filter a raw reference image.

    Parameters
    ----------
    raw : ndarray, shape (H, W, C)
        Reference in units of the recording.
    preprocess : PreprocessParameters
        Normalisation and filter (the temporal part does not apply to one image).
    weight : ndarray, shape (C,) or (H, W, C)
        Weight of each channel in the data term.

    Returns
    -------
    Reference
        Raw and processed image with the intensity range.
    """
    raw = np.ascontiguousarray(raw, dtype=np.float64)
    low, high = intensity_range(raw, preprocess.joint_normalization)
    weight = np.ascontiguousarray(np.broadcast_to(weight, raw.shape), dtype=np.float32)
    processed = preprocess_frame(raw, low, high, preprocess.sigma)
    return Reference(raw, processed, Normalization(low, high), weight)


def start_from(reference: Reference, start: BatchStart) -> Reference:
    """Return the reference of a batch: the first one, or the one that the chain renewed."""
    if start.processed_reference is None:
        return reference
    return Reference(
        reference.raw, start.processed_reference, reference.normalization, reference.weight
    )


def correct_block(
    frames: VideoTYXC,
    *,
    read_start: int,
    start: int,
    stop: int,
    filter_limits: tuple[int, int],
    reference: Reference,
    batch_start: BatchStart,
    request: BlockRequest,
    seed_tail_start: int | None = None,
    reference_tail_start: int | None = None,
) -> BlockResult:
    """Register the frames ``[start, stop)`` of a recording to its reference.

    The result of a frame depends on that frame, its temporal neighbours, the reference, the start
    and the parameters only, never on where the block begins or ends.

    Parameters
    ----------
    frames : ndarray, shape (n_read, H, W, C)
        Raw frames from `read_start` on: the block's own and the halo of temporal filters.
    read_start, start, stop : int
        Frame numbers in the recording.
    filter_limits : tuple of int
        Frames between which temporal filters reflect: the ends of the recording or of the batch.
    reference : Reference
        Image to register to.
    batch_start : BatchStart
        Initial displacement of the batch, and its renewed reference.
    request : BlockRequest
        Parameters and what to compute.
    seed_tail_start, reference_tail_start : int, optional
        First frame whose displacement (whose preprocessed image) is summed for the next batch.

    Returns
    -------
    BlockResult
        Registered frames, motion, masks and statistics.

    Raises
    ------
    InputError
        If frames are not finite and not to be masked, or a user function returns a wrong shape.
    """
    height, width, channels = reference.raw.shape
    n_frames = stop - start
    reference = start_from(reference, batch_start)
    grid = request.motion_shape(height, width)
    not_finite = non_finite_pixels(frames, read_start, request.non_finite)
    if not_finite is not None:
        frames = np.where(not_finite[..., None], reference.raw.astype(frames.dtype), frames)
    result = BlockResult(
        registered=np.empty(
            (n_frames if request.register else 0, height, width, channels),
            dtype=request.output_dtype,
        ),
        # One plane after the other in memory, as the solver makes them and files keep them.
        motion=np.moveaxis(np.empty((n_frames, 2, *grid), dtype=np.float32), 1, -1),
        valid=np.empty((n_frames, height, width), dtype=np.bool_),
        statistics={name: np.empty(n_frames) for name in STATISTICS},
        clipped=np.zeros(n_frames, dtype=np.int64),
    )
    if request.sum_registered:
        result.registered_sum = np.zeros((height, width, channels))
    seed_from = stop if seed_tail_start is None else seed_tail_start
    renew_from = stop if reference_tail_start is None else reference_tail_start
    if seed_from < stop:
        result.tail["motion"] = np.zeros((*grid, 2), dtype=np.int64)
    if renew_from < stop:
        result.tail["reference"] = np.zeros((height, width, channels), dtype=np.int64)
    stages = [PreprocessStage(reference.normalization, request.parameters.preprocess)]
    if request.prefilter is not None:
        stages.insert(0, request.prefilter)
    raw = RawFrames(frames, read_start, filter_limits, tuple(stages), request.frame_function)
    registered = registered_frames(raw, range(start, stop), reference, batch_start, request)
    for position, frame in enumerate(registered):
        index = start + position
        result.motion[position] = frame.motion
        valid = result.valid[position]
        if request.register:
            registered_frame = result.registered[position]
            result.clipped[position] = frame.register(
                registered_frame, valid, result.registered_sum
            )
        else:
            frame.valid(valid)
        if not_finite is not None:
            result.valid[position] &= warp_mask(~not_finite[index - read_start], frame.flow())
        for name, value in zip(STATISTICS, frame.statistics(), strict=True):
            result.statistics[name][position] = value
        if index >= seed_from:
            result.tail["motion"] += to_fixed_point(frame.motion)
        if index >= renew_from:
            result.tail["reference"] += to_fixed_point(frame.moving())
    return result


def next_batch_start(
    tails: list[dict[str, NDArray[np.int64]]], seed_count: int, reference_count: int
) -> BatchStart:
    """Combine the tails of a batch into the start of the next one.

    Parameters
    ----------
    tails : list of dict
        ``BlockResult.tail`` of the blocks in the tail.
    seed_count, reference_count : int
        Frames that were summed over all tails; 0 where the chain does not carry that part.

    Returns
    -------
    BatchStart
        Mean displacement and mean registered image.
    """
    parts: dict[str, NDArray[np.float32] | None] = {"motion": None, "reference": None}
    for name, count in (("motion", seed_count), ("reference", reference_count)):
        if count:
            total = sum((tail[name] for tail in tails if name in tail), start=np.int64(0))
            parts[name] = fixed_point_mean(np.asarray(total), count)
    return BatchStart(parts["motion"], parts["reference"])
