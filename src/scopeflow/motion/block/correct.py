"""Motion correction of one block of frames: arrays in, arrays out; no dask, no files."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow._shapes import VideoTYXC
from scopeflow.images.filters import intensity_range, preprocess_frame
from scopeflow.images.warp import warp_mask
from scopeflow.motion.block.accumulate import fixed_point_mean, to_fixed_point
from scopeflow.motion.block.frames import registered_frames
from scopeflow.motion.block.preprocess import (
    Normalization,
    PreprocessStage,
    RawFrames,
    non_finite_pixels,
)
from scopeflow.motion.block.values import (
    STATISTICS,
    BatchStart,
    BlockRequest,
    BlockResult,
    Reference,
)
from scopeflow.motion.grid import Block
from scopeflow.motion.parameters import PreprocessParameters


def make_reference(
    raw: NDArray[Any], preprocess: PreprocessParameters, weight: NDArray[Any]
) -> Reference:
    """Normalise and filter a raw reference image.

    `raw`: ``(H, W, C)``, reference in units of the recording.
    `preprocess`: normalisation and filter (the temporal part does not apply to one image).
    `weight`: ``(C,)`` or ``(H, W, C)``, weight of each channel in the data term.
    Returns: raw and processed image with the intensity range.
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
    block: Block,
    filter_limits: tuple[int, int],
    reference: Reference,
    batch_start: BatchStart,
    request: BlockRequest,
) -> BlockResult:
    """Register the frames of a block to the reference of its recording.

    The result of a frame depends on that frame, its temporal neighbours, the reference, the start
    and the parameters only, never on where the block begins or ends.

    `frames`: ``(n_read, H, W, C)``, raw frames ``[block.read_start, block.read_stop)``: the block's
        own and the halo. Absent frames are not among them, and not counted.
    `block`: which frames, and which of them the next batch starts from.
    `filter_limits`: frames between which temporal filters reflect: the ends of the recording or of
        the batch.
    `batch_start`: initial displacement of the batch, and its renewed reference.
    Raises InputError: if frames are not finite and not to be masked, or a user function returns a
        wrong shape.
    """
    height, width, channels = reference.raw.shape
    n_frames = block.length
    reference = start_from(reference, batch_start)
    grid = request.motion_shape(height, width)
    not_finite = non_finite_pixels(frames, block.numbers or block.read_start, request.non_finite)
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
    if block.seed_tail_start < block.stop:
        result.tail["motion"] = np.zeros((*grid, 2), dtype=np.int64)
    if block.reference_tail_start < block.stop:
        result.tail["reference"] = np.zeros((height, width, channels), dtype=np.int64)
    stages = [PreprocessStage(reference.normalization, request.parameters.preprocess)]
    if request.prefilter is not None:
        stages.insert(0, request.prefilter)
    raw = RawFrames(frames, block.read_start, filter_limits, tuple(stages), request.frame_function)
    registered = registered_frames(
        raw, range(block.start, block.stop), reference, batch_start, request
    )
    for position, frame in enumerate(registered):
        index = block.start + position
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
            result.valid[position] &= warp_mask(~not_finite[index - block.read_start], frame.flow())
        for name, value in zip(STATISTICS, frame.statistics(), strict=True):
            result.statistics[name][position] = value
        if index >= block.seed_tail_start:
            result.tail["motion"] += to_fixed_point(frame.motion)
        if index >= block.reference_tail_start:
            result.tail["reference"] += to_fixed_point(frame.moving())
    return result


def next_batch_start(
    tails: list[dict[str, NDArray[np.int64]]], seed_count: int, reference_count: int
) -> BatchStart:
    """Combine the tails of a batch into the start of the next one.

    `tails`: ``BlockResult.tail`` of the blocks in the tail.
    `seed_count`, `reference_count`: frames that were summed over all tails; 0 where the chain does
        not carry that part.
    """
    parts: dict[str, NDArray[np.float32] | None] = {"motion": None, "reference": None}
    for name, count in (("motion", seed_count), ("reference", reference_count)):
        if count:
            total = sum((tail[name] for tail in tails if name in tail), start=np.int64(0))
            parts[name] = fixed_point_mean(np.asarray(total), count)
    return BatchStart(parts["motion"], parts["reference"])
