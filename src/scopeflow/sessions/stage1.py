"""Stage 1 of a session: correct every recording, average it, and write down what is done."""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from scopeflow.engine.executor import Executor, open_executor
from scopeflow.engine.fingerprint import fingerprint
from scopeflow.engine.ledger import Form
from scopeflow.engine.pieces import Failure, Outcome, Piece, Result, task_of
from scopeflow.engine.place import RegistrationConfig
from scopeflow.engine.progress import FrameProgress
from scopeflow.errors import InputError, OptionsError, ScopeflowError, SessionError
from scopeflow.io.files import atomic_save_npy
from scopeflow.io.open import open_source
from scopeflow.io.recording import open_recording
from scopeflow.motion.correct import BatchMotionCorrector
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.plan import CorrectionPlan, plan_correction
from scopeflow.sessions.config import TASK_VARIABLES, SessionConfig, get_array_task_id
from scopeflow.sessions.graph import temporal_mean
from scopeflow.sessions.products import find_or_begin
from scopeflow.sessions.recordings import (
    AVERAGE,
    SessionRecording,
    execution_of,
    find_session_recordings,
    load_average,
    odd_shapes,
    raise_failures,
    session_writer,
    without_frames,
)

logger = logging.getLogger(__name__)


def run_stage1(
    config: SessionConfig,
    of_options_override: Mapping[str, Any] | None = None,
    task_index: int | None = None,
    *,
    execution: RegistrationConfig | None = None,
) -> list[Path]:
    """Correct the motion within each recording of a session, and average each.

    Several recordings are in work at the same time and share the workers, so that one recording's
    chain of batches never leaves workers idle. A recording that fails does not stop the others.

    Parameters
    ----------
    config : SessionConfig
        The session.
    of_options_override : mapping, optional
        Options of `OFOptions` that win over ``config.flow_options``.
    task_index : int, optional
        Only this recording, counted from 0.
    execution : RegistrationConfig, optional
        Where to compute, in place of ``config.scheduler`` and ``config.n_workers``.

    Returns
    -------
    list of Path
        Folder of each recording, with ``compensated.hdf5`` (or ``.zarr``), ``idx.hdf``,
        ``motion.h5``, ``temporal_average.npy``, ``statistics.npz``, ``reference_frame.npy`` and
        ``status.json``.

    Raises
    ------
    OptionsError
        When `task_index` is out of range or an option cannot be used; nothing is written.
    OutputLockedError
        When another run writes products of these recordings.
    SessionError
        When recordings failed; the others are finished.

    Examples
    --------
    >>> import tempfile, numpy as np, tifffile
    >>> from scopeflow import SessionConfig
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ("a.tif", "b.tif"):
    ...     frames = np.random.default_rng(0).integers(90, 110, (6, 24, 32)).astype(np.uint16)
    ...     tifffile.imwrite(root / name, frames, photometric="minisblack")
    >>> config = SessionConfig(root=root, stage1_quality_setting="fast")
    >>> [folder.name for folder in run_stage1(config)]
    ['a', 'b']
    """
    chosen = _chosen(find_session_recordings(config), task_index)
    run_config = execution_of(config, execution)
    with session_writer(config, chosen, whole=task_index is None, wait=run_config.wait):
        _correct_all(config, chosen, of_options_override, execution)
    return [recording.folder for recording in chosen]


def _correct_all(
    config: SessionConfig,
    chosen: list[SessionRecording],
    override: Mapping[str, Any] | None,
    execution: RegistrationConfig | None,
) -> None:
    run_config = execution_of(config, execution)
    jobs, failures = plan_stage1(config, chosen, override, execution=execution)
    planned = [(recording, plan) for recording, plan in jobs if plan is not None]
    if planned:
        total = sum(plan.grid.n_frames for _, plan in planned)
        with (
            open_executor(run_config) as executor,
            FrameProgress(total, "correcting recordings", run_config.progress) as shown,
        ):
            correct = functools.partial(
                _correct,
                executor=executor,
                config=dataclasses.replace(run_config, progress=False),
                progress=_SharedProgress(shown),
            )
            # One more than there are workers: its export and its average overlap with computing.
            at_once = 1 if executor.n_workers == 1 else min(len(planned), executor.n_workers + 1)
            failures.update(_side_by_side(correct, planned, at_once))
    raise_failures(1, chosen, failures)


def run_stage1_array(
    config: SessionConfig,
    of_options_override: Mapping[str, Any] | None = None,
    *,
    execution: RegistrationConfig | None = None,
) -> list[Path]:
    """Correct the recording of this task of an array job (SLURM, SGE, PBS).

    Tasks count from 1, in the order of the sorted paths. They need no network between them and may
    run in any order and at the same time; submitting the array again resumes.

    Parameters
    ----------
    config, of_options_override, execution
        As for :func:`run_stage1`.

    Returns
    -------
    list of Path
        The folder of the recording.

    Raises
    ------
    SessionError
        When no task number is found in the environment, or the recording failed.
    OptionsError
        When there is no such recording.

    Examples
    --------
    >>> import tempfile
    >>> try:
    ...     run_stage1_array(SessionConfig(root=tempfile.mkdtemp()))
    ... except SessionError as error:
    ...     print(error)
    No array task ID found in environment. Set SLURM_ARRAY_TASK_ID, SGE_TASK_ID, or PBS_ARRAY_INDEX.
    """
    task = get_array_task_id()
    if task is None:
        raise SessionError(
            f"No array task ID found in environment. Set {', '.join(TASK_VARIABLES[:-1])}, or "
            f"{TASK_VARIABLES[-1]}."
        )
    return run_stage1(config, of_options_override, task - 1, execution=execution)


def _chosen(recordings: list[SessionRecording], index: int | None) -> list[SessionRecording]:
    if index is None:
        return recordings
    if not 0 <= index < len(recordings):
        raise OptionsError(f"Task index {index} out of range [0, {len(recordings) - 1}]")
    return [recordings[index]]


def plan_stage1(
    config: SessionConfig,
    recordings: list[SessionRecording],
    override: Mapping[str, Any] | None = None,
    *,
    execution: RegistrationConfig | None = None,
    dry_run: bool = False,
) -> tuple[list[tuple[SessionRecording, CorrectionPlan | None]], dict[str, str]]:
    """Check every recording and work out what stage 1 will do; computes nothing.

    Returns recordings that can be corrected, without a plan where another program has done so, and
    why others cannot, by name. A dry run leaves unfinished results of other programs where they
    are.

    Raises OptionsError: when the options cannot be used for any recording.
    """
    options = config.stage1_options(override)
    run_config = execution_of(config, execution)
    jobs: list[tuple[SessionRecording, CorrectionPlan | None]] = []
    failures: dict[str, str] = {}
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for recording in recordings:
        try:
            shape, plan = _plan(config, recording, options, run_config, dry_run)
        except (ScopeflowError, OSError) as error:
            failures[recording.name] = Failure.of(error).reason
            continue
        shapes.append((recording.name, shape))
        jobs.append((recording, plan))
    odd = odd_shapes(shapes)
    failures.update(odd)
    return [job for job in jobs if job[0].name not in odd], failures


def _plan(
    config: SessionConfig,
    recording: SessionRecording,
    options: OFOptions,
    run_config: RegistrationConfig,
    dry_run: bool,
) -> tuple[tuple[int, ...], CorrectionPlan | None]:
    mine = options.copy()
    mine.input_file = str(recording.path)
    mine.output_path = recording.folder
    if recording.has_foreign_stage1():
        shape = _finished_elsewhere(config, recording, mine)
        if shape is not None and run_config.resume:
            logger.info("%s: stage 1 was finished by another program.", recording.name)
            return shape, None
        if dry_run:
            raise InputError(
                "results of another program that are not complete stand in its folder; they would "
                "be moved aside and computed anew"
            )
        recording.set_stage1_aside()
    plan = plan_correction(mine, run_config, selection=config.reading_choices())
    return plan.recording.video.shape[1:], plan


def _finished_elsewhere(
    config: SessionConfig, recording: SessionRecording, options: OFOptions
) -> tuple[int, ...] | None:
    """Return (H, W, C) of a recording that another program has corrected completely, else None."""
    corrected = recording.corrected()
    masks = recording.folder / "idx.hdf"
    if corrected is None or not masks.is_file() or not recording.stage_done(1):
        return None
    channels = options.channel_idx
    opened = open_recording(
        recording.path,
        bin_size=options.bin_size,
        channels=[channels] if isinstance(channels, int) else channels,
        **config.reading_choices(),
    )
    if opened.absent:
        return None  # other programs have taken these frames for black ones
    raw = opened.video.shape
    try:
        found = open_source(corrected).shape
        average = load_average(recording)
    except (ScopeflowError, OSError):
        return None
    return found[1:] if found == raw and average.shape == found[1:] else None


class _StopWork(BaseException):
    """Ends the thread of a recording when the run is given up; no error of that recording."""


class _SharedProgress:
    """One progress of several threads, and how they are told to stop."""

    def __init__(self, progress: FrameProgress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def advance(self, frames: int, *, reused: bool = False) -> None:
        if self.stopped.is_set():
            raise _StopWork
        if frames:
            with self._lock:
                self._progress.advance(frames, reused=reused)


def _side_by_side(
    correct: functools.partial[str | None],
    planned: list[tuple[SessionRecording, CorrectionPlan]],
    at_once: int,
) -> dict[str, str]:
    """Correct recordings in threads of their own; their tasks share the executor."""
    if at_once == 1:
        reasons = {recording.name: correct(recording, plan) for recording, plan in planned}
    else:
        reasons = {}
        with ThreadPoolExecutor(at_once, thread_name_prefix="recording") as pool:
            futures = {pool.submit(correct, *each): each[0].name for each in planned}
            try:
                for future in as_completed(futures):
                    reasons[futures[future]] = future.result()
            except BaseException:
                correct.keywords["progress"].stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _correct(
    recording: SessionRecording,
    plan: CorrectionPlan,
    *,
    executor: Executor,
    config: RegistrationConfig,
    progress: _SharedProgress,
) -> str | None:
    """Correct one recording and average it; return why that failed, or None."""
    counted = 0

    def count(*_: int) -> None:
        nonlocal counted
        counted += 1
        progress.advance(1)

    try:
        if not (config.resume and recording.stage_done(1)):
            recording.set_stage(1, done=False)
        corrector = BatchMotionCorrector(plan.options, config)
        corrector.register_progress_callback(count)
        corrector.run_plan(plan, executor)
        failure = _average(recording, plan, executor, resume=config.resume)
        if failure is not None:
            return failure.reason
        recording.set_stage(1, done=True)
        progress.advance(plan.grid.n_frames - counted, reused=True)
    except Exception as error:
        # Whatever it is, it must not stop the other recordings.
        logger.debug("%s: what led to the failure:", recording.name, exc_info=True)
        return Failure.of(error).reason
    logger.info("%s: stage 1 is done.", recording.name)
    return None


def _average(
    recording: SessionRecording, plan: CorrectionPlan, executor: Executor, *, resume: bool
) -> Failure | None:
    """Average the corrected frames, unless that is done; return why that failed, or None."""
    assert plan.files is not None
    ledger = recording.ledger(fingerprint(plan.settings))
    piece = Piece(
        AVERAGE,
        _save_average,
        (recording,),
        ledger,
        recording.name,
        form=Form(files=(recording.average.name,)),
    )
    if find_or_begin(piece, resume=resume) is not None:
        return None
    recording.set_begun(AVERAGE)
    absent = plan.recording.absent
    if absent:
        logger.warning(
            "%s: %d of %d frames have no pixels; they are left out of its average and mask.",
            recording.name,
            len(absent),
            plan.grid.n_frames,
        )
    mean = temporal_mean(without_frames(open_recording(plan.files.target).video, absent))
    outcome: Outcome = executor.compute(task_of(piece, mean, key=f"{AVERAGE}-{uuid.uuid4().hex}"))
    return outcome.failure


def _save_average(recording: SessionRecording, mean: Outcome) -> Result:
    atomic_save_npy(recording.average, mean.content)
    return Result(files=[recording.average.name])
