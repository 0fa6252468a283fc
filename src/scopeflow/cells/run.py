"""One run of a cell workflow: fields of view beside each other, each step by step; knows no step.

A field of view (FOV) goes on to its next step when its own pieces are done, whatever the others do:
each has a thread that waits for it, and all share the workers of one executor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from threading import Event, Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from scopeflow.cells.methods.display import ValueCounts
from scopeflow.cells.plan import FovPlan
from scopeflow.cells.store.arrays import IMAGES, create_stack, frame_files, halved
from scopeflow.engine.executor import Executor
from scopeflow.engine.ledger import Form
from scopeflow.engine.pieces import Outcome, Piece, Result, tasks_of

__all__ = ["Cancelled", "Fov", "FovFailed", "Progress", "Run"]

logger = logging.getLogger(__name__)

Progress = Callable[[dict[str, Any]], None]
Value = TypeVar("Value")


class Cancelled(Exception):  # noqa: N818 - no error
    """The caller asked to stop."""


class FovFailed(Exception):  # noqa: N818 - as in "FOV 3 failed"
    """A FOV cannot go on; the message says why."""


class _Stop(Event):
    """Set when the run ends early, or when the caller sets an event of its own."""

    def __init__(self, asked: Event | None) -> None:
        super().__init__()
        self.asked = asked

    def is_set(self) -> bool:
        return super().is_set() or (self.asked is not None and self.asked.is_set())


class Run:
    """Runs FOVs, a few at a time, and keeps count of those that fail.

    `failed` and `without_pictures` say why, by the number of the FOV.
    """

    def __init__(
        self, executor: Executor, at_once: int, cancel: Event | None, progress: Progress | None
    ) -> None:
        self.executor = executor
        # With one worker tasks run in the thread that waits for them, so there is one of these.
        self.at_once = 1 if executor.n_workers == 1 else at_once
        self.stop = _Stop(cancel)
        self.progress = progress
        self.failed: dict[int, str] = {}
        self.without_pictures: dict[int, str] = {}
        self.cancelled = False
        self._reporting = Lock()

    def each(self, plans: Sequence[FovPlan], story: Callable[[Fov], None]) -> None:
        """Let every FOV follow its steps; notes those that fail, and whether the caller stopped."""
        try:
            if self.at_once == 1:
                for plan in plans:
                    self._follow(plan, story)
                return
            with ThreadPoolExecutor(self.at_once, thread_name_prefix="fov") as pool:
                futures = [pool.submit(self._follow, plan, story) for plan in plans]
                try:
                    for future in as_completed(futures):
                        future.result()
                except BaseException:
                    # Also Ctrl-C, which only this thread hears of.
                    self.stop.set()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        except Cancelled:
            self.cancelled = True

    def _follow(self, plan: FovPlan, story: Callable[[Fov], None]) -> None:
        try:
            story(Fov(plan, self))
        except FovFailed as failure:
            self.failed[plan.fov] = str(failure)

    def check(self) -> None:
        """Stop if somebody asked for it."""
        if self.stop.is_set():
            raise Cancelled

    def report(self, event: dict[str, Any]) -> None:
        """Tell the caller; from one thread at a time."""
        if self.progress is not None:
            with self._reporting:
                self.progress(event)


class Fov:
    """What is known of a FOV while its steps follow each other.

    `largest` and `counts` are of the pixels of each stack. `regions` has a row ``frame, label,
    area, y0, x0, y1, x1`` for each object, `cells` one more column with the number of the cell.
    """

    def __init__(self, plan: FovPlan, run: Run) -> None:
        self.plan = plan
        self.run = run
        self.step = ""
        self.largest: dict[str, int] = {}
        self.counts: dict[str, ValueCounts] = {}
        self.regions: NDArray[np.int64] = np.zeros((0, 7), np.int64)
        self.cells: NDArray[np.int64] = np.zeros((0, 8), np.int64)
        self.removed = {"too_small": 0, "too_large": 0}

    def piece(
        self, of: str, name: str, work: Callable[[], Result], form: Form, frames: int = 0
    ) -> Piece:
        """Return a piece of work that makes a part of the stack or table `of`."""
        ledger = self.plan.ledger(of)
        return Piece(name, work, (), ledger, self.plan.fov, frames, form=form)

    def form(self, stack: str, start: int, stop: int, **more: Any) -> Form:
        """Return the form of records that prove frames of a stack, such as ``pc_ch_0/0``."""
        _, height, width = self.plan.shape
        if stack.endswith("/1"):
            height, width = halved(height, width)
        files = frame_files(self.plan.folder / IMAGES, stack, (height, width), start, stop)
        return Form(files, **more)

    def blocks(
        self,
        of: str,
        name: str,
        work: Callable[[int, int], Result],
        form: Callable[[int, int], Form],
        *,
        counted: bool = True,
    ) -> list[Piece]:
        """Return a piece for each block of frames.

        `work` and `form` are given where it starts and stops. Its frames are left out of the
        progress where a step goes through them twice.
        """
        return [
            self.piece(
                of,
                f"{name}-{start:06d}",
                partial(work, start, stop),
                form(start, stop),
                counted * (stop - start),
            )
            for start, stop in self.plan.blocks
        ]

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows of `cells` of some frames."""
        return self.cells[(self.cells[:, 0] >= start) & (self.cells[:, 0] < stop)]

    def create(self, of: str, level: str, dtype: Any, shape: Any = None) -> None:
        """Make the empty array of a level of a stack."""
        path, mark = self.plan.folder / IMAGES, self.plan.made[of]
        self.here(create_stack, path, f"{of}/{level}", shape or self.plan.shape, dtype, mark)

    def here(self, function: Callable[..., Value], *arguments: Any) -> Value:
        """Do something in this process that may fail."""
        try:
            return function(*arguments)
        except Exception as error:
            raise FovFailed(f"{type(error).__name__}: {error}") from error

    def do(
        self, pieces: Sequence[Piece], take: Callable[[Piece, Outcome], None] | None = None
    ) -> list[Outcome]:
        """Run pieces; return their outcomes in order, none where `take` is given each instead.

        Raises FovFailed: when one of them failed; after the others, which the next run finds done.
        Raises Cancelled: if the caller asked to stop.
        """
        run, kept = self.run, dict[int, Outcome]()
        done, total, failures = 0, sum(piece.frames for piece in pieces), list[str]()

        def arrived(position: int, outcome: Outcome) -> None:
            nonlocal done
            done += pieces[position].frames
            if outcome.failure is not None:
                failures.append(f"{self.step}: {outcome.failure}")
            elif take is None:
                kept[position] = outcome
            elif not outcome.cancelled:
                take(pieces[position], outcome)
                outcome.arrays.clear()  # dask keeps the outcomes of all pieces until the last
            if not outcome.cancelled:
                message = "reused" if outcome.reused else str(outcome.failure or "")
                event = {"step": self.step, "fov": self.plan.fov, "t": done, "T": total}
                run.report({**event, "message": message})
            if not run.executor.shares_memory:
                run.check()

        # Threads of this process look at the event themselves, so none still writes at the end.
        run.executor.run(
            tasks_of(pieces, run.stop if run.executor.shares_memory else None), arrived
        )
        run.check()
        if failures:
            raise FovFailed(failures[0])
        return [kept[position] for position in sorted(kept)]
