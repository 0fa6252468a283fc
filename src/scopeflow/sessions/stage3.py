"""Stage 3 of a session: masks, their intersection, and the recordings aligned to the reference."""

from __future__ import annotations

import logging
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from dask.delayed import Delayed
from numpy.typing import NDArray

from scopeflow.engine.executor import Executor, open_executor
from scopeflow.engine.fingerprint import fingerprint
from scopeflow.engine.ledger import Form
from scopeflow.engine.pieces import Failure, Outcome, Piece, Result, task_of, tasks_of
from scopeflow.engine.place import RegistrationConfig
from scopeflow.engine.progress import FrameProgress
from scopeflow.errors import InputError, InputNotFoundError, ScopeflowError
from scopeflow.images.warp import warp_mask
from scopeflow.io.lazy import LazyVideo
from scopeflow.io.read.hdf5 import open_hdf5
from scopeflow.io.recording import open_recording
from scopeflow.sessions.between import mismatch_reason
from scopeflow.sessions.center import stored_center
from scopeflow.sessions.config import SessionConfig
from scopeflow.sessions.export import plan_export
from scopeflow.sessions.final import (
    FinalFiles,
    FinalResults,
    Inputs,
    finished_elsewhere,
    save_pictures,
)
from scopeflow.sessions.graph import valid_everywhere
from scopeflow.sessions.products import find_or_begin, take_back
from scopeflow.sessions.recordings import (
    SessionRecording,
    absent_frames,
    execution_of,
    find_session_recordings,
    load_averages,
    raise_failures,
    session_writer,
    without_frames,
)
from scopeflow.sessions.stage2 import match_numbers, required_displacements

logger = logging.getLogger(__name__)


def run_stage3(
    config: SessionConfig,
    middle_idx: int | None = None,
    displacement_fields: list[NDArray[Any]] | None = None,
    *,
    execution: RegistrationConfig | None = None,
) -> NDArray[np.bool_]:
    """Find the pixels that are valid in the whole session, and export the aligned recordings.

    Pixels of a recording are valid where they are in all of its frames, but for those that had no
    pixels. That mask is moved to the reference of the session, and the masks of all recordings are
    intersected.

    Parameters
    ----------
    config : SessionConfig
        The session; stages 1 and 2 are done.
    middle_idx : int, optional
        Position of the center, as :func:`run_stage2` returned it.
    displacement_fields : list of ndarray, shape (H, W, 2), optional
        Displacements of the recordings; read from ``w_to_reference.npz`` by default.
    execution : RegistrationConfig, optional
        Where to compute.

    Returns
    -------
    ndarray of bool, shape (H, W)
        The final mask. ``final_results`` holds it as ``final_valid_idx.png``, ``.npz`` and
        ``.mat``, with the masks of the recordings, ``aligned_<recording>.<ext>``, an overlay of
        each recording before and after, and ``session_report.json``.

    Raises
    ------
    InputNotFoundError, OptionsError, SessionError
        When products of earlier stages are missing, or recordings failed; the products of the
        others are finished.
    OutputLockedError
        When another run writes products of the session.

    Examples
    --------
    >>> import tempfile, tifffile
    >>> from pathlib import Path
    >>> from scopeflow import run_stage1, run_stage2
    >>> root = Path(tempfile.mkdtemp())
    >>> frames = np.random.default_rng(0).integers(90, 110, (4, 24, 32)).astype(np.uint16)
    >>> for name in ("a.tif", "b.tif"):
    ...     tifffile.imwrite(root / name, frames, photometric="minisblack")
    >>> config = SessionConfig(root=root, stage1_quality_setting="fast")
    >>> _ = run_stage1(config)
    >>> _ = run_stage2(config)
    >>> run_stage3(config).shape
    (24, 32)
    """
    recordings = find_session_recordings(config)
    files = FinalFiles(config.resolve_output_paths()[1])
    if config.resume and (kept := finished_elsewhere(files)) is not None:
        logger.info("%s: stage 3 was finished by another program.", files.folder)
        return kept
    averages = load_averages(recordings)
    center = _center(config, recordings, middle_idx)
    shape = averages[0].shape[0], averages[0].shape[1]
    fields = required_displacements(recordings, displacement_fields, center, shape)
    inputs = Inputs(recordings, averages, center, fields)
    run_config = execution_of(config, execution)
    with session_writer(config, recordings, wait=run_config.wait):
        return _write_final(config, inputs, files, run_config)


def _write_final(
    config: SessionConfig, inputs: Inputs, files: FinalFiles, run_config: RegistrationConfig
) -> NDArray[np.bool_]:
    recordings = inputs.recordings
    with open_executor(run_config) as executor:
        files.prepare(recordings, config.align_output_format)
        masks, failures = _masks(config, inputs, files, executor)
        pictures = []
        if not failures:
            results = _intersect(config, inputs, masks, executor)
            pictures = _pictures(inputs, results, files)
        failures.update(_export(config, inputs, files, pictures, executor, run_config.progress))
    if failures:
        files.set_stage(3, done=False)
    raise_failures(3, recordings, failures)
    files.save(results, resume=config.resume)
    for recording in recordings:
        recording.set_failure(3, None)
    return results.final_valid


def _center(config: SessionConfig, recordings: list[SessionRecording], given: int | None) -> int:
    if given is not None:
        if not 0 <= given < len(recordings):
            raise InputError(
                f"middle_idx {given} is no recording; there are {len(recordings)}, from 0"
            )
        return int(given)
    if config.center != "auto":
        return config.resolve_center_file([recording.path for recording in recordings])[0]
    stored = stored_center(config, recordings)
    if stored is None:
        raise InputNotFoundError("center='auto' is decided by stage 2. Run Stage 2 first")
    return stored


# -- masks ----------------------------------------------------------------------------------------


def _open_masks(recording: SessionRecording, shape: tuple[int, int]) -> LazyVideo:
    """Open ``idx.hdf``, also as MATLAB writes it: dataset ``idx``, frames last."""
    path = recording.folder / "idx.hdf"
    if not path.is_file():
        raise InputNotFoundError(f"Missing {path}. Run Stage 1 with save_valid_idx=True")
    errors = []
    # In MATLAB's own order the axes of a file appear reversed.
    for axes in (None, "YXT", "TXY"):
        try:
            source = open_hdf5(path, axes=axes)
        except ScopeflowError as error:
            errors.append(Failure.of(error).reason)
            continue
        if source.shape[1:] == (*shape, 1):
            return without_frames(open_recording(source).video, absent_frames(recording))
    raise InputError(
        f"{path} does not hold masks of (H, W) = {shape}"
        + (f": {errors[0]}" if errors else "")
        + ". Run Stage 1 again"
    )


def _damages(recordings: list[SessionRecording]) -> list[str | None]:
    """Say why files of stage 1 cannot be used; None where they can, and for those of others."""

    def look(recording: SessionRecording) -> str | None:
        try:
            if not recording.is_damaged():
                return None
        except (ScopeflowError, OSError) as error:
            return Failure.of(error).reason
        return "a file of stage 1 is missing or was changed. Run Stage 1 again"

    with ThreadPoolExecutor(min(len(recordings), 8)) as pool:  # reading and hashing, side by side
        return list(pool.map(look, recordings))


def _masks(
    config: SessionConfig, inputs: Inputs, files: FinalFiles, executor: Executor
) -> tuple[list[NDArray[np.bool_]], dict[str, str]]:
    """Return the pixels of each recording that are valid in all of its frames."""
    shape = inputs.reference.shape[0], inputs.reference.shape[1]
    masks: list[Any] = [None] * len(inputs.recordings)
    failures: dict[str, str] = {}
    waiting: list[int] = []
    tasks: list[Delayed] = []
    for n, damage in enumerate(_damages(inputs.recordings)):
        recording = inputs.recordings[n]
        try:
            if damage is not None:
                raise InputError(damage)
            video = _open_masks(recording, shape)
            name = f"mask_{recording.name}"
            ledger, form = files.ledger(_mark_of(recording)), Form((), arrays={"mask": 2})
            piece = Piece(name, _keep_mask, (), ledger, recording.name, form=form)
            finished = find_or_begin(piece, resume=config.resume)
        except (ScopeflowError, OSError) as error:
            failures[recording.name] = Failure.of(error).reason
            continue
        if finished is None or finished.arrays["mask"].shape != shape:
            take_back(piece)
            waiting.append(n)
            key = f"session-mask-{recording.name}-{uuid.uuid4().hex[:12]}"
            tasks.append(task_of(piece, valid_everywhere(video), key=key))
        else:
            masks[n] = finished.arrays["mask"].astype(np.bool_)

    def keep(position: int, outcome: Outcome) -> None:
        n = waiting[position]
        if outcome.failure is not None:
            failures[inputs.recordings[n].name] = outcome.failure.reason
        else:
            masks[n] = outcome.arrays["mask"]

    executor.run(tasks, keep)
    return masks, failures


def _mark_of(recording: SessionRecording) -> str:
    """Return what other masks of the frames of a recording would change."""
    path = recording.folder / "idx.hdf"
    stamp = path.stat()
    return fingerprint({"path": path, "size": stamp.st_size, "time": stamp.st_mtime_ns})


def _keep_mask(valid: Outcome) -> Result:
    return Result(arrays={"mask": valid.content})


def _intersect(
    config: SessionConfig,
    inputs: Inputs,
    masks: list[NDArray[np.bool_]],
    executor: Executor,
) -> FinalResults:
    numbers = match_numbers(
        config, inputs.recordings, inputs.averages, inputs.displacements, inputs.center, executor
    )
    mismatches = [
        None if n == inputs.center else mismatch_reason(config, values)
        for n, values in enumerate(numbers)
    ]
    included = np.array([why is None or config.mismatch == "report" for why in mismatches])
    for recording, why in zip(inputs.recordings, mismatches, strict=True):
        if why is not None:
            logger.warning(
                "%s does not match the reference (%s)%s.",
                recording.name,
                why,
                "" if config.mismatch == "report" else "; it is left out of the final mask",
            )
    aligned = [
        warp_mask(mask, np.asarray(w, np.float32))
        for mask, w in zip(masks, inputs.displacements, strict=True)
    ]
    final = np.logical_and.reduce([m for m, kept in zip(aligned, included, strict=True) if kept])
    if not final.any():
        logger.warning("No pixel is valid in all recordings; look at the table of the session.")
    return FinalResults(inputs, masks, aligned, final, included, numbers, mismatches)


def _pictures(inputs: Inputs, results: FinalResults, files: FinalFiles) -> list[Piece]:
    """Return a piece of work for the pictures of each recording."""
    return [
        Piece(
            "session-pictures",
            save_pictures,
            (
                files.folder,
                recording.name,
                results.masks[n],
                results.aligned_masks[n],
                inputs.averages[n],
                inputs.displacements[n],
                inputs.reference,
            ),
            group=recording.name,
        )
        for n, recording in enumerate(inputs.recordings)
    ]


# -- aligned recordings ---------------------------------------------------------------------------


def _export(
    config: SessionConfig,
    inputs: Inputs,
    files: FinalFiles,
    pictures: list[Piece],
    executor: Executor,
    show: bool | None,
) -> dict[str, str]:
    """Write the aligned recordings, one task each, and pictures; return why some failed."""
    failures: dict[str, str] = {}
    exports: list[Piece] = []
    for n, recording in enumerate(inputs.recordings):
        try:
            piece = plan_export(config, recording, inputs.displacements[n], inputs.reference, files)
        except (ScopeflowError, OSError) as error:
            failures[recording.name] = Failure.of(error).reason
            continue
        if find_or_begin(piece, resume=config.resume) is None:
            files.set_stage(3, done=False)
            exports.append(piece)
    pieces = [*exports, *pictures]
    total = sum(piece.frames for piece in exports)
    with FrameProgress(total, "aligning recordings", show if exports else False) as progress:

        def keep(position: int, outcome: Outcome) -> None:
            piece = pieces[position]
            if outcome.failure is not None:
                failures[piece.group] = outcome.failure.reason
                return
            clipped = outcome.values.get("clipped")
            if clipped:
                logger.info("%s: %d aligned values were clipped.", piece.group, clipped)
            if piece.frames:
                progress.advance(piece.frames)

        executor.run(tasks_of(pieces), keep)
    return failures
