"""The names of the PyAMA workflow reference on top of scopeflow; names only, no logic.

``pyama.processing.workflow.run`` becomes ``scopeflow.compat.pyama.processing.workflow.run``.
"""

from __future__ import annotations

from scopeflow.cells.config import (
    Channels,
    ChannelSelection,
    ProcessingParams,
    WorkflowConfig,
    load_config,
)
from scopeflow.cells.methods.display import halve_mean as generate_half_resolution
from scopeflow.cells.methods.features import (
    FLUORESCENCE_FEATURES,
    PHASE_FEATURES,
    register_feature,
)
from scopeflow.cells.methods.registered import register_preprocessor
from scopeflow.compat.pyama._services import (
    BackgroundEstimationService,
    CachingService,
    CopyingService,
    CroppingService,
    ExtractionService,
    SegmentationService,
    TrackingService,
    run_complete_workflow,
    run_single_worker,
)
from scopeflow.compat.pyama.processing import workflow

__all__ = [
    "FLUORESCENCE_FEATURES",
    "PHASE_FEATURES",
    "BackgroundEstimationService",
    "CachingService",
    "ChannelSelection",
    "Channels",
    "CopyingService",
    "CroppingService",
    "ExtractionService",
    "ProcessingParams",
    "SegmentationService",
    "TrackingService",
    "WorkflowConfig",
    "generate_half_resolution",
    "load_config",
    "register_feature",
    "register_preprocessor",
    "run_complete_workflow",
    "run_single_worker",
    "workflow",
]
