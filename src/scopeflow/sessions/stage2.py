"""Stage 2 of a session: choose the center, find the displacement of every average against it."""

from __future__ import annotations

import itertools
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.version import KERNEL_VERSION
from scopeflow.engine.executor import Executor, open_executor
from scopeflow.engine.fingerprint import fingerprint
from scopeflow.engine.pieces import Outcome, Piece, Result, find_piece, tasks_of
from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import OptionsError, SessionError
from scopeflow.flow.backends.registry import get_backend
from scopeflow.io.files import atomic_save_npz, load_json, save_json
from scopeflow.motion.store.outputs import STATE_FOLDER
from scopeflow.sessions.config import SessionConfig
from scopeflow.sessions.match import (
    BetweenParameters,
    Match,
    assess,
    displacement_between,
    match,
    pair_similarity,
)
from scopeflow.sessions.products import take_back
from scopeflow.sessions.recordings import (
    SessionRecording,
    execution_of,
    fields,
    find_session_recordings,
    load_averages,
    load_displacement,
    raise_failures,
)

logger = logging.getLogger(__name__)

DISPLACEMENT = "w_to_reference"
MATCH_NUMBERS = ("similarity_before", "similarity_after", "loop_error", "overlap")


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
    SessionError
        When recordings failed; the others are finished.

    References
    ----------
    Flotho et al., "Flow-Registration", J. Biophotonics 2022, doi 10.1002/jbio.202100330, and its
    documented alignment of sessions.
    """
    recordings = find_session_recordings(config)
    averages = load_averages(recordings)
    with open_executor(execution_of(config, execution)) as executor:
        center = choose_center(config, recordings, averages, executor)
        found, failures = _displacements(config, recordings, averages, center, executor)
    raise_failures(2, recordings, failures)
    return center, recordings[center].path, found


def between_parameters(config: SessionConfig) -> BetweenParameters:
    """Return how displacements between averages are found."""
    function = None
    if config.flow_backend != "flowreg":
        function = get_backend(config.flow_backend)(**config.backend_params)
    return BetweenParameters(
        cc_upsample=config.cc_upsample,
        sigma=config.sigma_smooth,
        sigma_refine=config.sigma_refine,
        alpha=config.alpha_between,
        iterations=config.iterations_between,
        data_term=config.stage2_constancy_assumption.value,
        flow_function=function,
    )


def _mark(config: SessionConfig, *arrays: NDArray[Any]) -> str:
    """Return the fingerprint of a product that is made from averages."""
    return fingerprint(
        {
            "cc_upsample": config.cc_upsample,
            "sigma": [config.sigma_smooth, config.sigma_refine],
            "alpha_between": config.alpha_between,
            "iterations_between": config.iterations_between,
            "data_term": config.stage2_constancy_assumption,
            "backend": [config.flow_backend, config.backend_params],
            "kernel_version": KERNEL_VERSION,
            "arrays": list(arrays),
        }
    )


def _center_file(config: SessionConfig) -> Path:
    return config.resolve_output_paths()[0] / STATE_FOLDER / "session" / "center.json"


def choose_center(
    config: SessionConfig,
    recordings: list[SessionRecording],
    averages: list[NDArray[np.float64]],
    executor: Executor,
) -> int:
    """Choose the recording that the others are aligned to, and write it down; from 0.

    For ``center="auto"`` it is the one whose similarity with the others is highest on average;
    see :func:`scopeflow.sessions.match.pair_similarity`.
    """
    facts: dict[str, Any] = {
        "center": "",
        "recordings": [recording.name for recording in recordings],
        "similarity": None,
        "fingerprint": None,
    }
    if config.center != "auto":
        index, _ = config.resolve_center_file([recording.path for recording in recordings])
    else:
        mark = _mark(config, *averages)
        table = _similarities(config, averages, mark, executor)
        others = np.where(np.eye(len(table), dtype=bool), 0.0, table).sum(axis=1)
        others /= max(1, len(table) - 1)
        index = int(np.argmax(others))
        facts |= {"similarity": table.tolist(), "fingerprint": mark}
        logger.info(
            "Center: %s. Mean similarity with the others: %s.",
            recordings[index].name,
            ", ".join(f"{r.name} {s:.3f}" for r, s in zip(recordings, others, strict=True)),
        )
    facts["center"] = recordings[index].name
    if load_json(_center_file(config)) != facts:
        save_json(_center_file(config), facts)
    return index


def _similarities(
    config: SessionConfig, averages: list[NDArray[np.float64]], mark: str, executor: Executor
) -> NDArray[np.float64]:
    """Return how similar each two averages are, ``(N, N)``."""
    stored = load_json(_center_file(config))
    if (
        config.resume
        and isinstance(stored, dict)
        and stored.get("similarity") is not None
        and stored.get("fingerprint") == mark
    ):
        return np.asarray(stored["similarity"], np.float64)
    table = np.eye(len(averages))
    pairs = list(itertools.combinations(range(len(averages)), 2))

    def keep(position: int, outcome: Outcome) -> None:
        if outcome.failure is not None:
            raise SessionError(f"the averages cannot be compared: {outcome.failure.reason}")
        a, b = pairs[position]
        table[a, b] = table[b, a] = outcome.content

    pieces = [
        Piece("session-similarity", _similarity, (averages[a], averages[b], config.cc_upsample))
        for a, b in pairs
    ]
    executor.run(tasks_of(pieces), keep)
    return table


def _similarity(
    first: NDArray[np.float64], second: NDArray[np.float64], upsample_factor: int
) -> Result:
    return Result(content=pair_similarity(first, second, upsample_factor))


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
    found: dict[int, NDArray[Any]] = {}
    waiting: list[tuple[int, Piece]] = []
    for n, recording in enumerate(recordings):
        moving = None if n == center else averages[n]
        piece = Piece(
            DISPLACEMENT,
            _save_displacement,
            (recording, reference, moving, parameters),
            recording.ledger(_mark(config, reference, averages[n])),
            recording.name,
        )
        shape = reference.shape[0], reference.shape[1]
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
        if outcome.failure is not None:
            failures[recordings[n].name] = outcome.failure.reason
            return
        found[n] = outcome.content
        recordings[n].set_stage(2, done=True)
        logger.info("%s: stage 2 is done.", recordings[n].name)

    executor.run(tasks_of([piece for _, piece in waiting]), keep)
    return [found[n] for n in sorted(found)], failures


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
    atomic_save_npz(recording.displacement, **fields(found.displacement))
    return Result([recording.displacement.name], _numbers(found), content=found.displacement)


def _numbers(found: Match) -> dict[str, float | None]:
    # JSON has no NaN.
    values = {name: float(getattr(found, name)) for name in MATCH_NUMBERS}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def stored_center(config: SessionConfig, recordings: list[SessionRecording]) -> int | None:
    """Return the position of the center that stage 2 wrote down, if it is still a recording."""
    stored = load_json(_center_file(config))
    if not isinstance(stored, dict):
        return None
    names = [recording.name for recording in recordings]
    return names.index(stored["center"]) if stored.get("center") in names else None


def stored_similarity(config: SessionConfig) -> tuple[list[str], NDArray[np.float64]] | None:
    """Return the similarity table that decided the center: names and values; None without."""
    stored = load_json(_center_file(config))
    if not isinstance(stored, dict) or stored.get("similarity") is None:
        return None
    return stored["recordings"], np.asarray(stored["similarity"], np.float64)


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
            numbers[n] = _numbers(Match(displacements[n], 1.0, 1.0, 0.0, 1.0))
            continue
        record = recording.ledger(_mark(config, reference, averages[n])).find(DISPLACEMENT)
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
    return Result(values=_numbers(assess(reference, moving, forward, backward)))


def mismatch_reason(config: SessionConfig, numbers: dict[str, float | None]) -> str | None:
    """Return why a recording does not match the reference, or None if it does."""
    similarity, loop = numbers.get("similarity_after"), numbers.get("loop_error")
    reasons = []
    if similarity is None or similarity < config.min_similarity:
        shown = "none" if similarity is None else f"{similarity:.2f}"
        reasons.append(f"similarity {shown} < {config.min_similarity:g}")
    if loop is None or loop > config.max_loop_error:
        shown = "none" if loop is None else f"{loop:.1f} px"
        reasons.append(f"loop error {shown} > {config.max_loop_error:g} px")
    return ", ".join(reasons) or None


def required_displacements(
    recordings: list[SessionRecording],
    given: list[NDArray[Any]] | None,
    center: int,
    shape: tuple[int, int],
) -> list[NDArray[Any]]:
    """Return the displacements that stage 3 needs: given ones, or those of the files.

    Raises
    ------
    OptionsError
        When given ones do not fit, or the files are of another center.
    SessionError
        When files are missing or damaged.
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
