"""Frozen parameters that decide the numbers of a corrected recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from scopeflow.flow.parameters import FlowParameters
from scopeflow.images.interpolation import Interpolation


@dataclass(frozen=True)
class PreprocessParameters:
    """Normalisation and Gaussian filter before the flow is solved.

    Attributes
    ----------
    sigma : tuple of tuple of float
        Rows ``(sigma_x, sigma_y, sigma_t)`` in pixels, pixels and frames; channel ``c`` uses row
        ``min(c, n - 1)``.
    joint_normalization : bool
        One intensity range for all channels, or one for each.
    temporal_boundary : {"halo", "batch"}
        Temporal filters see the neighbouring frames of the whole recording, or stop at batches.
    """

    sigma: tuple[tuple[float, float, float], ...] = ((1.0, 1.0, 0.1),)
    joint_normalization: bool = True
    temporal_boundary: Literal["halo", "batch"] = "halo"


@dataclass(frozen=True)
class RigidStartParameters:
    """Rigid cross-correlation that starts the flow of each frame.

    Attributes
    ----------
    target_shape : tuple of int
        Rows and columns that both images are reduced to at most before correlation.
    upsample_factor : int
        Shifts are found to ``1 / upsample_factor`` reduced pixels.
    """

    target_shape: tuple[int, int] = (256, 256)
    upsample_factor: int = 1


@dataclass(frozen=True)
class CorrectionParameters:
    """Everything that decides the numbers of a motion-corrected recording.

    Attributes
    ----------
    flow : FlowParameters
        The variational solver.
    preprocess : PreprocessParameters
        Normalisation and filtering.
    interpolation : {"cubic", "linear", "nearest"}
        How the raw frame is resampled.
    rigid_start : RigidStartParameters or None
        Rigid pre-alignment of each frame, None when off.
    batch_length : int
        Frames that share one initial displacement (``buffer_size``).
    chain : bool
        Later batches start from the last displacements of the batch before.
    update_reference : bool
        The reference is renewed from the last frames of each batch.
    """

    flow: FlowParameters = field(default_factory=FlowParameters)
    preprocess: PreprocessParameters = field(default_factory=PreprocessParameters)
    interpolation: Interpolation = "cubic"
    rigid_start: RigidStartParameters | None = None
    batch_length: int = 400
    chain: bool = True
    update_reference: bool = False
