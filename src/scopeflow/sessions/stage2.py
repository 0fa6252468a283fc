"""Stage 2 of a session: choose the center, find the displacement of every average against it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scopeflow.engine.executor import Executor, open_executor
from scopeflow.engine.ledger import Form
from scopeflow.engine.pieces import Outcome, Piece, Result, find_piece, tasks_of
from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import OptionsError, SessionError
from scopeflow.io.files import atomic_save_npz
from scopeflow.sessions.between import MatchNumbers, between_parameters, match_mark, numbers_of
from scopeflow.sessions.center import choose_center
from scopeflow.sessions.config import SessionConfig
from scopeflow.sessions.match import (
    BetweenParameters,
    Match,
    assess,
    displacement_between,
    match,
)
from scopeflow.sessions.products import take_back
from scopeflow.sessions.recordings import (
    SessionRecording,
    execution_of,
    find_session_recordings,
    load_averages,
    load_displacement,
    raise_failures,
    session_writer,
)

logger = logging.getLogger(__name__)

DISPLACEMENT: Final = "w_to_reference"


def run_stage2(
    config: SessionConfig, *, execution: RegistrationConfig | None = None
) -> tuple[int, Path, list[NDArray[Any]]]:
    """Find the displacement of every recording's average against that of the center.

    A rigid shift by phase correlation comes first, then Gaussian smoothing of each channel by
    itself, then optical flow. Any number of channels, frames of any proportions.

    Parameters
    ----------
    config : SessionConfig
        The session; stage 1 is done.
    execution : RegistrationConfig, optional
        Where to compute.

    Returns
    -------
    middle_idx : int
        Position of the center among the sorted recordings, from 0.
    center_file : Path
        Its raw recording.
    displacement_fields : list of ndarray, shape (H, W, 2)
        ``average(y + v, x + u)`` shows what ``reference(y, x)`` shows; pixels, float64, zeros of
        float32 for the center. Also written as ``w_to_reference.npz``, arrays ``u`` and ``v``.

    Raises
    ------
    InputNotFoundError
        When stage 1 has not made an average.
    InputError
        When averages are damaged or differ in shape.
    OutputLockedError
        When another run writes products of the session.
    SessionError
        When recordings failed; the others are finished.

    References
    ----------
    Flotho et al., "Flow-Registration", J. Biophotonics 2022, doi 10.1002/jbio.202100330, and its
    documented alignment of sessions.

    Examples
    --------
    >>> import tempfile, tifffile
    >>> from scopeflow import run_stage1
    >>> root = Path(tempfile.mkdtemp())
    >>> frames = np.random.default_rng(0).integers(90, 110, (4, 24, 32)).astype(np.uint16)
    >>> for name in ("a.tif", "b.tif"):
    ...     tifffile.imwrite(root / name, frames, photometric="minisblack")
    >>> config = SessionConfig(root=root, stage1_quality_setting="fast")
    >>> _ = run_stage1(config)
    >>> center, path, displacements = run_stage2(config)
    >>> center, path.name, displacements[1].shape
    (0, 'a.tif', (24, 32, 2))
    """
    recordings = find_session_recordings(config)
    averages = load_averages(recordings)
    run_config = execution_of(config, execution)
    with (
        session_writer(config, recordings, wait=run_config.wait),
        open_executor(run_config) as executor,
    ):
        center = choose_center(config, recordings, averages, executor)
        found, failures = _displacements(config, recordings, averages, center, executor)
    raise_failures(2, recordings, failures)
    return center, recordings[center].path, found


def _displacements(
    config: SessionConfig,
    recordings: list[SessionRecording],
    averages: list[NDArray[np.float64]],
    center: int,
    executor: Executor,
) -> tuple[list[NDArray[Any]], dict[str, str]]:
    """Return the displacements ``(H, W, 2)``, and why some could not be found, by name."""
    reference = averages[center]
    parameters = between_parameters(config)
    shape = reference.shape[0], reference.shape[1]
    found: list[NDArray[Any] | None] = [None] * len(recordings)
    waiting: list[tuple[int, Piece]] = []
    for n, recording in enumerate(recordings):
        moving = None if n == center else averages[n]
        piece = Piece(
            DISPLACEMENT,
            _save_displacement,
            (recording, reference, moving, parameters),
            recording.ledger(match_mark(config, reference, averages[n])),
            recording.name,
            form=_form(recording),
        )
        w = _finished(recording, piece, shape, is_center=n == center) if config.resume else None
        if w is not None:
            found[n] = w
            recording.set_failure(2, None)
            continue
        recording.set_stage(2, done=False)
        if not recording.has_begun(DISPLACEMENT):
            recording.set_aside([recording.displacement.name])
            recording.set_begun(DISPLACEMENT)
        take_back(piece)
        waiting.append((n, piece))
    failures: dict[str, str] = {}

    def keep(position: int, outcome: Outcome) -> None:
        n, _ = waiting[position]
        recording = recordings[n]
        if outcome.failure is not None:
            failures[recording.name] = outcome.failure.reason
            return
        # What a lost worker has finished is not computed again: then the file has it.
        found[n] = load_displacement(recording, shape) if outcome.reused else outcome.content
        if found[n] is None:
            failures[recording.name] = f"{recording.displacement} is missing or damaged"
            return
        recording.set_stage(2, done=True)
        logger.info("%s: stage 2 is done.", recording.name)

    executor.run(tasks_of([piece for _, piece in waiting]), keep)
    return [w for w in found if w is not None], failures


def _form(recording: SessionRecording) -> Form:
    return Form((recording.displacement.name,), MatchNumbers)


def _finished(
    recording: SessionRecording, piece: Piece, shape: tuple[int, int], *, is_center: bool
) -> NDArray[Any] | None:
    """Return a displacement that an earlier run, or another program, has finished."""
    if recording.has_begun(DISPLACEMENT):
        if find_piece(piece) is None:
            return None
        if not recording.stage_done(2):
            recording.set_stage(2, done=True)
        return load_displacement(recording, shape)
    if not recording.stage_done(2):
        return None
    w = load_displacement(recording, shape)
    if w is None or bool(np.any(w)) == is_center:
        return None  # damaged, or against another center
    logger.info("%s: stage 2 was finished by another program.", recording.name)
    return w


def _save_displacement(
    recording: SessionRecording,
    reference: NDArray[np.float64],
    moving: NDArray[np.float64] | None,
    parameters: BetweenParameters,
) -> Result:
    """Find and write the displacement of an average; none to move is the reference itself."""
    if moving is None:
        nowhere: NDArray[Any] = np.zeros((*reference.shape[:2], 2), np.float32)
        found = Match(nowhere, 1.0, 1.0, 0.0, 1.0)
    else:
        found = match(reference, moving, parameters)
    u, v = (np.ascontiguousarray(found.displacement[..., n]) for n in range(2))
    atomic_save_npz(recording.displacement, u=u, v=v)
    return Result([recording.displacement.name], numbers_of(found), content=found.displacement)


def match_numbers(
    config: SessionConfig,
    recordings: list[SessionRecording],
    averages: list[NDArray[np.float64]],
    displacements: list[NDArray[Any]],
    center: int,
    executor: Executor,
) -> list[dict[str, float | None]]:
    """Return similarity, loop error and overlap of every recording.

    Those of stage 2 are taken where they are of the given displacements; displacements of another
    program are assessed.
    """
    parameters = between_parameters(config)
    reference = averages[center]
    numbers: list[dict[str, float | None]] = [{} for _ in recordings]
    waiting: list[int] = []
    for n, recording in enumerate(recordings):
        if n == center:
            numbers[n] = numbers_of(Match(displacements[n], 1.0, 1.0, 0.0, 1.0))
            continue
        ledger = recording.ledger(match_mark(config, reference, averages[n]))
        record = ledger.find(DISPLACEMENT, _form(recording))
        stored = load_displacement(recording, (reference.shape[0], reference.shape[1]))
        if record is not None and stored is not None and np.array_equal(stored, displacements[n]):
            numbers[n] = dict(record.values)
        else:
            waiting.append(n)

    def keep(position: int, outcome: Outcome) -> None:
        if outcome.failure is not None:
            raise SessionError(f"{recordings[waiting[position]].name}: {outcome.failure.reason}")
        numbers[waiting[position]] = outcome.values

    pieces = [
        Piece("session-assess", _assess, (reference, averages[n], displacements[n], parameters))
        for n in waiting
    ]
    executor.run(tasks_of(pieces), keep)
    return numbers


def _assess(
    reference: NDArray[Any],
    moving: NDArray[Any],
    displacement: NDArray[Any],
    parameters: BetweenParameters,
) -> Result:
    backward = displacement_between(moving, reference, parameters)
    forward = np.asarray(displacement, np.float64)
    return Result(values=numbers_of(assess(reference, moving, forward, backward)))


def required_displacements(
    recordings: list[SessionRecording],
    given: list[NDArray[Any]] | None,
    center: int,
    shape: tuple[int, int],
) -> list[NDArray[Any]]:
    """Return the displacements that stage 3 needs: given ones, or those of the files.

    Raises OptionsError: when given ones do not fit, or the files are of another center.
    Raises SessionError: when files are missing or damaged.
    """
    if given is not None:
        fitting = [np.asarray(w) for w in given]
        if len(fitting) != len(recordings) or any(w.shape != (*shape, 2) for w in fitting):
            raise OptionsError(
                f"displacement_fields are {len(fitting)} arrays of shapes "
                f"{sorted({w.shape for w in fitting})}; {len(recordings)} of shape {(*shape, 2)} "
                "are needed"
            )
        return fitting
    found: list[NDArray[Any]] = []
    missing: dict[str, str] = {}
    for recording in recordings:
        w = load_displacement(recording, shape)
        if w is None:
            missing[recording.name] = f"{recording.displacement} is missing or damaged"
        else:
            found.append(w)
    if missing:
        raise SessionError(f"{'; '.join(missing.values())}. Run Stage 2 first", missing)
    if np.any(found[center]):
        raise OptionsError(
            f"the displacements are against another center than {recordings[center].name}; run "
            "Stage 2 again"
        )
    return found
