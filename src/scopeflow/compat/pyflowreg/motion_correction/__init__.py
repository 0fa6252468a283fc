"""Motion correction under the names of PyFlowReg."""

from __future__ import annotations

from scopeflow.compat.pyflowreg.motion_correction.compensate_arr import compensate_arr
from scopeflow.compat.pyflowreg.motion_correction.compensate_recording import (
    BatchMotionCorrector,
    compensate_recording,
)
from scopeflow.compat.pyflowreg.motion_correction.flow_reg_live import FlowRegLive
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
