"""The import tree of PyFlowReg: a script moves over by changing the prefix of its imports.

Defaults that differ there are kept here: ``output_format`` is ``MAT``, and files are corrected in
processes unless something else is asked for. What the documentation of PyFlowReg promises holds.
"""

from __future__ import annotations

from scopeflow._version import __version__
from scopeflow.compat.pyflowreg.core import get_displacement
from scopeflow.compat.pyflowreg.motion_correction import (
    BatchMotionCorrector,
    ChannelNormalization,
    FlowRegLive,
    OFOptions,
    OutputFormat,
    QualitySetting,
    compensate_arr,
    compensate_recording,
)

__all__ = [
    "BatchMotionCorrector",
    "ChannelNormalization",
    "FlowRegLive",
    "OFOptions",
    "OutputFormat",
    "QualitySetting",
    "__version__",
    "compensate_arr",
    "compensate_recording",
    "get_displacement",
]
