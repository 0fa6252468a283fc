"""Frozen parameters that decide the numbers of a corrected recording, and the rule of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from scopeflow.flow.parameters import FlowParameters
from scopeflow.images.interpolation import Interpolation
from scopeflow.strict.values import (
    Rule,
    Whole,
    boolean,
    check_dataclass,
    is_integer,
    number_array,
    one_of,
    plain,
)

TemporalBoundary = Literal["halo", "batch"]


def filter_widths(value: Any) -> tuple[tuple[float, float, float], ...]:
    """Turn sigma into rows ``(sx, sy, st)``, one a channel."""
    try:
        sigma = number_array(value)
    except (TypeError, ValueError):
        raise ValueError("2D sigma must be (n_channels, 3)") from None
    if sigma.ndim < 2:
        if sigma.shape != (3,):
            raise ValueError("1D sigma must be [sx, sy, st]")
        sigma = sigma[np.newaxis]
    if sigma.ndim != 2 or sigma.shape[1] != 3 or sigma.shape[0] == 0:
        raise ValueError("2D sigma must be (n_channels, 3)")
    if not np.isfinite(sigma).all() or sigma.min() < 0:
        raise ValueError("sigma must hold finite numbers that are not negative")
    return tuple((float(x), float(y), float(t)) for x, y, t in sigma)


def correlation_shape(value: Any) -> tuple[int, int]:
    """Turn the image size of the rigid start, a number or two, into rows and columns."""
    value = plain(value)
    sizes = [value, value] if is_integer(value) else value
    if not isinstance(sizes, (list, tuple, np.ndarray)) or len(sizes) != 2:
        raise ValueError("cc_hw must be one whole number or two (rows, columns)")
    if not all(is_integer(entry) for entry in sizes):
        raise ValueError("cc_hw must be one whole number or two (rows, columns)")
    if min(sizes) < 1:
        raise ValueError("cc_hw must be at least 1")
    return int(sizes[0]), int(sizes[1])


@dataclass(frozen=True)
class PreprocessParameters:
    """Normalisation and Gaussian filter before the flow is solved.

    `sigma`: rows ``(sigma_x, sigma_y, sigma_t)`` in pixels, pixels and frames; channel ``c`` uses
        row ``min(c, n - 1)``.
    `joint_normalization`: one intensity range for all channels, or one for each.
    `temporal_boundary`: ``{"halo", "batch"}``, temporal filters see the neighbouring frames of the
        whole recording, or stop at batches.
    """

    sigma: tuple[tuple[float, float, float], ...] = ((1.0, 1.0, 0.1),)
    joint_normalization: bool = True
    temporal_boundary: TemporalBoundary = "halo"

    def __post_init__(self) -> None:
        check_dataclass(self, PREPROCESS_RULES)


@dataclass(frozen=True)
class RigidStartParameters:
    """Rigid cross-correlation that starts the flow of each frame.

    `target_shape`: rows and columns that both images are reduced to at most before correlation.
    `upsample_factor`: shifts are found to ``1 / upsample_factor`` reduced pixels.
    """

    target_shape: tuple[int, int] = (256, 256)
    upsample_factor: int = 1

    def __post_init__(self) -> None:
        check_dataclass(self, RIGID_START_RULES)


@dataclass(frozen=True)
class CorrectionParameters:
    """Everything that decides the numbers of a motion-corrected recording.

    `interpolation`: ``{"cubic", "linear", "nearest"}``, how the raw frame is resampled.
    `rigid_start`: rigid pre-alignment of each frame, None when off.
    `batch_length`: frames that share one initial displacement (``buffer_size``).
    `chain`: later batches start from the last displacements of the batch before.
    `update_reference`: the reference is renewed from the last frames of each batch.
    """

    flow: FlowParameters = field(default_factory=FlowParameters)
    preprocess: PreprocessParameters = field(default_factory=PreprocessParameters)
    interpolation: Interpolation = "cubic"
    rigid_start: RigidStartParameters | None = None
    batch_length: int = 400
    chain: bool = True
    update_reference: bool = False

    def __post_init__(self) -> None:
        check_dataclass(self, CORRECTION_RULES)


PREPROCESS_RULES: Mapping[str, Rule] = {
    "sigma": filter_widths,
    "joint_normalization": boolean,
    "temporal_boundary": one_of(get_args(TemporalBoundary)),
}
RIGID_START_RULES: Mapping[str, Rule] = {
    "target_shape": correlation_shape,
    "upsample_factor": Whole(1),
}
CORRECTION_RULES: Mapping[str, Rule] = {
    "interpolation": one_of(get_args(Interpolation)),
    "batch_length": Whole(1),
    "chain": boolean,
    "update_reference": boolean,
}
