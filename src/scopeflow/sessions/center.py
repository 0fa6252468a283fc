"""The center of a session: the recording that the others are aligned to."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.engine.executor import Executor
from scopeflow.engine.pieces import Outcome, Piece, Result, tasks_of
from scopeflow.errors import SessionError
from scopeflow.io.files import load_json, save_json
from scopeflow.motion.store.outputs import STATE_FOLDER
from scopeflow.sessions.between import match_mark
from scopeflow.sessions.config import SessionConfig
from scopeflow.sessions.match import pair_similarity
from scopeflow.sessions.recordings import SessionRecording

logger = logging.getLogger(__name__)


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
        mark = match_mark(config, *averages)
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
