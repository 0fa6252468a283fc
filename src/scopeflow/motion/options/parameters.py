"""From the options a user wrote to the frozen parameters that decide the numbers; pure functions.

Also decides which options no run can honour.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import OptionsError
from scopeflow.flow.parameters import FlowParameters
from scopeflow.io.formats import OutputFormat
from scopeflow.motion.options.enums import ChannelNormalization
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.options.rules import need_channels, weight_at
from scopeflow.motion.parameters import (
    CorrectionParameters,
    PreprocessParameters,
    RigidStartParameters,
)

logger = logging.getLogger(__name__)

SUPPORTED_FORMATS = tuple(name for name in OutputFormat if name is not OutputFormat.BEGONIA)
"""Output formats that a run can produce."""


def check_supported(options: OFOptions) -> None:
    """Refuse valid options that no run can honour, before anything is read or written.

    Parameters
    ----------
    options : OFOptions
        What the user asked for.

    Raises
    ------
    OptionsError
        For an output format without a writer.

    Examples
    --------
    >>> from scopeflow.motion.options.of_options import OFOptions
    >>> check_supported(OFOptions(output_format="HDF5"))
    """
    if options.output_format not in SUPPORTED_FORMATS:
        available = ", ".join(name.value for name in SUPPORTED_FORMATS)
        raise OptionsError(
            f"output_format {options.output_format.value} cannot be written: the layout of its "
            "TSeries folders is not published. Begonia opens TIFF stacks too; use one of "
            f"{available}"
        )
    if options.warping_steps is not None and options.gnc_schedule is None:
        logger.warning("warping_steps=%d acts with gnc_schedule only", options.warping_steps)


def correction_parameters(options: OFOptions, n_channels: int) -> CorrectionParameters:
    """Freeze everything in the options that decides the corrected numbers.

    Channel weights are apart, see `weight_map`: they are arrays.

    Parameters
    ----------
    options : OFOptions
        What the user asked for; not changed.
    n_channels : int
        Channels of the recording.

    Returns
    -------
    CorrectionParameters
        Equal for options that cannot differ in their result.

    Raises
    ------
    OptionsError
        When ``a_data`` has another number of channels.

    Examples
    --------
    >>> from scopeflow.motion.options.of_options import OFOptions
    >>> correction_parameters(OFOptions(quality_setting="fast"), 1).flow.min_level
    6
    """
    need_channels(n_channels)
    a_data = options.a_data
    if isinstance(a_data, tuple) and len(a_data) != n_channels:
        raise OptionsError(
            f"a_data has {len(a_data)} exponents, the recording {n_channels} channel(s). "
            "Give one number for all channels or one for each"
        )
    rigid_start = None
    if options.cc_initialization:
        size = options.cc_hw
        rigid_start = RigidStartParameters(
            target_shape=(size, size) if isinstance(size, int) else size,
            upsample_factor=options.cc_up,
        )
    return CorrectionParameters(
        flow=FlowParameters(
            alpha=options.alpha,
            levels=options.levels,
            min_level=options.effective_min_level,
            eta=options.eta,
            update_lag=options.update_lag,
            iterations=options.iterations,
            a_smooth=options.a_smooth,
            a_data=a_data,
            data_term=options.constancy_assumption.value,
            gnc_schedule=options.gnc_schedule,
            # Without a schedule it has no effect, so it must not change the fingerprint.
            warping_steps=None if options.gnc_schedule is None else options.warping_steps,
        ),
        preprocess=PreprocessParameters(
            sigma=tuple((row[0], row[1], row[2]) for row in options.sigma[:n_channels]),
            joint_normalization=options.channel_normalization is ChannelNormalization.JOINT,
            temporal_boundary=options.temporal_boundary,
        ),
        interpolation=options.interpolation_method.value,
        rigid_start=rigid_start,
        batch_length=options.buffer_size,
        chain=options.update_initialization_w,
        update_reference=options.update_reference,
    )


def weight_map(options: OFOptions, height: int, width: int, n_channels: int) -> NDArray[np.float64]:
    """Weights of every pixel and channel.

    Parameters
    ----------
    options : OFOptions
        Holds ``weight``; not changed.
    height, width, n_channels : int
        Frame size in pixels, and channels.

    Returns
    -------
    ndarray
        Shape ``(H, W, C)``, float64.

    Raises
    ------
    OptionsError
        When a map has another frame size.

    Examples
    --------
    >>> from scopeflow.motion.options.of_options import OFOptions
    >>> weight_map(OFOptions(weight=[1, 3]), 4, 5, 2)[0, 0].tolist()
    [0.25, 0.75]
    """
    weight = options.weight
    given = len(weight) if isinstance(weight, list) else np.shape(weight)[2:3]
    if not isinstance(weight, list) and weight.shape[:2] != (height, width):
        raise OptionsError(
            f"weight is a map of {weight.shape[0]} x {weight.shape[1]} pixels, frames have "
            f"{height} x {width}. Give a map of the frame's size (after channel and frame "
            "selection), or one number a channel"
        )
    excess = given if isinstance(given, int) else (given[0] if given else 0)
    if excess > n_channels and "weight" in options.model_fields_set:
        logger.warning(
            "weight is given for %d channels, the recording has %d: the first %d are used",
            excess, n_channels, n_channels,
        )  # fmt: skip
    result = np.empty((height, width, n_channels), dtype=np.float64)
    for channel in range(n_channels):
        result[..., channel] = weight_at(weight, channel, n_channels)
    return result
