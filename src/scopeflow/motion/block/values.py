"""What travels into a block of frames and out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scopeflow._shapes import FlowYX2, FrameYXC, VideoTYXC
from scopeflow.flow.backends.device import device_method
from scopeflow.flow.pyramid import motion_grid_shape
from scopeflow.images.statistics import FlowStatistics
from scopeflow.images.temporal import temporal_radius
from scopeflow.motion.block.preprocess import FrameFunction, Normalization, PreprocessStage
from scopeflow.motion.parameters import CorrectionParameters

DisplacementFunction = Callable[..., NDArray[Any]]
"""``f(reference (H,W,C), moving (H,W,C), *, uv, weight) -> (H,W,2)``, given by the user."""


STATISTICS = ("mean_disp", "max_disp", "mean_div", "mean_translation")


@dataclass(frozen=True)
class Reference:
    """The image that frames are registered to, raw and as the solver sees it.

    `raw`: ``(H, W, C)`` float64, in units of the recording; fills pixels that move in from outside.
    `processed`: ``(H, W, C)`` float32, normalised and filtered.
    `normalization`: range of the raw reference; frames are normalised with it.
    `weight`: ``(H, W, C)`` float32, weight of each channel in the data term.
    """

    raw: NDArray[np.float64]
    processed: NDArray[np.float32]
    normalization: Normalization
    weight: NDArray[np.float32]


@dataclass(frozen=True)
class BatchStart:
    """What a batch takes over from the batch before.

    `motion`: ``(h, w, 2)`` float32, initial displacement on the solver's finest grid; None starts
        from zero.
    `processed_reference`: ``(H, W, C)`` float32, renewed reference; None keeps the first one.
    """

    motion: NDArray[np.float32] | None = None
    processed_reference: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class BlockRequest:
    """What to compute besides the registered frames, and with which user functions.

    `output_dtype`: dtype of the registered frames.
    `non_finite`: ``{"error", "mask"}``, NaN and infinite pixels raise, or are replaced by the
        reference and become invalid.
    `sum_registered`: also sum the registered frames (float64), for a reference.
    `register`: False computes displacements only: no frame is resampled.
    `displacement_function`, `frame_function`: user functions in place of the solver, and before
        normalisation.
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

    `registered`: ``(n, H, W, C)``, corrected frames in the output dtype.
    `motion`: ``(n, h, w, 2)`` float32, displacements on the solver's finest grid, in
        full-resolution pixels.
    `valid`: ``(n, H, W)`` bool, True where the pixel comes from inside the raw frame.
    `statistics`: ``(n,)`` float64, mean and largest displacement, mean divergence, mean
        translation.
    `clipped`: ``(n,)`` int64, values of each frame that did not fit the output dtype and were
        clipped.
    `tail`: sums that the next batch depends on; empty outside the tail of a batch.
    `registered_sum`: ``(H, W, C)`` float64, sum of the registered frames before the cast, if asked
        for.
    """

    registered: VideoTYXC
    motion: NDArray[np.float32]
    valid: NDArray[np.bool_]
    statistics: dict[str, NDArray[np.float64]]
    clipped: NDArray[np.int64]
    tail: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    registered_sum: NDArray[np.float64] | None = None


class RegisteredFrame(Protocol):
    """One frame after its displacement is known; used before the next one is asked for.

    `register` or `valid` comes first: what else is asked for belongs to the motion that it set.

    `motion`: ``(h, w, 2)`` float32, displacement on the motion grid.
    """

    motion: NDArray[np.float32]

    def register(
        self, out: NDArray[Any], valid: NDArray[np.bool_], total: NDArray[np.float64] | None
    ) -> int:
        """Write the frame and its mask, add it to `total`, and count clipped values."""

    def valid(self, out: NDArray[np.bool_]) -> None:
        """Write which pixels come from inside the raw frame, of a frame that is not wanted."""

    def statistics(self) -> FlowStatistics:
        """Summarise the displacement."""

    def flow(self) -> FlowYX2:
        """Return the displacement at full resolution."""

    def moving(self) -> FrameYXC:
        """Return the preprocessed frame, registered; outside pixels are those of the reference."""
