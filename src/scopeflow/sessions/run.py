"""A whole session: its three stages in order, and what of them is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.engine.executor import ClusterExecutor, open_executor
from scopeflow.engine.place import RegistrationConfig
from scopeflow.io.state import load_state
from scopeflow.sessions.center import stored_center
from scopeflow.sessions.config import SessionConfig
from scopeflow.sessions.final import REPORT, FinalFiles, Report
from scopeflow.sessions.recordings import (
    SessionRecording,
    execution_of,
    find_session_recordings,
    session_writer,
)
from scopeflow.sessions.stage1 import run_stage1, run_stage1_array
from scopeflow.sessions.stage2 import run_stage2
from scopeflow.sessions.stage3 import run_stage3


@dataclass(frozen=True, eq=False)
class SessionResult:
    """What a session gives.

    Attributes
    ----------
    output_folders : list of Path
        Folder of each recording; of this task's recording only, in an array job.
    middle_idx : int or None
        Position of the center, from 0; None in an array job.
    center_file : Path or None
        Its raw recording.
    displacement_fields : list of ndarray, shape (H, W, 2)
        Of each recording against the center, pixels.
    final_valid : ndarray of bool, shape (H, W), or None
        Pixels that are valid in the whole session.
    """

    output_folders: list[Path]
    middle_idx: int | None = None
    center_file: Path | None = None
    displacement_fields: list[NDArray[Any]] | None = None
    final_valid: NDArray[np.bool_] | None = None


def run_session(
    config: SessionConfig,
    of_options_override: Mapping[str, Any] | None = None,
    *,
    execution: RegistrationConfig | None = None,
) -> SessionResult:
    """Correct, average, align and export all recordings of a session.

    Runs :func:`run_stage1`, :func:`run_stage2` and :func:`run_stage3`. With
    ``scheduler="array"`` it corrects the recording of this task only; run stages 2 and 3 when all
    tasks are done.

    Parameters
    ----------
    config : SessionConfig
        The session.
    of_options_override : mapping, optional
        Options of `OFOptions` for stage 1 that win over ``config.flow_options``.
    execution : RegistrationConfig, optional
        Where to compute, in place of ``config.scheduler`` and ``config.n_workers``.

    Returns
    -------
    SessionResult
        Folders, center, displacements and final mask.

    Raises
    ------
    ScopeflowError
        One clear error for bad input, before anything is written.
    OutputLockedError
        When another run writes products of the session.
    SessionError
        When recordings failed in a stage; its other recordings are finished, later stages are not
        begun. Running it again resumes.

    Examples
    --------
    >>> import tempfile, tifffile
    >>> from scopeflow.testing.synthetic import synthetic_recording
    >>> root = Path(tempfile.mkdtemp())
    >>> video = synthetic_recording(8, 48, 64, seed=1, translation_px=1.0).video
    >>> for name, shift in (("a.tif", 0), ("b.tif", 3)):
    ...     moved = np.roll(video[..., 0], shift, axis=2)
    ...     tifffile.imwrite(root / name, moved, photometric="minisblack")
    >>> result = run_session(SessionConfig(root=root, stage1_quality_setting="fast"))
    >>> result.center_file.name, result.final_valid.shape
    ('a.tif', (48, 64))
    """
    if config.scheduler == "array":
        folders = run_stage1_array(config, of_options_override, execution=execution)
        return SessionResult(folders)
    run_config = execution_of(config, execution)
    recordings = find_session_recordings(config)
    with (
        session_writer(config, recordings, wait=run_config.wait),
        open_executor(run_config) as executor,
    ):
        if isinstance(executor, ClusterExecutor):
            # One cluster for all stages.
            run_config = replace(
                run_config,
                parallelization=None,
                scheduler_address=None,
                client=executor.client,
            )
        folders = run_stage1(config, of_options_override, execution=run_config)
        center, center_file, fields = run_stage2(config, execution=run_config)
        final = run_stage3(config, center, fields, execution=run_config)
    return SessionResult(folders, center, center_file, fields, final)


@dataclass(frozen=True)
class RecordingStatus:
    """What is done for one recording.

    `stages`: for each stage ``done``, ``missing``, ``failed`` or ``damaged``.
    `reasons`: why a stage is not done, one line each.
    `numbers`: similarity before and after, loop error, share of valid pixels, mismatch; after stage
        3.
    """

    recording: SessionRecording
    stages: tuple[str, str, str]
    reasons: tuple[str, ...]
    is_center: bool
    numbers: dict[str, Any]


def session_status(config: SessionConfig, *, verify: bool = False) -> list[RecordingStatus]:
    """Tell what is done, what is missing, and why; reads small files, computes nothing.

    Parameters
    ----------
    config : SessionConfig
        The session.
    verify : bool, optional
        Read all files of stage 1 and compare them with their digests.

    Returns
    -------
    list of RecordingStatus
        In the order of the recordings: ``stages`` (``done``, ``missing``, ``failed`` or ``damaged``
        for each), ``reasons`` and ``numbers``.

    Raises
    ------
    InputNotFoundError
        When no file matches the pattern of the session.

    Examples
    --------
    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "a.tif").touch()
    >>> [status.stages for status in session_status(SessionConfig(root=root))]
    [('missing', 'missing', 'missing')]
    """
    recordings = find_session_recordings(config)
    final = FinalFiles(config.resolve_output_paths()[1])
    report = load_state(final.folder / REPORT, Report)
    listed = [] if report is None else report.recordings
    numbers = {entry.name: entry.model_dump(exclude_unset=True) for entry in listed}
    center: int | None = stored_center(config, recordings)
    if config.center != "auto":
        center = config.resolve_center_file([recording.path for recording in recordings])[0]
    return [
        _status_of(recording, final, numbers.get(recording.name, {}), center, verify=verify)
        for recording in recordings
    ]


def _status_of(
    recording: SessionRecording,
    final: FinalFiles,
    numbers: dict[str, Any],
    center: int | None,
    *,
    verify: bool,
) -> RecordingStatus:
    stages, reasons = [], []
    products: dict[int, list[Path | None]] = {
        1: [recording.corrected(), recording.folder / "idx.hdf", recording.average],
        2: [recording.displacement],
        3: [final.folder / f"{recording.name}_valid_idx.png"],
    }
    for stage, files in products.items():
        done = final.stage_done(3) if stage == 3 else recording.stage_done(stage)
        missing = [path for path in files if path is None or not path.exists()]
        reason = recording.failure(stage)
        if reason is not None:
            stages.append("failed")
            reasons.append(f"stage {stage}: {reason}")
        elif not done:
            stages.append("missing")
        elif missing:
            stages.append("damaged")
            gone = missing[0] or recording.folder / "compensated.hdf5"
            reasons.append(f"stage {stage}: {gone} is missing; run it again")
        elif stage == 1 and verify and recording.is_damaged():
            stages.append("damaged")
            reasons.append("stage 1: a file was changed since it was written; run it again")
        else:
            stages.append("done")
    return RecordingStatus(
        recording,
        (stages[0], stages[1], stages[2]),
        tuple(reasons),
        recording.index == center,
        numbers,
    )
