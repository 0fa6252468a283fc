"""The cell workflow: the story of its seven steps, from a recording to traces."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from threading import Event
from typing import Any

from scopeflow.cells.claim import taken_output
from scopeflow.cells.config import WorkflowConfig
from scopeflow.cells.plan import WorkflowPlan, plan_workflow
from scopeflow.cells.run import Fov, FovFailed, Progress, Run
from scopeflow.cells.steps.background import background
from scopeflow.cells.steps.copy import copy
from scopeflow.cells.steps.crop import crop
from scopeflow.cells.steps.display import display
from scopeflow.cells.steps.extract import extract
from scopeflow.cells.steps.segment import segment
from scopeflow.cells.steps.track import track
from scopeflow.engine.executor import open_executor
from scopeflow.engine.place import RegistrationConfig

__all__ = ["STEPS", "run_plan", "run_steps", "run_workflow"]

logger = logging.getLogger(__name__)

STEPS = {
    "copy": copy,
    "segmentation": segment,
    "tracking": track,
    "background_estimation": background,
    "cropping": crop,
    "extraction": extract,
    "caching": display,
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
    wait: bool = False,
) -> bool:
    """Find, follow and measure cells in all fields of view (FOVs) of a recording.

    Seven steps: images are copied, cells found in phase contrast (LOG-STD), followed (IoU and
    Hungarian assignment), the background of fluorescence estimated, cells cut out, features
    measured, and small pictures made for viewers. ``batch_size`` FOVs are in work at a time, each
    step by step, whatever the others do. Running it again continues an earlier run; steps whose
    parameters or methods changed, and those after them, are done again, and a warning says what
    changed.

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
        Called with ``{"step", "fov", "t", "T", "message"}``, by one thread at a time.
    wait : bool, optional
        Wait for another run that writes the same FOVs there, instead of refusing.

    Returns
    -------
    bool
        Whether every FOV was done. False after a cancellation or when one failed; the log says why.

    Raises
    ------
    OutputLockedError
        When another run writes one of the FOVs there; runs of other FOVs may.
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
    return run_plan(plan, client=client, cancel_event=cancel_event, progress=progress, wait=wait)


def run_plan(
    plan: WorkflowPlan,
    *,
    client: Any = None,
    cancel_event: Event | None = None,
    progress: Progress | None = None,
    wait: bool = False,
) -> bool:
    """Run a checked plan; parameters as for :func:`run_workflow`."""
    place = RegistrationConfig(n_jobs=plan.config.params.n_workers, client=client)
    last = "copy" if plan.config.params.copy_only else "caching"
    with taken_output(plan, wait=wait):
        run = run_steps(plan, place, last, cancel_event, progress)
    if run.cancelled:
        logger.warning("The workflow was cancelled; the same call continues it.")
        return False
    for fov, reason in sorted(run.failed.items()):
        logger.error("FOV %d failed: %s", fov, reason)
    for fov, reason in sorted(run.without_pictures.items()):
        logger.warning("FOV %d: its small pictures for viewers failed: %s", fov, reason)
    return not run.failed


def run_steps(
    plan: WorkflowPlan,
    place: RegistrationConfig,
    last: str,
    cancel_event: Event | None = None,
    progress: Progress | None = None,
) -> Run:
    """Run the steps of all FOVs up to the `last` one, in an output that is taken already."""
    names = list(STEPS)[: list(STEPS).index(last) + 1]

    def follow(fov: Fov) -> None:
        for name in names:
            fov.run.check()
            fov.step = name
            try:
                STEPS[name](fov)
            except FovFailed as failure:
                if name != "caching":  # for viewers alone: results are whole without it
                    raise
                fov.run.without_pictures[fov.plan.fov] = str(failure)

    with open_executor(place) as executor:
        run = Run(executor, plan.config.params.batch_size, cancel_event, progress)
        run.each(plan.fovs, follow)
    return run
