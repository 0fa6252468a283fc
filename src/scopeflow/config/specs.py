"""Frozen internal specs: what the numerics need, made from the option models.

They are small, hashable and picklable, travel inside dask tasks, and enter the fingerprint that
decides whether a finished block may be reused. Everything about *where* work runs stays out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

DataTerm = Literal["gc", "gray", "cs"]
Interpolation = Literal["cubic", "linear", "nearest"]


@dataclass(frozen=True)
class FlowParameters:
    """Parameters of the variational optical flow of one frame against the reference.

    Attributes
    ----------
    alpha : tuple of float
        Smoothness weights ``(alpha_x, alpha_y)``, larger is smoother.
    levels : int
        Upper limit of pyramid steps per axis.
    min_level : int
        Finest level that is solved; 0 is full resolution.
    eta : float
        Scale factor between neighbouring levels, ``0 < eta <= 1``.
    update_lag : int
        Iterations between updates of the nonlinear weights.
    iterations : int
        Successive over-relaxation sweeps per level.
    a_smooth : float
        Exponent of the smoothness penalty; 1 is quadratic.
    a_data : float or tuple of float
        Exponent of the data penalty, one for all channels or one for each.
    data_term : {"gc", "gray", "cs"}
        Gradient constancy, brightness constancy, or census.
    gnc_schedule : tuple of float, optional
        Stage weights of graduated non-convexity, from 0 to 1.
    warping_steps : int, optional
        Warps per level in graduated non-convexity; 10 when None.
    """

    alpha: tuple[float, float] = (1.5, 1.5)
    levels: int = 100
    min_level: int = 0
    eta: float = 0.8
    update_lag: int = 5
    iterations: int = 50
    a_smooth: float = 1.0
    a_data: float | tuple[float, ...] = 0.45
    data_term: DataTerm = "gc"
    gnc_schedule: tuple[float, ...] | None = None
    warping_steps: int | None = None


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
