"""The center of a session: the recording that the others are aligned to."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, model_validator

from scopeflow.engine.executor import Executor
from scopeflow.engine.pieces import Outcome, Piece, Result, tasks_of
from scopeflow.errors import SessionError
from scopeflow.io.state import State, Text, load_state, save_state
from scopeflow.motion.store.outputs import STATE_FOLDER
from scopeflow.sessions.between import match_mark
from scopeflow.sessions.config import SessionConfig
from scopeflow.sessions.match import pair_similarity
from scopeflow.sessions.recordings import SessionRecording

logger = logging.getLogger(__name__)


def _is_square(table: list[list[float]] | None) -> list[list[float]] | None:
    if table is not None and any(len(row) != len(table) for row in table):
        raise ValueError("a similarity of each two is needed")
    return table


class Center(State):
    """The center of a session as it stands in its file.

    `similarity`: of each two of the `recordings`, ``(N, N)``, where it decided the center.
    `fingerprint`: of what the similarity depends on.
    """

    center: Text
    recordings: list[Text]
    similarity: Annotated[list[list[float]] | None, AfterValidator(_is_square)]
    fingerprint: str | None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.center not in self.recordings:
            raise ValueError("the center is none of the recordings")
        if self.similarity is not None and len(self.similarity) != len(self.recordings):
            raise ValueError("the similarity is of other recordings")
        return self


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
    similarity: list[list[float]] | None = None
    mark: str | None = None
    if config.center != "auto":
        index, _ = config.resolve_center_file([recording.path for recording in recordings])
    else:
        mark = match_mark(config, *averages)
        table = _similarities(config, averages, mark, executor)
        others = np.where(np.eye(len(table), dtype=bool), 0.0, table).sum(axis=1)
        others /= max(1, len(table) - 1)
        index = int(np.argmax(others))
        similarity = table.tolist()
        logger.info(
            "Center: %s. Mean similarity with the others: %s.",
            recordings[index].name,
            ", ".join(f"{r.name} {s:.3f}" for r, s in zip(recordings, others, strict=True)),
        )
    facts = Center(
        center=recordings[index].name,
        recordings=[recording.name for recording in recordings],
        similarity=similarity,
        fingerprint=mark,
    )
    if load_state(_center_file(config), Center) != facts:
        save_state(_center_file(config), facts)
    return index


def _similarities(
    config: SessionConfig, averages: list[NDArray[np.float64]], mark: str, executor: Executor
) -> NDArray[np.float64]:
    """Return how similar each two averages are, ``(N, N)``."""
    stored = load_state(_center_file(config), Center)
    table = None if stored is None or stored.fingerprint != mark else stored.similarity
    if config.resume and table is not None and len(table) == len(averages):
        return np.asarray(table, np.float64)
    found = np.eye(len(averages))
    pairs = list(itertools.combinations(range(len(averages)), 2))

    def keep(position: int, outcome: Outcome) -> None:
        if outcome.failure is not None:
            raise SessionError(f"the averages cannot be compared: {outcome.failure.reason}")
        a, b = pairs[position]
        found[a, b] = found[b, a] = outcome.content

    pieces = [
        Piece("session-similarity", _similarity, (averages[a], averages[b], config.cc_upsample))
        for a, b in pairs
    ]
    executor.run(tasks_of(pieces), keep)
    return found


def _similarity(
    first: NDArray[np.float64], second: NDArray[np.float64], upsample_factor: int
) -> Result:
    return Result(content=pair_similarity(first, second, upsample_factor))


def stored_center(config: SessionConfig, recordings: list[SessionRecording]) -> int | None:
    """Return the position of the center that stage 2 wrote down, if it is still a recording."""
    stored = load_state(_center_file(config), Center)
    names = [recording.name for recording in recordings]
    return names.index(stored.center) if stored is not None and stored.center in names else None


def stored_similarity(config: SessionConfig) -> tuple[list[str], NDArray[np.float64]] | None:
    """Return the similarity table that decided the center: names and values; None without."""
    stored = load_state(_center_file(config), Center)
    if stored is None or stored.similarity is None:
        return None
    return stored.recordings, np.asarray(stored.similarity, np.float64)
