"""Motion correction under the names of PyFlowReg."""

from __future__ import annotations

from typing import Any

from scopeflow.compat.pyflowreg.motion_correction.compensate_arr import compensate_arr
from scopeflow.compat.pyflowreg.motion_correction.compensate_recording import (
    BatchMotionCorrector,
    compensate_recording,
)
from scopeflow.compat.pyflowreg.motion_correction.OF_options import (
    ChannelNormalization,
    OFOptions,
    OutputFormat,
    QualitySetting,
)

__all__ = [
    "BatchMotionCorrector",
    "ChannelNormalization",
    "FlowRegLive",
    "OFOptions",
    "OutputFormat",
    "QualitySetting",
    "compensate_arr",
    "compensate_recording",
]


def __getattr__(name: str) -> Any:
    if name != "FlowRegLive":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scopeflow.compat.pyflowreg.motion_correction import flow_reg_live

    return flow_reg_live.FlowRegLive
