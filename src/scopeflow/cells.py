"""The cell workflow in one place: running it, its results, and what can be added; names only."""

from __future__ import annotations

from scopeflow.config.cells import Channels, ProcessingParams, WorkflowConfig, load_config
from scopeflow.kernels.cells_features import (
    FLUORESCENCE_FEATURES,
    PHASE_FEATURES,
    register_feature,
)
from scopeflow.kernels.cells_models import fit_trace
from scopeflow.pipelines.cells import run_workflow
from scopeflow.pipelines.cells_export import export_results
from scopeflow.pipelines.cells_fit import fit_traces
from scopeflow.pipelines.cells_merge import merge_traces
from scopeflow.pipelines.cells_methods import (
    register_preprocessor,
    register_segmentation,
    register_tracking,
)
from scopeflow.pipelines.cells_open import FovResults, Results, Traces, open_results
from scopeflow.pipelines.cells_status import workflow_status
from scopeflow.pipelines.cells_tidy import export_tidy, read_samples
from scopeflow.pipelines.cells_view import napari_layers, open_in_napari, save_pictures

__all__ = [
    "FLUORESCENCE_FEATURES",
    "PHASE_FEATURES",
    "Channels",
    "FovResults",
    "ProcessingParams",
    "Results",
    "Traces",
    "WorkflowConfig",
    "export_results",
    "export_tidy",
    "fit_trace",
    "fit_traces",
    "load_config",
    "merge_traces",
    "napari_layers",
    "open_in_napari",
    "open_results",
    "read_samples",
    "register_feature",
    "register_preprocessor",
    "register_segmentation",
    "register_tracking",
    "run_workflow",
    "save_pictures",
    "workflow_status",
]
