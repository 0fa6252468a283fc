"""The names of the PyAMA workflow reference on top of scopeflow; names only, no logic.

``pyama.processing.workflow.run`` becomes ``scopeflow.compat.pyama.processing.workflow.run``.
"""

from __future__ import annotations

from scopeflow.compat.pyama.processing import workflow
from scopeflow.config.cells import (
    Channels,
    ChannelSelection,
    ProcessingParams,
    WorkflowConfig,
    load_config,
)
from scopeflow.kernels.cells_display import halve_mean as generate_half_resolution
from scopeflow.kernels.cells_features import (
    FLUORESCENCE_FEATURES,
    PHASE_FEATURES,
    register_feature,
)
from scopeflow.pipelines.cells_methods import register_preprocessor
from scopeflow.pipelines.cells_services import (
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
