"""What a cell workflow keeps in mind while it runs, and how it runs pieces; knows no step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.cells.plan import FovPlan
from scopeflow.cells.store.arrays import IMAGES, create_stack
from scopeflow.engine.executor import Executor
from scopeflow.engine.pieces import Outcome, Piece, tasks_of

__all__ = ["Cancelled", "Fov", "Progress", "Run"]

logger = logging.getLogger(__name__)

Progress = Callable[[dict[str, Any]], None]


class Cancelled(Exception):  # noqa: N818 - no error
    """The caller asked to stop."""


class Fov:
    """What is known of a FOV while the steps run."""

    def __init__(self, plan: FovPlan) -> None:
        self.plan = plan
        self.made = plan.fingerprints()
        self.largest: dict[str, int] = {}
        self.regions: NDArray[np.int64] = np.zeros((0, 7), np.int64)
        self.overlaps: NDArray[np.int64] | None = None
        self.cells: NDArray[np.int64] = np.zeros((0, 8), np.int64)
        self.columns: dict[str, NDArray[Any]] = {}
        self.removed = {"too_small": 0, "too_large": 0}

    def piece(self, of: str, name: str, function: Any, *arguments: Any, frames: int = 0) -> Piece:
        """Return a piece of work that makes a part of ``of``."""
        ledger = self.plan.ledger(of, self.made)
        return Piece(name, function, arguments, ledger, self.plan.fov, frames)

    def create(self, of: str, level: str, dtype: Any, shape: Any = None) -> None:
        """Make the empty array of a level of a stack."""
        store = self.plan.folder / IMAGES
        create_stack(store, f"{of}/{level}", shape or self.plan.shape, dtype, self.made[of])


class Run:
    """Runs pieces of many FOVs at once and keeps count of those that fail."""

    def __init__(self, executor: Executor, cancel: Event | None, progress: Progress | None) -> None:
        self.executor = executor
        self.cancel = cancel
        self.progress = progress
        self.failed: dict[int, str] = {}
        self.without_pictures: dict[int, str] = {}

    def alive(self, fovs: list[Fov]) -> list[Fov]:
        """Return those that have not failed."""
        return [fov for fov in fovs if fov.plan.fov not in self.failed]

    def guarded(self, fov: Fov, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run what happens in this process; a failure is that of the FOV."""
        try:
            return function(*arguments)
        except Exception as error:
            logger.debug("FOV %d failed", fov.plan.fov, exc_info=True)
            self.failed.setdefault(fov.plan.fov, f"{type(error).__name__}: {error}")
            return None

    def do(self, step: str, pieces: list[Piece]) -> list[Outcome]:
        """Run pieces; outcomes are in their order."""
        outcomes: list[Outcome] = [Outcome(cancelled=True)] * len(pieces)
        totals: dict[Any, int] = {}
        for piece in pieces:
            totals[piece.group] = totals.get(piece.group, 0) + piece.frames
        done = dict.fromkeys(totals, 0)

        def take(position: int, outcome: Outcome) -> None:
            outcomes[position] = outcome
            piece = pieces[position]
            if outcome.failure is not None:
                self.failed.setdefault(piece.group, f"{step}: {outcome.failure}")
            done[piece.group] += piece.frames
            if self.progress is not None and not outcome.cancelled:
                message = "reused" if outcome.reused else str(outcome.failure or "")
                self.progress(
                    {
                        "step": step,
                        "fov": piece.group,
                        "t": done[piece.group],
                        "T": totals[piece.group],
                        "message": message,
                    }
                )
            if not self.executor.shares_memory:
                self.check()

        # Threads of this process look at the event themselves, so none still writes at the end.
        shared = self.cancel if self.executor.shares_memory else None
        self.executor.run(tasks_of(pieces, shared), take)
        self.check()
        return outcomes

    def check(self) -> None:
        """Stop if the caller asked for it."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled
