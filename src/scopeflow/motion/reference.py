"""The reference image: given, read from a file, one frame, or frames registered and averaged."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from dask.delayed import delayed
from numpy.typing import NDArray

from scopeflow.engine.executor import Executor
from scopeflow.engine.ledger import Ledger
from scopeflow.engine.pieces import Outcome
from scopeflow.errors import InputError
from scopeflow.flow.parameters import FlowParameters
from scopeflow.images.temporal import temporal_radius
from scopeflow.io.arrays import read_array
from scopeflow.io.lazy import LazyVideo, load_frames
from scopeflow.io.locations import Location, location
from scopeflow.io.open import open_source
from scopeflow.motion.block.correct import make_reference
from scopeflow.motion.block.preprocess import (
    FrameFunction,
    Normalization,
    PrefilterSums,
    PreprocessStage,
    measure_prefiltered,
)
from scopeflow.motion.block.values import BlockRequest, Reference
from scopeflow.motion.graph.block_task import REGISTERED_SUM
from scopeflow.motion.graph.correct import CorrectionJob, grid_of
from scopeflow.motion.graph.run import OnBlock, run_job
from scopeflow.motion.grid import choose_block_length, make_grid
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.options.parameters import correction_parameters
from scopeflow.motion.parameters import CorrectionParameters, PreprocessParameters
from scopeflow.motion.store.sinks import LedgerSink

logger = logging.getLogger(__name__)

EXTRA_ALPHA = 2.0
EXTRA_SIGMA = (1.0, 1.0, 0.5)


@dataclass(frozen=True)
class ReferenceRequest:
    """What the reference is to be made of.

    `image`: ``(H, W, C)`` float64, a given image.
    `frames`: frames to register and average, where no image is given.
    """

    image: NDArray[np.float64] | None
    frames: tuple[int, ...] = ()


def reference_request(
    given: Any,
    video_shape: tuple[int, int, int, int],
    *,
    is_default: bool,
    absent: tuple[int, ...] = (),
) -> ReferenceRequest:
    """Find out what ``reference_frames`` asks for, and refuse what cannot be.

    `given`: an image ``(H, W)`` or ``(H, W, C)``, a file that holds one, or frame numbers.
    `video_shape`: ``(T, H, W, C)`` of the recording.
    `is_default`: the frame numbers are the default ones, so a short recording may not have them.
    `absent`: frames without pixels, which are left out.
    Returns: the image, or existing frames in the given order without repeats.
    Raises InputError: if an image has another size or channel count or is not finite, no frame
        exists, or none has pixels.
    """
    if isinstance(given, str | os.PathLike):
        return ReferenceRequest(_check_image(_read_image(location(given)), video_shape, str(given)))
    if isinstance(given, list | tuple | range):
        existing = _existing_frames(given, video_shape[0], is_default)
        return ReferenceRequest(None, _with_pixels(existing, video_shape[0], absent))
    return ReferenceRequest(_check_image(np.asarray(given), video_shape, "the reference"))


def _read_image(path: Location) -> NDArray[Any]:
    if path.suffix.lower() == ".npy":
        if not path.is_file():
            raise InputError(f"the reference {path} does not exist")
        return read_array(path)
    source = open_source(path)
    frames = source.shape[0]
    if frames > 1:
        logger.info("The reference %s holds %d frames; their mean is taken.", path, frames)
    total = np.zeros(source.shape[1:])
    for start in range(0, frames, 100):
        total += source.read(start, min(start + 100, frames)).sum(axis=0, dtype=np.float64)
    return total / frames


def _check_image(
    image: NDArray[Any], video_shape: tuple[int, int, int, int], what: str
) -> NDArray[np.float64]:
    if image.ndim == 2:
        image = image[..., None]
    if image.shape != video_shape[1:]:
        raise InputError(
            f"{what} has shape {image.shape}, the frames of the recording have "
            f"(H, W, C) = {video_shape[1:]}; give a reference of the same size and channels"
        )
    if image.dtype.kind not in "biuf":
        raise InputError(f"{what} has pixels of type {image.dtype}; numbers are needed")
    if not np.isfinite(image).all():
        raise InputError(
            f"{what} has {int((~np.isfinite(image)).sum())} values that are NaN or infinite; "
            "fill them before it can be a reference"
        )
    return np.ascontiguousarray(image, dtype=np.float64)


def _existing_frames(
    given: list[Any] | tuple[Any, ...] | range, n_frames: int, is_default: bool
) -> tuple[int, ...]:
    wanted = [int(index) for index in given]
    resolved = [index + n_frames if index < 0 else index for index in wanted]
    existing = tuple(dict.fromkeys(index for index in resolved if 0 <= index < n_frames))
    if not existing:
        if is_default:
            logger.info("All %d frames make the reference.", n_frames)
            return tuple(range(n_frames))
        raise InputError(
            f"none of the reference frames {wanted[:3]}{'...' if len(wanted) > 3 else ''} exists; "
            f"the recording has frames 0 to {n_frames - 1}"
        )
    missing = len(set(resolved)) - len(existing)
    if missing and not is_default:
        raise InputError(
            f"{missing} of the reference frames do not exist (largest asked for: {max(wanted)}); "
            f"the recording has frames 0 to {n_frames - 1}"
        )
    if missing:
        logger.info(
            "The recording is short: %d frames from %d to %d make the reference.",
            len(existing),
            existing[0],
            existing[-1],
        )
    return existing


def _with_pixels(
    frames: tuple[int, ...], n_frames: int, absent: tuple[int, ...]
) -> tuple[int, ...]:
    """Leave out frames without pixels."""
    lacking = frozenset(absent)
    kept = tuple(frame for frame in frames if frame not in lacking)
    if not kept:
        usable = next(frame for frame in range(n_frames) if frame not in lacking)
        raise InputError(
            f"none of the {len(frames)} reference frames ({min(frames)} to {max(frames)}) has "
            f"pixels; choose others with reference_frames, the first that has is frame {usable}"
        )
    if len(kept) < len(frames):
        logger.info(
            "%d of %d reference frames have no pixels; the others make the reference.",
            len(frames) - len(kept),
            len(frames),
        )
    return kept


def build_reference_image(
    request: ReferenceRequest,
    video: LazyVideo,
    options: OFOptions,
    weight: NDArray[Any],
    executor: Executor,
    ledger: Ledger | None = None,
    on_finish: OnBlock | None = None,
) -> NDArray[np.float64]:
    """Return the raw reference image.

    Several frames are smoothed more than usual, registered to their own mean with a stiffer flow,
    and the raw frames are averaged along that motion.

    `weight`: ``(C,)`` or ``(H, W, C)``, channel weights.
    `on_finish`: ``on_finish(block, outcome)``, called as each block of reference frames finishes.
    Returns: ``(H, W, C)`` float64, in units of the recording.
    """
    if request.image is not None:
        return request.image
    selected = video.select(request.frames)
    if len(request.frames) == 1:
        frame = executor.compute(delayed(load_frames)(selected.frames(0, 1)))[0]
        return _check_image(frame, video.shape, f"reference frame {request.frames[0]}")
    parameters = correction_parameters(options, video.shape[3])
    sums, count = _measure(selected, parameters, options, executor)
    job = _registration_job(selected, parameters, options, weight, sums, count, ledger)
    total = np.zeros(video.shape[1:])
    for outcome in run_job(job, executor, on_finish):
        total += _sum_of(outcome)
    return total / count


def _sum_of(outcome: Outcome) -> NDArray[np.float64]:
    """Return the sum of a block's registered frames, recorded or in memory."""
    if outcome.content is not None:
        return np.asarray(outcome.content.registered_sum)
    return outcome.arrays[REGISTERED_SUM]


def _prefilter_parameters(parameters: CorrectionParameters) -> PreprocessParameters:
    rows = tuple(
        (row[0] + EXTRA_SIGMA[0], row[1] + EXTRA_SIGMA[1], row[2] + EXTRA_SIGMA[2])
        for row in parameters.preprocess.sigma
    )
    return replace(parameters.preprocess, sigma=rows)


def _measure(
    video: LazyVideo, parameters: CorrectionParameters, options: OFOptions, executor: Executor
) -> tuple[PrefilterSums, int]:
    """Sum and measure the smoothed frames, in blocks that depend on the data only."""
    n_frames = video.shape[0]
    prefilter = _prefilter_parameters(parameters)
    frame_function: FrameFunction | None = options.preproc_funct
    grid = make_grid(
        n_frames,
        n_frames,
        _fixed_block_length(video, parameters),
        halo=temporal_radius(prefilter.sigma),
        seed_tail=0,
    )
    measure = delayed(_measure_block, pure=False)
    parts: list[PrefilterSums | None] = [None] * len(grid.blocks)
    tasks = [
        measure(
            video.frames(block.read_start, block.read_stop),
            read_start=block.read_start,
            start=block.start,
            stop=block.stop,
            filter_limits=(0, n_frames),
            parameters=prefilter,
            frame_function=frame_function,
            non_finite=options.non_finite,
        )
        for block in grid.blocks
    ]

    def keep(position: int, part: PrefilterSums) -> None:
        parts[position] = part

    executor.run(tasks, keep)
    shape = video.shape[1:]
    total = PrefilterSums(
        np.zeros(shape), np.zeros(shape), np.full(shape[2], np.inf), np.full(shape[2], -np.inf)
    )
    for part in parts:
        assert part is not None
        total.raw_sum += part.raw_sum
        total.filtered_sum += part.filtered_sum
        total.low = np.minimum(total.low, part.low)
        total.high = np.maximum(total.high, part.high)
    return total, n_frames


def _measure_block(frames: Any, **arguments: Any) -> PrefilterSums:
    return measure_prefiltered(load_frames(frames), **arguments)


def _fixed_block_length(video: LazyVideo, parameters: CorrectionParameters) -> int:
    """Choose blocks that do not depend on the user's block length: sums keep their bits."""
    n_frames, height, width, channels = video.shape
    return choose_block_length(
        n_frames, parameters.batch_length, height * width * channels * video.dtype.itemsize
    )


def _registration_job(
    video: LazyVideo,
    parameters: CorrectionParameters,
    options: OFOptions,
    weight: NDArray[Any],
    sums: PrefilterSums,
    count: int,
    ledger: Ledger | None,
) -> CorrectionJob:
    flow = parameters.flow
    stiffer: FlowParameters = replace(
        flow,
        alpha=(flow.alpha[0] + EXTRA_ALPHA, flow.alpha[1] + EXTRA_ALPHA),
        gnc_schedule=None,
        warping_steps=None,
    )
    registration = CorrectionParameters(
        flow=stiffer, preprocess=PreprocessParameters(), batch_length=parameters.batch_length
    )
    low, high = sums.low, sums.high
    if parameters.preprocess.joint_normalization:
        low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
    # The mean of the normalised frames is the normalised mean.
    mean = (sums.filtered_sum / count - low) / (high - low + 1e-8)
    processed = make_reference(mean, registration.preprocess, weight)
    reference = Reference(
        sums.raw_sum / count, processed.processed, processed.normalization, processed.weight
    )
    request = BlockRequest(
        registration,
        "float32",
        options.non_finite,
        sum_registered=True,
        prefilter=PreprocessStage(Normalization(low, high), _prefilter_parameters(parameters)),
        frame_function=options.preproc_funct,
    )
    block_length = _fixed_block_length(video, parameters)
    grid = grid_of(video.shape[0], block_length, request, registration)
    return CorrectionJob(
        video,
        grid,
        reference,
        request,
        sink=None if ledger is None else LedgerSink(ledger, "reference"),
        seed_sink=None if ledger is None else LedgerSink(ledger, "reference-start"),
    )
