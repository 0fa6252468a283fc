"""Registration of one frame after the other, as a camera gives them; state of bounded size."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow._shapes import FlowYX2, FrameYXC
from scopeflow.errors import InputError
from scopeflow.flow.pyramid import pyramid_levels
from scopeflow.images.borders import as_planes
from scopeflow.images.filters import intensity_range, sigma_rows
from scopeflow.images.register import FrameRegistration
from scopeflow.images.resize import pyramid_tables, resize_planes, upsample_flow
from scopeflow.images.temporal import filter_in_time
from scopeflow.motion.block.correct import make_reference
from scopeflow.motion.block.preprocess import (
    FramePreprocessor,
    Normalization,
    PreprocessStage,
    RawFrames,
    non_finite_pixels,
)
from scopeflow.motion.block.solve import solver_for
from scopeflow.motion.block.values import BatchStart, BlockRequest, Reference

logger = logging.getLogger(__name__)

_EPSILON = 1e-8  # as in `kernels.filters.normalize`


@dataclass(frozen=True)
class LiveParameters:
    """What a stream needs besides the parameters of a correction.

    `update_interval`: the reference is renewed after this many frames; 0 never.
    `update_weight`: share of the newest registered frame in the renewed reference, 0 to 1.
    `truncate`: standard deviations that the temporal filter looks back.
    """

    update_interval: int = 20
    update_weight: float = 0.2
    truncate: float = 4.0


def past_weights(sigma: Any, channels: int, truncate: float) -> NDArray[np.float64]:
    """Weights of the newest frames in a filter that sees the past only.

    `sigma`: rows ``(sigma_x, sigma_y, sigma_t)``; the last is in frames.
    `truncate`: standard deviations after which weights are 0.
    Returns: ``(n, channels)`` float64, ``exp(-(k / sigma_t)**2 / 2)`` of the frame ``k`` frames
        ago, newest first; not normalised.

    Examples
    --------
    >>> past_weights([(1, 1, 0.1)], 1, 4.0).tolist()
    [[1.0]]
    """
    widths = sigma_rows(sigma, channels)[:, 2]
    reach = [int(truncate * width + 0.5) for width in widths]
    table = np.zeros((max(reach) + 1, channels))
    for channel, (width, last) in enumerate(zip(widths, reach, strict=True)):
        age = np.arange(last + 1)
        table[: last + 1, channel] = np.exp(-0.5 * (age / width) ** 2) if last else 1.0
    return table


class FrameStream:
    """Registers frames to a reference, each starting from the displacement of the one before.

    Memory does not grow with the number of frames. Not for use by several threads at once.

    `request`: parameters and user functions; the batch, the chain and `output_dtype` have no
        meaning here.
    `motion`: ``(h, w, 2)`` float32, newest displacement on the solver's finest grid.
    """

    def __init__(self, reference: Reference, request: BlockRequest, live: LiveParameters) -> None:
        self._request = request
        self._live = live
        preprocess = request.parameters.preprocess
        channels = reference.raw.shape[2]
        self._past = past_weights(preprocess.sigma, channels, live.truncate)
        # The temporal filter is ours: it sees the past only.
        self._in_space = replace(
            preprocess, sigma=tuple((row[0], row[1], 0.0) for row in preprocess.sigma)
        )
        self._recent: deque[NDArray[np.float32]] = deque(maxlen=len(self._past))
        self.frame_count = 0
        self.motion: NDArray[np.float32] | None = None
        self._take(reference)

    def _take(self, reference: Reference) -> None:
        self.reference = reference
        self._solver = solver_for(reference, BatchStart(self.motion), self._request)
        self._is_flat = bool(is_flat(reference).any())
        self._registration = FrameRegistration(
            reference.raw, self._request.parameters.interpolation
        )

    def start_from(self, flow: NDArray[Any] | None) -> None:
        """Let the next frame start from a displacement ``(H, W, 2)`` in pixels, or from zero."""
        if flow is None:
            self.motion = None
        else:
            shape = self.reference.raw.shape[:2]
            grid = self._request.motion_shape(*shape)
            planes = as_planes(flow)
            self.motion = np.moveaxis(resize_planes(planes, pyramid_tables(shape, grid)), 0, -1)
        self._solver.start_from(self.motion)

    def register(
        self, frame: FrameYXC, out: NDArray[Any] | None = None, *, normalize: bool = True
    ) -> tuple[FrameYXC, FlowYX2]:
        """Register one frame.

        `frame`: ``(H, W, C)``, raw frame.
        `out`: ``(H, W, C)``, where the registered frame goes, in any dtype: integers are rounded
            and clipped.
        `normalize`: False for a frame that is already scaled as the reference is after
            normalisation.
        Returns `registered`: ``(H, W, C)``, `out`, or a new float32 array.
        Returns `flow`: ``(H, W, 2)`` float32, displacement, pixels; a new array.
        Raises InputError: if the frame has NaN or infinite pixels that are not to be masked, or a
            user function returns what cannot be used.
        """
        scale = self.reference.normalization
        raw = frame if normalize else frame * (scale.high - scale.low + _EPSILON) + scale.low
        not_finite = non_finite_pixels(raw[None], self.frame_count, self._request.non_finite)
        if not_finite is not None:
            raw = np.where(not_finite[0][..., None], self.reference.raw.astype(raw.dtype), raw)
        moving = self._moving(raw)
        self.motion = self._still() if self._is_flat else self._solver.solve(moving)
        self._solver.start_from(self.motion)
        self._registration.set_motion(self.motion)
        self.frame_count += 1
        registered: FrameYXC = self._registration.warp(raw)
        renewed = None
        if self._live.update_interval and self.frame_count % self._live.update_interval == 0:
            renewed = self._renewed(moving, registered)
            registered = self._registration.warp(raw)  # the memory was used again
        if not normalize:
            registered = (registered - scale.low) / (scale.high - scale.low + _EPSILON)
        if out is None:
            out = np.array(registered, np.float32)
        elif normalize:
            self._registration.register(raw, out)
        else:
            out[...] = registered
        flow = self._registration.flow()
        if renewed is not None:
            self._take(renewed)
        return out, flow

    def flow(self) -> FlowYX2 | None:
        """Return the newest displacement, ``(H, W, 2)`` in pixels, or None."""
        if self.motion is None:
            return None
        return upsample_flow(self.motion, self.reference.raw.shape[:2])

    def _still(self) -> NDArray[np.float32]:
        """No displacement: that of frames against a reference that shows nothing."""
        grid = self._request.motion_shape(*self.reference.raw.shape[:2])
        return np.zeros((*grid, 2), np.float32)

    @property
    def recent(self) -> deque[NDArray[np.float32]]:
        """Preprocessed frames that the temporal filter still needs, newest first."""
        return self._recent

    def _moving(self, raw: FrameYXC) -> NDArray[np.float32]:
        """Return a frame as the solver sees it."""
        stage = PreprocessStage(self.reference.normalization, self._in_space)
        newest = FramePreprocessor(
            RawFrames(raw[None], 0, (0, 1), (stage,), self._request.frame_function)
        ).frame(0)
        if len(self._past) == 1:
            return newest
        self._recent.appendleft(newest)
        weights = self._past[: len(self._recent)]
        return filter_in_time(self._recent, weights / weights.sum(axis=0))

    def _renewed(self, moving: NDArray[np.float32], registered: FrameYXC) -> Reference:
        """Blend the newest registered frame into the reference."""
        old, share = self.reference, self._live.update_weight
        raw = (1 - share) * old.raw + share * registered
        processed = (1 - share) * old.processed + share * self._registration.warp(
            moving, old.processed
        )
        low, high = intensity_range(raw, self._request.parameters.preprocess.joint_normalization)
        # Images that were scaled by the old range are brought to the new one.
        span, new_span = (old.normalization.high - old.normalization.low), high - low
        gain = ((span + _EPSILON) / (new_span + _EPSILON)).astype(np.float32)
        shift = ((old.normalization.low - low) / (new_span + _EPSILON)).astype(np.float32)
        for position, image in enumerate(self._recent):
            self._recent[position] = image * gain + shift
        processed = (processed * gain + shift).astype(np.float32)
        return Reference(raw, processed, Normalization(low, high), old.weight)


def is_flat(reference: Reference) -> NDArray[np.bool_]:
    """Tell which channels of a reference have the same value everywhere."""
    flat: NDArray[np.bool_] = reference.normalization.high <= reference.normalization.low
    return flat


def make_live_reference(
    raw: NDArray[Any], request: BlockRequest, weight: NDArray[Any], *, may_be_flat: bool = False
) -> Reference:
    """Make the reference of a stream from one image.

    `raw`: ``(H, W, C)``, in units of the camera.
    `weight`: ``(H, W, C)``, weight of each channel.
    `may_be_flat`: accept an image that has the same value everywhere, with a warning: displacements
        are zero until a renewed reference shows something.
    Raises InputError: if the image is too small, constant, or not finite.
    """
    pyramid_levels(raw.shape[:2], request.parameters.flow)
    reference = make_reference(raw, request.parameters.preprocess, weight)
    flat = np.flatnonzero(is_flat(reference))
    if flat.size:
        message = (
            f"the reference has the same value everywhere (channel {int(flat[0])}), so no motion "
            "can be found"
        )
        if not may_be_flat:
            raise InputError(f"{message}; give frames that show something")
        logger.warning("%s: displacements are zero until it is renewed from frames.", message)
    return reference
