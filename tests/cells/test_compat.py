"""The code blocks of the workflow reference run on the names of ``scopeflow.compat.pyama``."""

from __future__ import annotations

import hashlib
import logging
import sys
from threading import Event

import numpy as np
import pytest
import zarr

import scopeflow.compat.pyama as pyama
from scopeflow.cells import open_results, run_workflow
from scopeflow.cells.methods import registered as cells_methods
from scopeflow.cells.methods.features import PHASE_FEATURES
from scopeflow.compat.pyama import WorkflowConfig, workflow
from scopeflow.errors import OptionsError, ScopeflowError
from tests.cell_movies import cell_config, cell_movie
from tests.oracles.nd2_writer import write_nd2

# As the reference has it; `update_progress` and `cleanup_partial_results` are the caller's.
BATCH = '''
from concurrent.futures import ThreadPoolExecutor, as_completed
from pyama.processing.workflow.run import run_single_worker

def run_batch(fov_batch, config, n_workers, metadata, output_dir, cancel_event):
    """Process a batch of FOVs in parallel."""
    # Sequential copying (I/O bound)
    copy_service = CopyingService()
    copy_service.process_all_fovs(
        metadata=metadata, config=config, output_dir=output_dir,
        fov_start=fov_batch[0], fov_end=fov_batch[-1], cancel_event=cancel_event,
    )
    # Copy-only mode: skip processing stages
    if config.params.copy_only:
        return
    # Parallel processing (CPU bound)
    worker_ranges = _split_worker_ranges(fov_batch, n_workers)
    with ThreadPoolExecutor(max_workers=n_workers) as executor:
        futures = {
            executor.submit(
                run_single_worker, fov_range, metadata, config, output_dir, cancel_event,
            ): fov_range
            for fov_range in worker_ranges
        }
        # Wait for completion with progress tracking
        for future in as_completed(futures):
            fov_range, successful, failed, message = future.result()
            update_progress(successful, failed, message)
    # Generate visualization cache after all processing
    if overall_success:
        caching_service = CachingService()
        caching_service.process_all_fovs(
            metadata=metadata, config=config, output_dir=output_dir,
            fov_start=fov_batch[0], fov_end=fov_batch[-1], cancel_event=cancel_event,
        )
'''

WORKER = '''
def run_single_worker(fovs, metadata, config, output_dir, cancel_event):
    """Worker function for parallel FOV processing."""
    try:
        # Initialize services
        segmentation = SegmentationService(method=config.params.segmentation_method)
        tracking = TrackingService(method=config.params.tracking_method)
        background_estimation = BackgroundEstimationService()
        cropping = CroppingService()
        extraction = ExtractionService()
        # Process each service sequentially for FOV range
        segmentation.process_all_fovs(metadata, config, output_dir, fovs[0], fovs[-1], cancel_event)
        if cancel_event and cancel_event.is_set():
            return (fovs, 0, len(fovs), "Cancelled")
        tracking.process_all_fovs(metadata, config, output_dir, fovs[0], fovs[-1], cancel_event)
        if cancel_event and cancel_event.is_set():
            return (fovs, 0, len(fovs), "Cancelled")
        background_estimation.process_all_fovs(
            metadata, config, output_dir, fovs[0], fovs[-1], cancel_event)
        if cancel_event and cancel_event.is_set():
            return (fovs, 0, len(fovs), "Cancelled")
        cropping.process_all_fovs(metadata, config, output_dir, fovs[0], fovs[-1], cancel_event)
        if cancel_event and cancel_event.is_set():
            return (fovs, 0, len(fovs), "Cancelled")
        extraction.process_all_fovs(metadata, config, output_dir, fovs[0], fovs[-1], cancel_event)
        return (fovs, len(fovs), 0, "Completed")
    except Exception as e:
        logger.error(f"Error processing FOVs {fovs[0]}-{fovs[-1]}: {e}")
        return (fovs, 0, len(fovs), str(e))
'''

PARAMETERS = """
segmentation_params = {
    'logstd_window_size': 3,    # Neighborhood for std computation
    'morph_size': 7,            # Structuring element size
    'morph_iterations': 3,      # Number of opening/closing iterations
    'min_object_size': 50,      # Minimum cell size in pixels
    'max_object_size': 10000,   # Maximum cell size in pixels
}
tracking_params = {
    'min_iou': 0.1,         # Minimum IoU for cell matching
    'min_frames': 30,       # Minimum trace length
    'border_margin': 50,    # Exclusion margin (pixels)
}
"""

FEATURE = """
def extract_custom_feature(image, mask, context):
    # Implement custom logic
    feature_value = image[mask].max()
    return feature_value

# Register in feature system
PHASE_FEATURES['custom_feature'] = extract_custom_feature
"""

PREPROCESSOR = """
class CustomPreprocessor:
    def process(self, image):
        # Custom preprocessing
        processed_image = image * 0
        return processed_image

# Inject into workflow
workflow.register_preprocessor(CustomPreprocessor())
"""


def contents(output):
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file() and ".scopeflow" not in path.parts and path.suffix != ".yaml"
    }


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    sizes = {"n_frames": 3, "height": 80, "width": 96, "n_cells": 1, "late": False}
    movies = [cell_movie(seed=s, **sizes) for s in range(3)]
    path = tmp_path_factory.mktemp("raw") / "plate.nd2"
    data = np.stack([np.stack([m.phase, m.fluorescence], 1) for m in movies], 1)
    write_nd2(path, data, ["Phase", "GFP"], period_s=300)
    return path


@pytest.fixture(scope="module")
def expected(recording, tmp_path_factory):
    output = tmp_path_factory.mktemp("done") / "out"
    assert run_workflow(recording, output, cell_config())
    return contents(output)


@pytest.fixture
def names(monkeypatch):
    """What a script has after ``from pyama import *``."""
    root = "scopeflow.compat.pyama"
    for part in ("", ".processing", ".processing.workflow", ".processing.workflow.run"):
        __import__(root + part)
        monkeypatch.setitem(sys.modules, f"pyama{part}", sys.modules[root + part])
    run = sys.modules[f"{root}.processing.workflow.run"]
    found = {name: getattr(pyama, name) for name in pyama.__all__}
    found |= {"_split_worker_ranges": run._split_worker_ranges, "logger": logging.getLogger("test")}
    return found


@pytest.mark.parametrize("own_worker", [pytest.param(False, marks=pytest.mark.slow), True])
def test_batches_of_the_reference_give_what_the_workflow_gives(
    recording, expected, names, tmp_path, own_worker
):
    told = []
    names |= {"update_progress": lambda *words: told.append(words), "overall_success": True}
    exec(BATCH, names)
    if own_worker:
        exec(WORKER, names)
    metadata = {"file_path": str(recording)}
    names["run_batch"]([0, 1, 2], cell_config(), 2, metadata, tmp_path / "out", Event())
    assert sorted(told) == [(1, 0, "Completed"), (2, 0, "Completed")]
    assert contents(tmp_path / "out") == expected


def test_copy_only_stops_after_copying(recording, names, tmp_path):
    exec(BATCH, names)
    names["run_batch"]([1], cell_config(copy_only=True), 1, recording, tmp_path, None)
    assert sorted(open_results(tmp_path)[1].names) == ["fl_ch_1", "pc_ch_0"]


def test_workers_count_exactly_and_never_raise(recording, tmp_path):
    set_event = Event()
    set_event.set()
    run = workflow.run_single_worker
    assert run([0, 2], recording, cell_config(), tmp_path, set_event) == ([0, 2], 0, 2, "Cancelled")
    fovs, done, failed, why = run([1, 7], recording, cell_config(), tmp_path)
    assert (fovs, done, failed) == ([1, 7], 0, 2)
    assert "Invalid FOV range [1, 7]" in why
    config = cell_config()
    pyama.CopyingService().process_all_fovs(recording, config, tmp_path, 0, 2)
    (tmp_path / "fov_002" / "images.zarr" / "seg_labeled_ch_0").write_text("in the way")
    fovs, done, failed, why = run([0, 2], recording, config, tmp_path)
    assert (done, failed) == (1, 1)
    assert why.startswith("FOV 2: ")
    # Exactly the listed ones: 1 was copied and no more.
    assert sorted(open_results(tmp_path)[1].names) == ["fl_ch_1", "pc_ch_0"]
    with pytest.raises(ScopeflowError, match="FOV 2 failed"):
        pyama.SegmentationService().process_fov(recording, config, tmp_path, 2)
    with pytest.raises(OptionsError, match="no method"):
        pyama.CroppingService(method="logstd")
    with pytest.raises(OptionsError, match="'logstd'"):
        pyama.SegmentationService(method="logstt").process_fov(recording, config, tmp_path, 0)


def test_complete_workflow(recording, expected, tmp_path):
    assert pyama.run_complete_workflow({"file_path": recording}, cell_config(), tmp_path)
    assert contents(tmp_path) == expected


def test_parameters_of_the_reference_are_the_defaults():
    names: dict = {}
    exec(PARAMETERS, names)
    given = {**names["segmentation_params"], **names["tracking_params"]}
    params = WorkflowConfig(params=given).params
    assert params == WorkflowConfig().params
    assert params.get("min_frames", 30) == 30
    assert params.get("border_margin", 50) == params.border_margin == 50
    assert not WorkflowConfig().params.copy_only


def test_extension_blocks_of_the_reference(recording, names, tmp_path):
    try:
        exec(FEATURE, names)
        config = WorkflowConfig(
            channels={"pc": [0, ["custom_feature"]]},
            params={"fovs": [0], "min_frames": 1, "border_margin": 0},
        )
        assert run_workflow(recording, tmp_path / "a", config)
    finally:
        del PHASE_FEATURES["custom_feature"]
    fov = open_results(tmp_path / "a")[0]
    image = zarr.open_array(fov.folder / "images.zarr/pc_ch_0/0", mode="r")[:]
    cells = fov.labels.to_numpy()
    for row in fov.table.itertuples():
        counts = image[row.frame][cells[row.frame] == row.cell]
        assert row.custom_feature_ch_0 == counts.max()
    try:
        exec(PREPROCESSOR, names)
        # A frame of zeros holds no cells.
        assert run_workflow(recording, tmp_path / "b", WorkflowConfig(channels={"pc": 0}))
    finally:
        cells_methods._PREPROCESSORS.clear()
    assert not open_results(tmp_path / "b")[0].labels.any()
