"""From the options a user wrote to the frozen parameters that decide the numbers; pure functions.

Also decides which options no run can honour.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import OptionsError
from scopeflow.flow.arguments import pixel_weights
from scopeflow.flow.parameters import FlowParameters, exponents_of_channels
from scopeflow.motion.options.enums import ChannelNormalization
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.options.rules import check_available
from scopeflow.motion.parameters import (
    CorrectionParameters,
    PreprocessParameters,
    RigidStartParameters,
    filter_widths,
)

logger = logging.getLogger(__name__)


def check_supported(options: OFOptions) -> None:
    """Refuse valid options that no run can honour, before anything is read or written.

    Raises OptionsError: for an output format without a writer.

    Examples
    --------
    >>> from scopeflow.motion.options.of_options import OFOptions
    >>> check_supported(OFOptions(output_format="HDF5"))
    """
    check_available("output_format", options.output_format)
    if options.warping_steps is not None and options.gnc_schedule is None:
        logger.warning("warping_steps=%d acts with gnc_schedule only", options.warping_steps)


def correction_parameters(options: OFOptions, n_channels: int) -> CorrectionParameters:
    """Freeze everything in the options that decides the corrected numbers.

    They are equal for options that cannot differ in their result. Channel weights are apart, see
    `weight_map`: they are arrays.

    Raises OptionsError: when ``a_data`` has another number of channels.

    Examples
    --------
    >>> from scopeflow.motion.options.of_options import OFOptions
    >>> correction_parameters(OFOptions(quality_setting="fast"), 1).flow.min_level
    6
    """
    if n_channels < 1:
        raise OptionsError(f"n_channels is {n_channels}; a recording has at least one channel")
    exponents_of_channels(options.a_data, n_channels)
    rigid_start = None
    if options.cc_initialization:
        rigid_start = RigidStartParameters(options.cc_hw, options.cc_up)
    return CorrectionParameters(
        flow=FlowParameters(
            alpha=options.alpha,
            levels=options.levels,
            min_level=options.effective_min_level,
            eta=options.eta,
            update_lag=options.update_lag,
            iterations=options.iterations,
            a_smooth=options.a_smooth,
            a_data=options.a_data,
            data_term=options.constancy_assumption.value,
            gnc_schedule=options.gnc_schedule,
            # Without a schedule it has no effect, so it must not change the fingerprint.
            warping_steps=None if options.gnc_schedule is None else options.warping_steps,
        ),
        preprocess=PreprocessParameters(
            sigma=filter_widths(options.sigma)[:n_channels],
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
    """Weights of every pixel and channel, float64 ``(H, W, C)``.

    Raises OptionsError: when a map has another frame size, or no channel counts.

    Examples
    --------
    >>> from scopeflow.motion.options.of_options import OFOptions
    >>> weight_map(OFOptions(weight=[1, 3]), 4, 5, 2)[0, 0].tolist()
    [0.25, 0.75]
    """
    weight = options.weight
    channels = np.shape(weight)[2:] if isinstance(weight, np.ndarray) else (len(weight or ()),)
    result = pixel_weights(weight, (height, width, n_channels))
    if channels and channels[0] > n_channels and "weight" in options.model_fields_set:
        logger.warning(
            "weight is given for %d channels, the recording has %d: the first %d are used",
            channels[0], n_channels, n_channels,
        )  # fmt: skip
    return result
