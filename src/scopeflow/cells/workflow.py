"""The cell workflow: the story of its seven steps, from a recording to traces."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from threading import Event
from typing import Any

from scopeflow.cells.config import WorkflowConfig
from scopeflow.cells.plan import CONFIG_FILE, WorkflowPlan, plan_workflow
from scopeflow.cells.run import Cancelled, Fov, Progress, Run
from scopeflow.cells.stale import check_mixture, remove_stale
from scopeflow.cells.steps.caching import cache
from scopeflow.cells.steps.images import background, copy, segment
from scopeflow.cells.steps.results import crop, extract
from scopeflow.cells.steps.track import track
from scopeflow.engine.executor import open_executor
from scopeflow.engine.place import RegistrationConfig
from scopeflow.io.files import atomic_path, save_json

__all__ = ["STEPS", "run_plan", "run_workflow", "write_settings"]

logger = logging.getLogger(__name__)

STEPS = {
    "copy": copy,
    "segmentation": segment,
    "tracking": track,
    "background_estimation": background,
    "cropping": crop,
    "extraction": extract,
    "caching": cache,
}
"""The steps in their order, by the name that progress reports."""


def run_workflow(
    recording: Any,
    output: str | os.PathLike[str],
    config: WorkflowConfig | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    client: Any = None,
    cancel_event: Event | None = None,
    progress: Progress | None = None,
) -> bool:
    """Find, follow and measure cells in all fields of view (FOVs) of a recording.

    Seven steps: images are copied, cells found in phase contrast (LOG-STD), followed (IoU and
    Hungarian assignment), the background of fluorescence estimated, cells cut out, features
    measured, and small pictures made for viewers. Running it again continues an earlier run; steps
    whose parameters changed, and those after them, are done again.

    Parameters
    ----------
    recording : str, Path, list of them, ndarray or Source
        ND2, CZI, OME-TIFF, OME-Zarr or any other recording that scopeflow opens.
    output : path
        Folder of the results.
    config : WorkflowConfig, mapping or path, optional
        Channels and parameters; by default those of an earlier run in `output`.
    client : distributed.Client, optional
        Cluster to run on; by default the active client, else ``n_workers`` threads.
    cancel_event : threading.Event, optional
        Setting it stops the run; what was finished is kept, and the next run goes on from there.
    progress : callable, optional
        Called with ``{"step", "fov", "t", "T", "message"}``.

    Returns
    -------
    bool
        Whether every FOV was done. False after a cancellation or when one failed; the log says why.

    Raises
    ------
    ScopeflowError
        For input, options or output that cannot be used, before anything is written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> folder = tempfile.mkdtemp()
    >>> movie = np.zeros((2, 32, 32, 1), "uint16")
    >>> run_workflow(movie, folder, {"channels": {"fl": [0]}, "params": {"copy_only": True}})
    True
    >>> sorted(path.name for path in Path(folder).glob("*"))
    ['.scopeflow', 'fov_000', 'processing_config.yaml']
    """
    plan = plan_workflow(recording, output, config)
    return run_plan(plan, client=client, cancel_event=cancel_event, progress=progress)


def run_plan(
    plan: WorkflowPlan,
    *,
    client: Any = None,
    cancel_event: Event | None = None,
    progress: Progress | None = None,
) -> bool:
    """Run a checked plan; parameters as for :func:`run_workflow`."""
    place = RegistrationConfig(n_jobs=plan.config.params.n_workers, client=client)
    write_settings(plan)
    with open_executor(place) as executor:
        run = Run(executor, cancel_event, progress)
        size = plan.config.params.batch_size
        try:
            for first in range(0, len(plan.fovs), size):
                _run_batch(run, [Fov(fov) for fov in plan.fovs[first : first + size]])
        except Cancelled:
            logger.warning("The workflow was cancelled; the same call continues it.")
            return False
    for fov, reason in sorted(run.failed.items()):
        logger.error("FOV %d failed: %s", fov, reason)
    for fov, reason in sorted(run.without_pictures.items()):
        logger.warning("FOV %d: its small pictures for viewers failed: %s", fov, reason)
    return not run.failed


def write_settings(plan: WorkflowPlan) -> None:
    """Write which recording and which configuration the results are of; they never mix.

    Raises
    ------
    OutputExistsError
        As :func:`~scopeflow.cells.stale.check_mixture`, before anything is changed.
    """
    check_mixture(plan)
    remove_stale(plan)
    file = plan.metadata["file_path"]
    save_json(plan.settings_path, {"recording": plan.identity, "file": file})
    text = plan.config.to_yaml(plan.metadata)
    target = plan.output / CONFIG_FILE
    if target.exists() and target.read_text(encoding="utf-8") != text:
        logger.warning("%s differs from this run and is replaced; changed steps run again", target)
    with atomic_path(target) as partial:
        partial.write_text(text, encoding="utf-8")


def _run_batch(run: Run, fovs: list[Fov]) -> None:
    for name, step in STEPS.items():
        if name != "copy" and fovs[0].plan.config.params.copy_only:
            return
        run.check()
        before = set(run.failed)
        step(run, name, fovs)
        if name == "caching":  # for viewers alone: results are whole without it
            for fov in set(run.failed) - before:
                run.without_pictures[fov] = run.failed.pop(fov)
