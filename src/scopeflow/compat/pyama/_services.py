"""The steps of the cell workflow one by one, as services; the work is that of the workflow."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

from scopeflow.cells.claim import taken_output
from scopeflow.cells.config import WorkflowConfig, load_config
from scopeflow.cells.plan import plan_workflow
from scopeflow.cells.store.arrays import fov_folder
from scopeflow.cells.store.fovs import open_fovs, recording_name
from scopeflow.cells.store.tables import BASE_COLUMNS
from scopeflow.cells.workflow import run_steps, run_workflow
from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import InputError, OptionsError, ScopeflowError
from scopeflow.io.files import atomic_path

__all__ = [
    "BackgroundEstimationService",
    "CachingService",
    "CopyingService",
    "CroppingService",
    "ExtractionService",
    "SegmentationService",
    "TrackingService",
    "run_complete_workflow",
    "run_single_worker",
    "split_worker_ranges",
]

logger = logging.getLogger(__name__)

Config = WorkflowConfig | Mapping[str, Any] | str | os.PathLike[str]


def _recording(metadata: Any) -> Any:
    """Return the recording that metadata are of: a path, a mapping, an object, or itself."""
    if isinstance(metadata, Mapping):
        if "file_path" not in metadata:
            raise InputError("metadata: has no file_path; give the path of the recording")
        return metadata["file_path"]
    return getattr(metadata, "file_path", metadata)


def _config(given: Config) -> WorkflowConfig:
    if isinstance(given, WorkflowConfig):
        return given
    return WorkflowConfig(**given) if isinstance(given, Mapping) else load_config(given)


def _existing(fovs: Sequence[int] | None, numbers: Sequence[int]) -> list[int]:
    wanted = list(numbers if fovs is None else fovs)
    if not wanted or any(n not in numbers for n in wanted):
        raise OptionsError(
            f"Invalid FOV range {wanted}: the recording has fields of view 0 to {numbers[-1]}"
        )
    return wanted


def _run(
    last: str,
    metadata: Any,
    config: WorkflowConfig,
    output: str | os.PathLike[str],
    fovs: Sequence[int] | None,
    cancel: Event | None,
) -> tuple[list[int], dict[int, str], bool]:
    """Run all steps up to one; return done FOVs, reasons of failed ones, whether cancelled."""
    params = config.params.model_copy(update={"fovs": "all"})
    plan = plan_workflow(
        _recording(metadata), output, WorkflowConfig(channels=config.channels, params=params)
    )
    wanted = _existing(fovs, [fov.fov for fov in plan.fovs])
    plan = replace(plan, fovs=tuple(fov for fov in plan.fovs if fov.fov in wanted))
    with taken_output(plan):
        # One thread: whoever calls services has threads of their own.
        run = run_steps(plan, RegistrationConfig(n_jobs=1), last, cancel)
    failed = run.failed | run.without_pictures
    done = [] if run.cancelled else [fov for fov in wanted if fov not in failed]
    return done, failed, run.cancelled


class _Service:
    """One step; those before it are done too where they are not finished.

    Parameters
    ----------
    method : str, optional
        Registered name, in the place of that of the configuration; segmentation and tracking only.
    """

    step: ClassVar[str]
    kind: ClassVar[str | None] = None

    def __init__(self, method: str | None = None) -> None:
        if method is not None and self.kind is None:
            raise OptionsError(f"{type(self).__name__} has no method to choose; leave it out")
        self.method = method

    def process_all_fovs(
        self,
        metadata: Any,
        config: Config,
        output_dir: str | os.PathLike[str],
        fov_start: int | None = None,
        fov_end: int | None = None,
        cancel_event: Event | None = None,
    ) -> None:
        """Process the fields of view (FOVs) of an inclusive range.

        Parameters
        ----------
        metadata : path, mapping or object with ``file_path``, or recording
            What to process.
        config : WorkflowConfig, mapping or path
            Channels and parameters.
        output_dir : path
            Folder of the results.
        fov_start, fov_end : int, optional
            First and last FOV; by default all.
        cancel_event : threading.Event, optional
            Setting it stops the work; what is finished stays.

        Raises
        ------
        ScopeflowError
            If a FOV fails, after the others are done; or for bad input, before anything is.
        """
        first = 0 if fov_start is None else fov_start
        fovs = None if fov_end is None and fov_start is None else range(first, (fov_end or 0) + 1)
        if fov_end is None and fov_start is not None:
            raise OptionsError(f"Invalid FOV range: fov_start={fov_start} needs fov_end")
        self._process(metadata, config, output_dir, fovs, cancel_event)

    def process_fov(
        self,
        metadata: Any,
        config: Config,
        output_dir: str | os.PathLike[str],
        fov: int,
        cancel_event: Event | None = None,
    ) -> None:
        """Process one FOV; see :meth:`process_all_fovs`."""
        self._process(metadata, config, output_dir, [fov], cancel_event)

    def _process(
        self,
        metadata: Any,
        config: Config,
        output: str | os.PathLike[str],
        fovs: Sequence[int] | None,
        cancel: Event | None,
    ) -> None:
        chosen = _config(config)
        if self.method is not None:
            key = f"{self.kind}_method"
            params = chosen.params.model_copy(update={key: self.method})
            chosen = WorkflowConfig(channels=chosen.channels, params=params)
        _, failed, _ = _run(self.step, metadata, chosen, output, fovs, cancel)
        if failed:
            reasons = "; ".join(f"FOV {fov} failed: {why}" for fov, why in sorted(failed.items()))
            raise ScopeflowError(reasons)


class CopyingService(_Service):
    """Step 1: images as 16-bit stacks."""

    step = "copy"


class SegmentationService(_Service):
    """Step 2: objects of every frame."""

    step = "segmentation"
    kind = "segmentation"


class TrackingService(_Service):
    """Step 3: numbers of cells through time."""

    step = "tracking"
    kind = "tracking"


class BackgroundEstimationService(_Service):
    """Step 4: background of fluorescence."""

    step = "background_estimation"


class CroppingService(_Service):
    """Step 5: crops of cells."""

    step = "cropping"


class ExtractionService(_Service):
    """Step 6: features and traces; where no channel is chosen, tables with a header alone."""

    step = "extraction"

    def _process(
        self,
        metadata: Any,
        config: Config,
        output: str | os.PathLike[str],
        fovs: Sequence[int] | None,
        cancel: Event | None,
    ) -> None:
        channels = _config(config).channels
        if channels.pc is not None or channels.fl:
            super()._process(metadata, config, output, fovs, cancel)
            return
        recording = _recording(metadata)
        count = len(open_fovs(recording, z=_config(config).params.z))
        wanted = _existing(fovs, range(count))
        for fov in wanted:
            name = fov_folder(fov)
            path = Path(output) / name / f"{recording_name(recording)}_{name}_traces.csv"
            if not path.exists():
                logger.warning("FOV %d: no channel is chosen; %s has a header alone", fov, path)
                with atomic_path(path) as partial:
                    partial.write_text(",".join(BASE_COLUMNS) + "\n", encoding="utf-8")


class CachingService(_Service):
    """Step 7: small pictures for viewers."""

    step = "caching"


def split_worker_ranges(fovs: Sequence[int], n_workers: int) -> list[list[int]]:
    """Cut a list into contiguous parts whose lengths differ by one at most, larger ones first.

    Parameters
    ----------
    fovs : sequence of int
        Fields of view.
    n_workers : int
        Number of parts; 0 or less makes one. Empty parts are left out.

    Examples
    --------
    >>> split_worker_ranges(range(10), 3), split_worker_ranges([0, 1], 4)
    ([[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]], [[0], [1]])
    """
    numbers = list(fovs)
    parts = max(1, n_workers)
    least, more = divmod(len(numbers), parts)
    sizes = [least + (n < more) for n in range(parts)]
    starts = [sum(sizes[:n]) for n in range(parts)]
    return [
        numbers[start : start + size] for start, size in zip(starts, sizes, strict=True) if size
    ]


def run_single_worker(
    fovs: Sequence[int],
    metadata: Any,
    config: Config,
    output_dir: str | os.PathLike[str],
    cancel_event: Event | None = None,
) -> tuple[Sequence[int], int, int, str]:
    """Process exactly these fields of view, from segmentation to extraction; never raises.

    Returns
    -------
    tuple
        ``(fovs, successful, failed, message)``; the message is ``Completed``, ``Cancelled``, or the
        reasons. One field of view that fails does not stop the others.
    """
    if cancel_event is not None and cancel_event.is_set():
        return fovs, 0, len(fovs), "Cancelled"
    try:
        done, failed, cancelled = _run(
            "extraction", metadata, _config(config), output_dir, fovs, cancel_event
        )
    except Exception as error:
        logger.exception("Error processing FOVs %s", list(fovs))
        return fovs, 0, len(fovs), str(error)
    if cancelled:
        return fovs, 0, len(fovs), "Cancelled"
    reasons = "; ".join(f"FOV {fov}: {why}" for fov, why in sorted(failed.items()))
    return fovs, len(done), len(failed), reasons or "Completed"


def run_complete_workflow(
    metadata: Any,
    config: Config,
    output_dir: str | os.PathLike[str],
    *,
    cancel_event: Event | None = None,
) -> bool:
    """Run all steps on the fields of view that the configuration names.

    Returns
    -------
    bool
        Whether all were done; see :func:`scopeflow.run_workflow`.
    """
    return run_workflow(
        _recording(metadata), output_dir, _config(config), cancel_event=cancel_event
    )
