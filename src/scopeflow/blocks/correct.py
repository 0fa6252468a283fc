"""Motion correction of one block of frames: arrays in, arrays out; no dask, no files."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.blocks.accumulate import fixed_point_mean, to_fixed_point
from scopeflow.blocks.preprocess import (
    FrameFunction,
    FramePreprocessor,
    Normalization,
    PreprocessStage,
    non_finite_pixels,
)
from scopeflow.config.specs import CorrectionParameters, PreprocessParameters, RigidStartParameters
from scopeflow.errors import InputError
from scopeflow.kernels.filters import (
    intensity_range,
    preprocess_frame,
    temporal_radius,
)
from scopeflow.kernels.flow import prepare_start, solve_prepared
from scopeflow.kernels.flow_reference import FlowReference, reference_for
from scopeflow.kernels.pyramid import motion_grid_shape
from scopeflow.kernels.register import FrameRegistration
from scopeflow.kernels.resize import upsample_flow
from scopeflow.kernels.warp import warp, warp_mask
from scopeflow.kernels.xcorr import rigid_shift
from scopeflow.typing import FlowYX2, VideoTYXC

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
        if self.displacement_function is not None:
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


def _rigid_start(
    moving: NDArray[np.float32],
    initial: FlowYX2,
    reference: Reference,
    rigid: RigidStartParameters,
) -> tuple[NDArray[np.float32], FlowYX2]:
    """Return the frame moved by start plus rigid shift, and that displacement."""
    partly = warp(moving, initial, reference.processed, "linear")
    dx, dy = rigid_shift(
        reference.processed,
        partly,
        rigid.target_shape,
        rigid.upsample_factor,
        weights=reference.weight,
    )
    combined = initial + np.array([dx, dy], dtype=np.float32)
    return warp(moving, combined, reference.processed, "linear"), combined


class FrameSolver:
    """The displacement of one frame, by our solver or by another function.

    Parameters
    ----------
    reference : Reference
        Image to register to.
    start : BatchStart
        Initial displacement; the renewed reference in it is not looked at.
    request : BlockRequest
        Parameters and user functions.
    """

    def __init__(self, reference: Reference, start: BatchStart, request: BlockRequest) -> None:
        height, width, _ = reference.raw.shape
        self._shape = (height, width)
        self._grid = request.motion_shape(height, width)
        self._reference = reference
        self._request = request
        self._rigid = request.parameters.rigid_start
        self._prepared: FlowReference | None = None
        if request.displacement_function is None:
            self._prepared = reference_for(
                reference.processed, reference.weight, request.parameters.flow
            )
        self.start_from(start.motion)

    def start_from(self, motion: NDArray[np.float32] | None) -> None:
        """Let the frames that follow start from a displacement on the motion grid, or from zero."""
        self._start = np.zeros((*self._grid, 2), dtype=np.float32) if motion is None else motion
        self._initial = upsample_flow(self._start, self._shape)
        self._coarse_start: NDArray[np.float32] | None = None
        # With a rigid start every frame is moved first and starts from zero.
        if self._prepared is not None and motion is not None and self._rigid is None:
            self._coarse_start = prepare_start(self._prepared, self._initial)

    def solve_each(
        self, frames: Iterable[NDArray[np.float32]]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Yield each preprocessed frame with its displacement on the motion grid.

        A function that solves many frames together gets as many as it asks for.
        """
        function: Any = self._request.displacement_function
        keywords: dict[str, Any] = {}
        if isinstance(function, functools.partial) and not function.args:
            function, keywords = function.func, function.keywords
        many = getattr(function, "many", None)
        at_once = getattr(function, "frames_at_once", 1)
        if many is None or at_once == 1 or self._rigid is not None:
            for frame in frames:
                yield frame, self.solve(frame)
            return
        left = iter(frames)
        while group := list(itertools.islice(left, at_once)):
            flows = many(
                self._reference.processed,
                np.stack(group),
                uv=self._initial,
                weight=self._reference.weight,
                **keywords,
            )
            for frame, flow in zip(group, flows, strict=True):
                yield frame, self._checked(flow)

    def solve(self, moving: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the displacement of one preprocessed frame on the motion grid."""
        if self._rigid is None:
            return self._flow(moving, self._initial)
        aligned, combined = _rigid_start(moving, self._initial, self._reference, self._rigid)
        shift = combined[0, 0] - self._initial[0, 0]
        residual = self._flow(aligned, np.zeros_like(self._initial))
        # Sampling the start on the motion grid and adding a constant commute with upsampling.
        return self._start + shift + residual

    def _flow(self, moving: NDArray[np.float32], initial: FlowYX2) -> NDArray[np.float32]:
        if self._prepared is not None:
            return solve_prepared(self._prepared, moving, self._coarse_start)
        function = self._request.displacement_function
        assert function is not None
        return self._checked(
            function(self._reference.processed, moving, uv=initial, weight=self._reference.weight)
        )

    def _checked(self, flow: Any) -> NDArray[np.float32]:
        flow = np.asarray(flow, dtype=np.float32)
        if flow.shape != (*self._shape, 2):
            raise InputError(
                f"the given displacement function returned shape {flow.shape}, "
                f"needed is (H, W, 2) = {(*self._shape, 2)}"
            )
        if not np.isfinite(flow).all():
            raise InputError("the given displacement function returned NaN or infinite values")
        return flow


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
        motion=np.empty((n_frames, *grid, 2), dtype=np.float32),
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
    preprocessed = FramePreprocessor(
        frames, read_start, filter_limits, stages, request.frame_function
    )
    solver = FrameSolver(reference, batch_start, request)
    registration = FrameRegistration(reference.raw, request.parameters.interpolation)

    solved = solver.solve_each(preprocessed.frame(index) for index in range(start, stop))
    for position, (moving, motion) in enumerate(solved):
        index = start + position
        raw = frames[index - read_start]
        registration.set_motion(motion)
        for component in range(2):  # planes in memory: many times faster than both at once
            result.motion[position, ..., component] = motion[..., component]
        if request.register:
            result.clipped[position] = registration.register(
                raw, result.registered[position], result.registered_sum
            )
        registration.valid(result.valid[position])
        if not_finite is not None:
            result.valid[position] &= warp_mask(
                ~not_finite[index - read_start], registration.flow()
            )
        for name, value in zip(STATISTICS, registration.statistics(), strict=True):
            result.statistics[name][position] = value
        if index >= seed_from:
            result.tail["motion"] += to_fixed_point(motion)
        if index >= renew_from:
            result.tail["reference"] += to_fixed_point(
                registration.warp(moving, reference.processed)
            )
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
