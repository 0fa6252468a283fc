"""Stage 2 of a session: choose the center, find the displacement of every average against it."""

from __future__ import annotations

import functools
import itertools
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.version import KERNEL_VERSION
from scopeflow.engine.executor import Executor, open_executor
from scopeflow.engine.fingerprint import fingerprint
from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import OptionsError, SessionError
from scopeflow.flow.backends.registry import get_backend
from scopeflow.io.files import atomic_save_npz, load_json, save_json
from scopeflow.motion.store.outputs import STATE_FOLDER
from scopeflow.sessions.config import SessionConfig
from scopeflow.sessions.graph import Failure, product
from scopeflow.sessions.match import (
    BetweenParameters,
    Match,
    assess,
    displacement_between,
    match,
    pair_similarity,
)
from scopeflow.sessions.recordings import (
    SessionRecording,
    execution_of,
    fields,
    find_session_recordings,
    load_averages,
    load_displacement,
    set_aside,
)
from scopeflow.sessions.stage1 import stage_error

logger = logging.getLogger(__name__)

DISPLACEMENT = "w_to_reference"
MATCH_NUMBERS = ("similarity_before", "similarity_after", "loop_error", "overlap")


@dataclass(frozen=True)
class CenterChoice:
    """The recording that the others are aligned to.

    Attributes
    ----------
    index : int
        Its position, from 0.
    similarity : ndarray of float64, shape (N, N), or None
        How similar each two recordings are; where it decided.
    """

    index: int
    similarity: NDArray[np.float64] | None = None


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
    parameters = between_parameters(config)
    with open_executor(execution_of(config, execution)) as executor:
        center = choose_center(config, recordings, averages, executor)
        found, failures = _displacements(config, recordings, averages, center, parameters, executor)
    if failures:
        for recording in recordings:
            if recording.name in failures:
                recording.set_failure(2, failures[recording.name])
        raise stage_error(2, failures, len(recordings))
    return center.index, recordings[center.index].path, found


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
) -> CenterChoice:
    """Choose the recording that the others are aligned to, and write it down.

    For ``center="auto"`` it is the one whose similarity with the others is highest on average;
    see :func:`scopeflow.sessions.match.pair_similarity`.
    """
    if config.center != "auto":
        index, _ = config.resolve_center_file([recording.path for recording in recordings])
        choice = CenterChoice(index)
    else:
        choice = _most_similar(config, recordings, averages, executor)
    similarity = None if choice.similarity is None else choice.similarity.tolist()
    facts = {
        "center": recordings[choice.index].name,
        "recordings": [recording.name for recording in recordings],
        "similarity": similarity,
        "fingerprint": _mark(config, *averages) if similarity is not None else None,
    }
    if load_json(_center_file(config)) != facts:
        save_json(_center_file(config), facts)
    return choice


def _most_similar(
    config: SessionConfig,
    recordings: list[SessionRecording],
    averages: list[NDArray[np.float64]],
    executor: Executor,
) -> CenterChoice:
    count = len(recordings)
    stored = load_json(_center_file(config))
    if (
        config.resume
        and isinstance(stored, dict)
        and stored.get("similarity") is not None
        and stored.get("fingerprint") == _mark(config, *averages)
    ):
        table = np.asarray(stored["similarity"])
    else:
        table = np.eye(count)
        pairs = list(itertools.combinations(range(count), 2))
        tasks = [
            product(
                "session-similarity", pair_similarity, averages[a], averages[b], config.cc_upsample
            )
            for a, b in pairs
        ]

        def keep(position: int, value: Any) -> None:
            if isinstance(value, Failure):
                raise SessionError(f"the averages cannot be compared: {value.reason}")
            a, b = pairs[position]
            table[a, b] = table[b, a] = value

        executor.run(tasks, keep)
    others = np.where(np.eye(count, dtype=bool), 0.0, table).sum(axis=1) / max(1, count - 1)
    best = int(np.argmax(others))
    logger.info(
        "Center: %s. Mean similarity with the others: %s.",
        recordings[best].name,
        ", ".join(f"{r.name} {s:.3f}" for r, s in zip(recordings, others, strict=True)),
    )
    return CenterChoice(best, table)


def _displacements(
    config: SessionConfig,
    recordings: list[SessionRecording],
    averages: list[NDArray[np.float64]],
    center: CenterChoice,
    parameters: BetweenParameters,
    executor: Executor,
) -> tuple[list[NDArray[Any]], dict[str, str]]:
    reference = averages[center.index]
    shape = reference.shape[0], reference.shape[1]
    found: list[NDArray[Any] | None] = [None] * len(recordings)
    waiting: list[int] = []
    for n, recording in enumerate(recordings):
        mark = _mark(config, reference, averages[n])
        if config.resume:
            found[n] = _finished(recording, mark, shape, is_center=n == center.index)
        if found[n] is None and n == center.index:
            nowhere: NDArray[Any] = np.zeros((*shape, 2), np.float32)
            _keep(recording, mark, Match(nowhere, 1.0, 1.0, 0.0, 1.0))
            found[n] = nowhere
        elif found[n] is None:
            waiting.append(n)
        else:
            recording.set_failure(2, None)
    failures: dict[str, str] = {}

    def keep(position: int, value: Any) -> None:
        n = waiting[position]
        if isinstance(value, Failure):
            failures[recordings[n].name] = value.reason
            return
        found[n] = value.displacement
        _keep(recordings[n], _mark(config, reference, averages[n]), value)
        logger.info("%s: stage 2 is done.", recordings[n].name)

    tasks = [
        product("session-displacement", match, reference, averages[n], parameters) for n in waiting
    ]
    executor.run(tasks, keep)
    return [field for field in found if field is not None], failures


def _finished(
    recording: SessionRecording, mark: str, shape: tuple[int, int], *, is_center: bool
) -> NDArray[Any] | None:
    """Return a displacement that an earlier run, or another program, has finished."""
    if recording.has_begun(DISPLACEMENT):
        if recording.ledger(mark).find(DISPLACEMENT) is None:
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


def _keep(recording: SessionRecording, mark: str, found: Match) -> None:
    recording.set_stage(2, done=False)
    if not recording.has_begun(DISPLACEMENT):
        set_aside(recording.folder, [recording.displacement.name])
    ledger = recording.begin(DISPLACEMENT, mark)
    atomic_save_npz(recording.displacement, **fields(found.displacement))
    ledger.complete(DISPLACEMENT, _numbers(found), [recording.displacement.name])
    recording.set_stage(2, done=True)


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

    def keep(position: int, value: Any) -> None:
        if isinstance(value, Failure):
            raise SessionError(f"{recordings[waiting[position]].name}: {value.reason}")
        numbers[waiting[position]] = _numbers(value)

    given = functools.partial(_assess_given, parameters=parameters)
    tasks = [
        product("session-assess", given, reference, averages[n], displacements[n]) for n in waiting
    ]
    executor.run(tasks, keep)
    return numbers


def _assess_given(
    reference: NDArray[Any],
    moving: NDArray[Any],
    displacement: NDArray[Any],
    parameters: BetweenParameters,
) -> Match:
    backward = displacement_between(moving, reference, parameters)
    return assess(reference, moving, np.asarray(displacement, np.float64), backward)


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
