"""Which modules of other programs only pass names on, and where these names come from.

For each program and each of its modules, by the path below the program: the modules that its names
are taken from, those of the program itself with a dot before them. ``*`` are all names that such a
module lists in ``__all__``, ``there=here`` is a name that changes, and of two equal names the later
one wins. A module that is not in the table is an adapter and has a file of its own.
"""

from __future__ import annotations

_PYFLOWREG = {
    "": {
        "scopeflow._version": "__version__",
        ".core": "get_displacement",
        ".motion_correction": "*",
    },
    "._runtime": {"._context": "RuntimeContext"},
    ".core": {".core.backend_registry": "*", ".core.optical_flow": "get_displacement"},
    ".core.backend_registry": {
        "scopeflow.flow.backends.registry": (
            "get_backend get_backend_executors is_backend_available list_backends register_backend"
        ),
    },
    ".core.optical_flow": {
        ".core.warping": "imregister_wrapper",
        "scopeflow.flow.flow": "get_displacement",
    },
    ".motion_correction": {
        ".motion_correction.compensate_arr": "compensate_arr",
        ".motion_correction.compensate_recording": "BatchMotionCorrector compensate_recording",
        ".motion_correction.flow_reg_live": "FlowRegLive",
        ".motion_correction.OF_options": (
            "ChannelNormalization OFOptions OutputFormat QualitySetting"
        ),
    },
    ".motion_correction.compensate_arr": {
        "scopeflow.motion.arrays": "compensate_arr compensate_pair",
    },
    ".motion_correction.parallelization": {
        "._executors": (
            "BaseExecutor MultiprocessingExecutor SequentialExecutor ThreadingExecutor"
        ),
    },
    ".motion_correction.parallelization.base": {"._executors": "BaseExecutor"},
    ".motion_correction.parallelization.multiprocessing": {
        "._executors": "MultiprocessingExecutor",
    },
    ".motion_correction.parallelization.sequential": {"._executors": "SequentialExecutor"},
    ".motion_correction.parallelization.threading": {"._executors": "ThreadingExecutor"},
    ".session": {"scopeflow.session": "*", ".session.config": "SessionConfig"},
    ".session.stage1_compensate": {"scopeflow.session.stage1_compensate": "*"},
    ".session.stage2_between_avgs": {"scopeflow.session.stage2_between_avgs": "*"},
    ".session.stage3_valid_mask": {"scopeflow.session.stage3_valid_mask": "*"},
    ".util.io": {
        ".util.io._arr": "*",
        ".util.io._base": "VideoReader VideoWriter",
        ".util.io.factory": "*",
    },
    ".util.io._null": {".util.io._arr": "NullVideoWriter"},
    ".util.io.hdf5": {".util.io._files": "HDF5FileReader HDF5FileWriter"},
    ".util.io.mat": {".util.io._files": "MATFileReader MATFileWriter"},
    ".util.io.multifile_wrappers": {".util.io._files": "MULTICHANNELFileReader"},
    ".util.io.tiff": {".util.io._files": "TIFFFileReader TIFFFileWriter"},
}

_PYAMA = {
    "": {
        "scopeflow.cells.config": (
            "Channels ChannelSelection ProcessingParams WorkflowConfig load_config"
        ),
        "scopeflow.cells.methods.display": "halve_mean=generate_half_resolution",
        "scopeflow.cells.methods.features": (
            "FLUORESCENCE_FEATURES PHASE_FEATURES register_feature"
        ),
        "._services": (
            "BackgroundEstimationService CachingService CopyingService CroppingService "
            "ExtractionService SegmentationService TrackingService"
        ),
        ".processing.workflow": "register_preprocessor run_complete_workflow run_single_worker",
        ".processing": "workflow",
    },
    ".processing": {},
    ".processing.workflow": {
        ".processing.workflow.run": "run_complete_workflow run_single_worker",
        "scopeflow.cells.methods.registered": "register_preprocessor",
    },
    ".processing.workflow.run": {
        "._services": (
            "run_complete_workflow run_single_worker split_worker_ranges=_split_worker_ranges"
        ),
    },
}

NAMES = {"scopeflow.compat.pyama": _PYAMA, "scopeflow.compat.pyflowreg": _PYFLOWREG}
