# The public names, read at run time too: lazy_loader imports a module with the first of its names.
from .config import Channels, ProcessingParams, WorkflowConfig, load_config
from .methods.features import FLUORESCENCE_FEATURES, PHASE_FEATURES, register_feature
from .methods.models import fit_trace
from .methods.registered import register_preprocessor, register_segmentation, register_tracking
from .results.export import export_results
from .results.fit import fit_traces
from .results.merge import merge_traces
from .results.open import FovResults, Results, Traces, open_results
from .results.status import workflow_status
from .results.tidy import export_tidy, read_samples
from .results.view import napari_layers, open_in_napari, save_pictures
from .workflow import run_workflow

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
