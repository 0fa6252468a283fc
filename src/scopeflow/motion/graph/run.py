"""Run the graph of a recording window by window; give outcomes in the order of time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from scopeflow.engine.executor import Executor
from scopeflow.engine.pieces import Outcome
from scopeflow.io.shared import shared_folder
from scopeflow.motion.block.values import BatchStart, Reference
from scopeflow.motion.graph.correct import CorrectionJob, Window, windows
from scopeflow.motion.graph.shared_reference import reference_bytes, share_reference
from scopeflow.motion.grid import Block, Grid

OnBlock = Callable[[Block, Outcome], None]


def run_job(
    job: CorrectionJob,
    executor: Executor,
    on_finish: OnBlock | None = None,
    on_block: OnBlock | None = None,
    keep_content: bool = True,
) -> list[Outcome]:
    """Compute all blocks of a job.

    `on_finish`: ``on_finish(block, outcome)``, called as each block finishes, in any order.
    `on_block`: ``on_block(block, outcome)``, called in the order of time while the run goes on.
    `keep_content`: whether arrays that travelled here stay in the outcomes after `on_finish`.
    """
    if executor.shares_files and isinstance(job.reference, Reference):
        with shared_folder(reference_bytes(job.reference)) as folder:
            shared = replace(job, reference=share_reference(job.reference, folder))
            return run_job(shared, executor, on_finish, on_block, keep_content)
    outcomes: list[Outcome] = []
    generator = windows(job)
    window = next(generator, None)
    while window is not None:
        results = _WindowResults(window, on_finish, on_block, keep_content)
        tasks = [*window.tasks, *([] if window.next_start is None else [window.next_start])]
        executor.run(tasks, results.take)
        outcomes.extend(results.in_order)
        try:
            window = generator.send(results.next_start)
        except StopIteration:
            window = None
    return outcomes


class _WindowResults:
    """Takes results in any order; hands blocks on in the order of time."""

    def __init__(
        self,
        window: Window,
        on_finish: OnBlock | None,
        on_block: OnBlock | None,
        keep_content: bool,
    ) -> None:
        self._blocks = window.blocks
        self._on_finish = on_finish
        self._on_block = on_block
        self._keep_content = keep_content
        self._early: dict[int, Outcome] = {}
        self.in_order: list[Outcome] = []
        self.next_start: BatchStart | None = None

    def take(self, position: int, value: Any) -> None:
        if position == len(self._blocks):
            self.next_start = value
            return
        if self._on_finish is not None:
            self._on_finish(self._blocks[position], value)
        self._early[position] = value if self._keep_content else replace(value, content=None)
        while (due := len(self.in_order)) in self._early:
            outcome = self._early.pop(due)
            self.in_order.append(outcome)
            if self._on_block is not None:
                self._on_block(self._blocks[due], outcome)


def tasks_per_window(n_workers: int) -> int:
    """Return how many blocks are submitted at once: enough that the last ones cost little."""
    return max(200, 16 * n_workers)


def batches_ahead(grid: Grid, n_workers: int) -> int:
    """Return how far the spine may run ahead so that every worker has leaves to work on."""
    blocks_per_batch = max(1, grid.batch_length // grid.block_length)
    return 2 + -(-2 * n_workers // blocks_per_batch)
