"""What authors of flow backends build on, in one place; names only, no logic.

`Backend` and `register_backend` make a method known, `DeviceMethod` and `DeviceFrames` say what one
offers that does whole frames on a device. The rest is the arithmetic of ``flowreg``: its
parameters, pyramid, tables and checks. ``scopeflow_torch`` imports nothing else of scopeflow.
"""

from __future__ import annotations

from scopeflow.errors import InputError, OptionsError, nearest_name
from scopeflow.flow.arguments import channel_weights, check_finite
from scopeflow.flow.backends.device import DeviceFrames, DeviceMethod
from scopeflow.flow.backends.registry import (
    ALL_EXECUTORS,
    ENTRY_POINTS,
    Backend,
    Displacement,
    get_backend,
    get_backend_executors,
    is_backend_available,
    list_backends,
    register_backend,
)
from scopeflow.flow.flow import DEFAULT_WARPING_STEPS, SMALLEST_FILTERED, flow_parameters
from scopeflow.flow.parameters import FlowParameters, exponents_of_channels
from scopeflow.flow.pyramid import Level, motion_grid_shape, pyramid_levels
from scopeflow.images.filters import gaussian_weights, sigma_rows
from scopeflow.images.power import EXP2_COEFFICIENTS, LOG2_COEFFICIENTS
from scopeflow.images.resize import AxisTable, full_resolution_tables, pyramid_tables
from scopeflow.images.statistics import FlowStatistics
from scopeflow.images.warp import cast_frames

__all__ = [
    "ALL_EXECUTORS",
    "DEFAULT_WARPING_STEPS",
    "ENTRY_POINTS",
    "EXP2_COEFFICIENTS",
    "LOG2_COEFFICIENTS",
    "SMALLEST_FILTERED",
    "AxisTable",
    "Backend",
    "DeviceFrames",
    "DeviceMethod",
    "Displacement",
    "FlowParameters",
    "FlowStatistics",
    "InputError",
    "Level",
    "OptionsError",
    "cast_frames",
    "channel_weights",
    "check_finite",
    "exponents_of_channels",
    "flow_parameters",
    "full_resolution_tables",
    "gaussian_weights",
    "get_backend",
    "get_backend_executors",
    "is_backend_available",
    "list_backends",
    "motion_grid_shape",
    "nearest_name",
    "pyramid_levels",
    "pyramid_tables",
    "register_backend",
    "sigma_rows",
]
