"""Run the graph of a recording window by window; give outcomes in the order of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from scopeflow.graph.block_task import BlockOutcome
from scopeflow.graph.correct import CorrectionJob, windows
from scopeflow.plan.grid import Block
from scopeflow.runtime.executor import Executor

OnBlock = Callable[[Block, BlockOutcome], None]


def run_job(
    job: CorrectionJob,
    executor: Executor,
    on_finish: OnBlock | None = None,
    on_block: OnBlock | None = None,
) -> list[BlockOutcome]:
    """Compute all blocks of a job.

    Parameters
    ----------
    job : CorrectionJob
        What to compute.
    executor : Executor
        Where.
    on_finish : callable, optional
        ``on_finish(block, outcome)``, called as each block finishes, in any order.
    on_block : callable, optional
        ``on_block(block, outcome)``, called in the order of time while the run goes on.

    Returns
    -------
    list of BlockOutcome
        In the order of time.
    """
    outcomes: list[BlockOutcome] = []
    for blocks, results in _computed_windows(job, executor, on_finish, on_block):
        outcomes.extend(results[block.index] for block in blocks)
    return outcomes


def _computed_windows(
    job: CorrectionJob,
    executor: Executor,
    on_finish: OnBlock | None,
    on_block: OnBlock | None,
) -> Iterator[tuple[list[Block], dict[int, BlockOutcome]]]:
    generator = windows(job)
    window = next(generator, None)
    while window is not None:
        blocks, results = window.blocks, {}
        tasks = list(window.tasks)
        next_start = []
        if window.next_start is not None:
            tasks.append(window.next_start)
        waiting = iter(blocks)
        due = next(waiting, None)

        def finish(position: int, value: object) -> None:
            nonlocal due
            if position == len(blocks):
                next_start.append(value)
                return
            assert isinstance(value, BlockOutcome)
            block = blocks[position]
            results[block.index] = value
            if on_finish is not None:
                on_finish(block, value)
            # Results arrive in any order; hand them on in the order of time.
            while due is not None and due.index in results:
                if on_block is not None:
                    on_block(due, results[due.index])
                due = next(waiting, None)

        executor.run(tasks, finish)
        yield blocks, results
        try:
            window = generator.send(next_start[0] if next_start else None)
        except StopIteration:
            window = None
