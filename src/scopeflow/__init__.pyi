# The public names, read at run time too: lazy_loader imports a module with the first of its names.
from ._version import __version__
from .cells.config import WorkflowConfig
from .cells.workflow import run_workflow
from .engine.place import RegistrationConfig
from .flow.backends.registry import (
    get_backend,
    is_backend_available,
    list_backends,
    register_backend,
)
from .flow.flow import get_displacement
from .io.formats import OutputFormat
from .io.recording import open_video
from .motion.arrays import compensate_arr
from .motion.correct import BatchMotionCorrector, compensate_recording
from .motion.live import FlowRegLive
from .motion.motion import Motion, compute_motion
from .motion.options.enums import (
    ChannelNormalization,
    ConstancyAssumption,
    InterpolationMethod,
    NamingConvention,
    QualitySetting,
)
from .motion.options.of_options import OFOptions
from .sessions.config import SessionConfig, get_array_task_id
from .sessions.run import SessionResult, run_session, session_status
from .sessions.stage1 import run_stage1, run_stage1_array
from .sessions.stage2 import run_stage2
from .sessions.stage3 import run_stage3

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
