"""Pieces of work: looked up, computed, written, recorded and isolated, each on its own.

Everything that scopeflow writes in parts is made of pieces: blocks of a corrected recording, of
saved motion, products of a session, blocks of a step of the cell workflow. One function,
:func:`run_piece`, decides for all of them what a resumed run keeps and what a failure stops.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from dask.delayed import Delayed, delayed
from numpy.typing import NDArray

from scopeflow.engine.ledger import Form, Ledger

__all__ = [
    "Failure",
    "Outcome",
    "Piece",
    "Result",
    "find_piece",
    "run_piece",
    "task_of",
    "tasks_of",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What the function of a piece leaves behind.

    `files`: recorded with their digests: files that it wrote, relative to the root of the ledger.
    `content`: handed to the caller and never recorded, for results that stay in memory.
    """

    files: Sequence[str] = ()
    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    content: Any = None


@dataclass(frozen=True)
class Piece:
    """A piece of work.

    `function`: returns a :class:`Result`; it is given `arguments`, then what the piece needs of
        others.
    `ledger`: its records, with the fingerprint of everything that it depends on; None for work that
        leaves nothing on disk.
    `form`: what a record of it must hold to count.
    `group`: what fails together, such as a field of view or a recording.
    `frames`: frames that it counts for in the progress.
    `isolated`: whether an error becomes the :class:`Failure` of the outcome, so that other groups
        go on; else it is raised and ends the run.
    """

    name: str
    function: Callable[..., Result]
    arguments: tuple[Any, ...] = ()
    ledger: Ledger | None = None
    group: Any = None
    frames: int = 0
    isolated: bool = True
    form: Form | None = None


@dataclass(frozen=True)
class Failure:
    """Why a piece could not be made; whatever needs it fails for the same reason."""

    kind: str
    reason: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Return what people are told of an error."""
        return cls(type(error).__name__, " ".join(str(error).split()) or type(error).__name__)

    def __str__(self) -> str:
        return self.reason if self.reason == self.kind else f"{self.kind}: {self.reason}"


@dataclass(frozen=True)
class Outcome:
    """What became of a piece: the parts of its :class:`Result`, or why there is none."""

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    content: Any = None
    failure: Failure | None = None
    reused: bool = False
    cancelled: bool = False


def find_piece(piece: Piece) -> Outcome | None:
    """Return the outcome of a piece that an earlier run has finished, else None."""
    record = None if piece.ledger is None else piece.ledger.find(piece.name, piece.form)
    return None if record is None else Outcome(record.values, record.arrays, reused=True)


def run_piece(piece: Piece, *needed: Any, cancel: Event | None = None) -> Outcome:
    """Do a piece of work, or take what an earlier run recorded; runs inside a dask task.

    `needed`: values of the tasks that it depends on; a failure among them is its failure, too.
    `cancel`: looked at first, where task and caller share a process.
    """
    if cancel is not None and cancel.is_set():
        return Outcome(cancelled=True)
    for failure in map(_failure_in, needed):
        if failure is not None:
            return Outcome(failure=failure)
    try:
        finished = find_piece(piece)
        if finished is not None:
            return finished
        # The record goes before its files are touched, and comes back after they are whole.
        if piece.ledger is not None:
            piece.ledger.begin(piece.name)
        result = piece.function(*piece.arguments, *needed)
        if piece.ledger is not None:
            piece.ledger.complete(piece.name, result.values, result.files, result.arrays)
    except Exception as error:
        if not piece.isolated:
            raise
        logger.debug("%s of %s failed", piece.name, piece.group, exc_info=True)
        return Outcome(failure=Failure.of(error))
    return Outcome(result.values, result.arrays, result.content)


def _failure_in(value: Any) -> Failure | None:
    if isinstance(value, Outcome):
        return value.failure
    if isinstance(value, (list, tuple)):
        return next((found for one in value if (found := _failure_in(one)) is not None), None)
    return None


def task_of(piece: Piece, *needed: Any, key: str, cancel: Event | None = None) -> Delayed:
    """Return the task of a piece; tasks among what it needs become edges of the graph.

    `key`: key of the task; the dashboard shows what stands before its first number.
    """
    # Without looking into the piece for tasks: it has none, and may hold long arrays.
    whole = delayed(_Whole(piece, cancel), pure=False, traverse=False)
    return whole(*needed, dask_key_name=key)


class _Whole:
    """A piece as a function of what it needs."""

    def __init__(self, piece: Piece, cancel: Event | None) -> None:
        self.piece, self.cancel = piece, cancel
        self.__name__ = piece.name

    def __call__(self, *needed: Any) -> Outcome:
        return run_piece(self.piece, *needed, cancel=self.cancel)


def tasks_of(pieces: Sequence[Piece], cancel: Event | None = None) -> list[Delayed]:
    """Return one task for each piece, for pieces that do not depend on each other."""
    mark = uuid.uuid4().hex[:8]
    return [
        task_of(piece, key=f"{piece.name}-{piece.group}-{mark}-{n}", cancel=cancel)
        for n, piece in enumerate(pieces)
    ]
