"""Tasks of the cell workflow: pieces of work that are found, done and recorded one by one."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from dask.delayed import Delayed, delayed
from numpy.typing import NDArray

from scopeflow.engine.ledger import Ledger

__all__ = ["Outcome", "Piece", "run_piece", "tasks_of"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """A piece of work that is recorded when it is done.

    Attributes
    ----------
    fov : int
        Field of view that it belongs to; it fails alone.
    name : str
        Name of its record.
    ledger : Ledger
        With the fingerprint of everything that it depends on.
    function : callable
        Returns a :class:`~scopeflow.engine.pieces.Result`.
    arguments : tuple
        Of the function.
    frames : int
        Frames that it counts for in the progress.
    """

    fov: int
    name: str
    ledger: Ledger
    function: Callable[..., Result]
    arguments: tuple[Any, ...] = ()
    frames: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a piece: small, picklable, never an exception."""

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    error: str | None = None
    reused: bool = False
    cancelled: bool = False


def run_piece(piece: Piece, cancel: Event | None = None) -> Outcome:
    """Do a piece of work, or take what an earlier run recorded; runs inside a dask task.

    Parameters
    ----------
    piece : Piece
        The work.
    cancel : threading.Event, optional
        Looked at first, where task and caller share a process.
    """
    if cancel is not None and cancel.is_set():
        return Outcome(cancelled=True)
    try:
        record = piece.ledger.find(piece.name)
        if record is not None:
            return Outcome(record.values, record.arrays, reused=True)
        piece.ledger.begin(piece.name)
        result = piece.function(*piece.arguments)
        piece.ledger.complete(piece.name, result.values, result.files, result.arrays)
    except Exception as error:  # one field of view must not stop the others
        logger.debug("FOV %d, %s failed", piece.fov, piece.name, exc_info=True)
        return Outcome(error=f"{type(error).__name__}: {error}")
    return Outcome(result.values, result.arrays)


def tasks_of(pieces: Sequence[Piece], cancel: Event | None = None) -> list[Delayed]:
    """Return one task a piece; they do not depend on each other."""
    mark = uuid.uuid4().hex[:8]
    return [
        delayed(run_piece, pure=False, traverse=False)(
            piece, cancel, dask_key_name=f"{piece.name}-fov-{piece.fov}-{mark}-{n}"
        )
        for n, piece in enumerate(pieces)
    ]


@dataclass(frozen=True)
class Result:
    """What a step leaves: files, and small values and arrays that later steps use."""

    files: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
