"""The dask graph of one motion-corrected recording: a spine of batch tails, leaves hung off it.

Every batch starts from the last displacements of the batch before. Only the blocks in the tail of a
batch are on that critical path, so they get priority and all other blocks run beside them; the
numbers are those of a plain loop over the batches.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dask
from dask.delayed import Delayed, delayed

from scopeflow.engine.pieces import Outcome, Result, task_of
from scopeflow.io.lazy import LazyVideo
from scopeflow.motion.block.correct import next_batch_start
from scopeflow.motion.block.values import BatchStart, BlockRequest, Reference
from scopeflow.motion.graph.block_task import REGISTERED_SUM, BlockSink, block_piece
from scopeflow.motion.graph.shared_reference import SharedReference
from scopeflow.motion.grid import (
    FIRST_SEED,
    REFERENCE_TAIL,
    SEED_TAIL,
    Block,
    Grid,
    halo_range,
    make_grid,
)
from scopeflow.motion.parameters import CorrectionParameters

SPINE_PRIORITY = 10
FIRST_SEED_BLOCK = 4


@dataclass(frozen=True)
class CorrectionJob:
    """Everything that the graph of one recording is made from.

    `video`: the frames that are there: without those that are absent in the grid.
    `sink`: where the arrays of a block go; None lets them travel with the outcome.
    `seed_sink`: where the blocks of the first start are recorded.
    `tasks_per_window`: blocks that are submitted at once. Every delayed task carries the graph of
        all that it depends on, so the cost of a window grows with the square of its length.
    `batches_ahead`: how many batches the spine may be ahead of the oldest unfinished batch.
    `mark`: ends the key of every task, so that two jobs on one cluster never share results.
    """

    video: LazyVideo
    grid: Grid
    reference: Reference | SharedReference
    request: BlockRequest
    sink: BlockSink | None = None
    seed_sink: BlockSink | None = None
    tasks_per_window: int = 200
    batches_ahead: int = 2
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:8])


@dataclass
class Window:
    """A part of the graph that is submitted at once: consecutive batches.

    `blocks`: the blocks, in order of time.
    `tasks`: one for each block; gives its :class:`~scopeflow.engine.pieces.Outcome`.
    `next_start`: start of the batch after the window.
    """

    blocks: list[Block]
    tasks: list[Delayed]
    next_start: Delayed | None


def grid_of(
    n_frames: int,
    block_length: int,
    request: BlockRequest,
    parameters: CorrectionParameters,
    absent: tuple[int, ...] = (),
) -> Grid:
    """Cut a recording into the blocks of its correction; `absent` are frames without pixels."""
    return make_grid(
        n_frames,
        parameters.batch_length,
        block_length,
        halo=request.halo,
        halo_stops_at_batches=parameters.preprocess.temporal_boundary == "batch",
        seed_tail=SEED_TAIL if parameters.chain else 0,
        reference_tail=REFERENCE_TAIL if parameters.update_reference else 0,
        absent=absent,
    )


def filter_limits(job: CorrectionJob, batch: int) -> tuple[int, int]:
    """Return the frames between which temporal filters of a batch reflect, without absent ones."""
    grid = job.grid
    in_batch = job.request.parameters.preprocess.temporal_boundary == "batch"
    first, last = grid.batch_range(batch) if in_batch else (0, grid.n_frames)
    return grid.present_before(first), grid.present_before(last)


def _block_task(
    job: CorrectionJob, block: Block, start: Any, reference: Any, sink: BlockSink | None, name: str
) -> Delayed:
    return task_of(
        block_piece(block, filter_limits(job, block.batch), job.request, sink),
        job.video.frames(block.computed.read_start, block.computed.read_stop),
        start,
        reference,
        key=f"{name}-{block.start:09d}-{job.mark}",
    )


def first_start(job: CorrectionJob, reference: Any) -> Any:
    """Return the start of the first batch: the mean displacement of its first frames from zero."""
    if not job.request.parameters.chain:
        return BatchStart()
    grid = job.grid
    last_of = [grid.present_before(grid.batch_range(n)[1]) for n in range(grid.n_batches)]
    first_batch = next(n for n, last in enumerate(last_of) if last > 0)
    n_frames = min(FIRST_SEED, last_of[first_batch])
    limits = filter_limits(job, first_batch)
    request = replace(job.request, sum_registered=False)
    seed_job = replace(job, request=request)
    tasks = []
    with dask.annotate(priority=SPINE_PRIORITY):
        for index, start in enumerate(range(0, n_frames, FIRST_SEED_BLOCK)):
            stop = min(start + FIRST_SEED_BLOCK, n_frames)
            read = halo_range(start, stop, grid.halo, *limits)
            block = Block(
                index,
                start,
                stop,
                *read,
                first_batch,
                seed_tail_start=start,
                reference_tail_start=stop,
                numbers=grid.numbers(*read),
            )
            tasks.append(
                _block_task(
                    seed_job, block, BatchStart(), reference, job.seed_sink, "first-start-block"
                )
            )
        return delayed(start_from_outcomes, pure=False)(tasks, n_frames, 0)


def windows(job: CorrectionJob, start: Any = None) -> Generator[Window, BatchStart | None, None]:
    """Build the graph in windows of whole batches.

    Each window must be computed, and the value of its ``next_start`` sent back into the generator,
    before the next one is built; recordings of ordinary length are one window.

    `start`: start of the first batch; by default that of :func:`first_start`.
    """
    reference = delayed(job.reference, pure=False, name=f"reference-{job.mark}")
    if start is None:
        start = first_start(job, reference)
    by_batch: list[list[Block]] = [[] for _ in range(job.grid.n_batches)]
    for block in job.grid.blocks:
        by_batch[block.batch].append(block)
    window = Window([], [], None)
    finished: dict[int, list[Delayed]] = {}
    for batch, members in enumerate(by_batch):
        computed = [_leaf_or_tail(job, block, start, reference) for block in members]
        # The caller needs no tail, so it need not travel.
        for_caller = [
            delayed(_without_tail, pure=False)(task) if block.in_tail else task
            for block, task in zip(members, computed, strict=True)
        ]
        window.blocks += members
        window.tasks += for_caller
        finished[batch] = [delayed(_done, pure=False)(task) for task in for_caller]
        is_last = batch == job.grid.n_batches - 1
        if not is_last and any(block.in_tail for block in members):
            waits = finished.get(batch + 1 - job.batches_ahead, [])
            start = _next_start(job, batch + 1, members, computed, waits)
        if is_last or len(window.tasks) + len(by_batch[batch + 1]) > job.tasks_per_window:
            window.next_start = start if isinstance(start, Delayed) and not is_last else None
            computed_start = yield window
            start = start if computed_start is None else computed_start
            window, finished = Window([], [], None), {}


def _leaf_or_tail(job: CorrectionJob, block: Block, start: Any, reference: Any) -> Delayed:
    with dask.annotate(priority=SPINE_PRIORITY if block.in_tail else 0):
        return _block_task(job, block, start, reference, job.sink, "correct-block")


def _next_start(
    job: CorrectionJob, batch: int, before: list[Block], computed: list[Delayed], waits: list[Any]
) -> Delayed:
    """Return the start of a batch from the tail of the one before.

    It also waits for all blocks of an earlier batch. Else the spine would run to the end of the
    recording first, and nothing could be handed on in the order of time while the run goes on.
    """
    tail = [
        (block.computed, task)
        for block, task in zip(before, computed, strict=True)
        if block.in_tail
    ]
    with dask.annotate(priority=SPINE_PRIORITY):
        return delayed(start_from_outcomes, pure=False)(
            [task for _, task in tail],
            sum(block.stop - block.seed_tail_start for block, _ in tail),
            sum(block.stop - block.reference_tail_start for block, _ in tail),
            waits,
            dask_key_name=f"batch-start-{batch:06d}-{job.mark}",
        )


def start_from_outcomes(
    outcomes: Sequence[Outcome | Result],
    seed_count: int,
    reference_count: int,
    waits: object = None,  # noqa: ARG001 - a dependency in time only
) -> BatchStart:
    """Return the start of a batch from the outcomes of the tail before it; runs inside a task."""
    return next_batch_start([outcome.arrays for outcome in outcomes], seed_count, reference_count)


def _without_tail(outcome: Outcome) -> Outcome:
    kept = {n: array for n, array in outcome.arrays.items() if n == REGISTERED_SUM}
    return replace(outcome, arrays=kept)


def _done(_: Outcome) -> None:
    """Stand for a finished block without its numbers."""
