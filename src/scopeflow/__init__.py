"""Motion correction of microscopy video on dask and zarr: the public names, imported on first use.

Importing this module costs nothing; numba, dask and xarray come with the first name that needs
them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scopeflow.config.cells import WorkflowConfig
    from scopeflow.config.enums import (
        ChannelNormalization,
        ConstancyAssumption,
        InterpolationMethod,
        NamingConvention,
        OutputFormat,
        QualitySetting,
    )
    from scopeflow.config.options import OFOptions
    from scopeflow.config.registration import RegistrationConfig
    from scopeflow.config.session import SessionConfig, get_array_task_id
    from scopeflow.kernels.backends import (
        get_backend,
        is_backend_available,
        list_backends,
        register_backend,
    )
    from scopeflow.kernels.flow import get_displacement
    from scopeflow.pipelines.arrays import compensate_arr
    from scopeflow.pipelines.cells import run_workflow
    from scopeflow.pipelines.correct import BatchMotionCorrector, compensate_recording
    from scopeflow.pipelines.live import FlowRegLive
    from scopeflow.pipelines.motion import Motion, compute_motion
    from scopeflow.pipelines.session import SessionResult, run_session, session_status
    from scopeflow.pipelines.session_stage1 import run_stage1, run_stage1_array
    from scopeflow.pipelines.session_stage2 import run_stage2
    from scopeflow.pipelines.session_stage3 import run_stage3
    from scopeflow.pipelines.video import open_video

__version__ = "0.1.0"

__all__ = [
    "BatchMotionCorrector",
    "ChannelNormalization",
    "ConstancyAssumption",
    "FlowRegLive",
    "InterpolationMethod",
    "Motion",
    "NamingConvention",
    "OFOptions",
    "OutputFormat",
    "QualitySetting",
    "RegistrationConfig",
    "SessionConfig",
    "SessionResult",
    "WorkflowConfig",
    "__version__",
    "compensate_arr",
    "compensate_recording",
    "compute_motion",
    "get_array_task_id",
    "get_backend",
    "get_displacement",
    "is_backend_available",
    "list_backends",
    "open_video",
    "register_backend",
    "run_session",
    "run_stage1",
    "run_stage1_array",
    "run_stage2",
    "run_stage3",
    "run_workflow",
    "session_status",
]

_HOME = {
    "BatchMotionCorrector": "scopeflow.pipelines.correct",
    "ChannelNormalization": "scopeflow.config.enums",
    "ConstancyAssumption": "scopeflow.config.enums",
    "FlowRegLive": "scopeflow.pipelines.live",
    "InterpolationMethod": "scopeflow.config.enums",
    "Motion": "scopeflow.pipelines.motion",
    "NamingConvention": "scopeflow.config.enums",
    "OFOptions": "scopeflow.config.options",
    "OutputFormat": "scopeflow.config.enums",
    "QualitySetting": "scopeflow.config.enums",
    "RegistrationConfig": "scopeflow.config.registration",
    "SessionConfig": "scopeflow.config.session",
    "SessionResult": "scopeflow.pipelines.session",
    "WorkflowConfig": "scopeflow.config.cells",
    "compensate_arr": "scopeflow.pipelines.arrays",
    "compensate_recording": "scopeflow.pipelines.correct",
    "compute_motion": "scopeflow.pipelines.motion",
    "get_array_task_id": "scopeflow.config.session",
    "get_backend": "scopeflow.kernels.backends",
    "get_displacement": "scopeflow.kernels.flow",
    "is_backend_available": "scopeflow.kernels.backends",
    "list_backends": "scopeflow.kernels.backends",
    "open_video": "scopeflow.pipelines.video",
    "register_backend": "scopeflow.kernels.backends",
    "run_session": "scopeflow.pipelines.session",
    "run_stage1": "scopeflow.pipelines.session_stage1",
    "run_stage1_array": "scopeflow.pipelines.session_stage1",
    "run_stage2": "scopeflow.pipelines.session_stage2",
    "run_stage3": "scopeflow.pipelines.session_stage3",
    "session_status": "scopeflow.pipelines.session",
    "run_workflow": "scopeflow.pipelines.cells",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scopeflow' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
