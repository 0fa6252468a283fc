"""The dask graph of one motion-corrected recording: a spine of batch tails, leaves hung off it.

Every batch starts from the last displacements of the batch before. Only the blocks in the tail of a
batch are on that critical path, so they get priority and all other blocks run beside them; the
numbers are those of a plain loop over the batches.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import dask
from dask.delayed import Delayed, delayed

from scopeflow.blocks.correct import BatchStart, BlockRequest, Reference, next_batch_start
from scopeflow.config.specs import CorrectionParameters
from scopeflow.graph.block_task import BlockOutcome, BlockSink, run_block
from scopeflow.graph.video import LazyVideo
from scopeflow.plan.grid import (
    FIRST_SEED,
    REFERENCE_TAIL,
    SEED_TAIL,
    Block,
    Grid,
    halo_range,
    make_grid,
)

SPINE_PRIORITY = 10
FIRST_SEED_BLOCK = 4


@dataclass(frozen=True)
class CorrectionJob:
    """Everything that the graph of one recording is made from.

    Attributes
    ----------
    video : LazyVideo
        The recording.
    grid : Grid
        Its blocks and batches.
    reference : Reference
        Image to register to.
    request : BlockRequest
        Parameters and what to compute.
    sink : BlockSink or None
        Where the arrays of a block go; None lets them travel with the outcome.
    seed_sink : BlockSink or None
        Where the blocks of the first start are recorded.
    mark : str
        Ends the key of every task, so that two jobs on one cluster never share results.
    """

    video: LazyVideo
    grid: Grid
    reference: Reference
    request: BlockRequest
    sink: BlockSink | None = None
    seed_sink: BlockSink | None = None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:8])


@dataclass
class Window:
    """A part of the graph that is submitted at once: consecutive batches.

    Attributes
    ----------
    blocks : list of Block
        The blocks, in order of time.
    tasks : list of Delayed
        One for each block; gives its :class:`BlockOutcome`.
    next_start : Delayed or None
        Start of the batch after the window.
    """

    blocks: list[Block]
    tasks: list[Delayed]
    next_start: Delayed | None


def grid_of(
    n_frames: int, block_length: int, request: BlockRequest, parameters: CorrectionParameters
) -> Grid:
    """Cut a recording into the blocks of its correction."""
    return make_grid(
        n_frames,
        parameters.batch_length,
        block_length,
        halo=request.halo,
        halo_stops_at_batches=parameters.preprocess.temporal_boundary == "batch",
        seed_tail=SEED_TAIL if parameters.chain else 0,
        reference_tail=REFERENCE_TAIL if parameters.update_reference else 0,
    )


def _limits(job: CorrectionJob, batch: int) -> tuple[int, int]:
    if job.request.parameters.preprocess.temporal_boundary == "batch":
        return job.grid.batch_range(batch)
    return 0, job.grid.n_frames


def _block_task(
    job: CorrectionJob, block: Block, start: Any, reference: Any, sink: BlockSink | None, name: str
) -> Delayed:
    return delayed(run_block, pure=False)(
        job.video.frames(block.read_start, block.read_stop),
        start,
        reference,
        block,
        _limits(job, block.batch),
        job.request,
        sink,
        dask_key_name=f"{name}-{block.start:09d}-{job.mark}",
    )


def first_start(job: CorrectionJob, reference: Any) -> Any:
    """Return the start of the first batch: the mean displacement of its first frames from zero."""
    if not job.request.parameters.chain:
        return BatchStart()
    n_frames = min(FIRST_SEED, job.grid.batch_range(0)[1])
    limits = _limits(job, 0)
    request = replace(job.request, sum_registered=False)
    seed_job = replace(job, request=request)
    tasks = []
    with dask.annotate(priority=SPINE_PRIORITY):
        for index, start in enumerate(range(0, n_frames, FIRST_SEED_BLOCK)):
            stop = min(start + FIRST_SEED_BLOCK, n_frames)
            read = halo_range(start, stop, job.grid.halo, *limits)
            block = Block(
                index, start, stop, *read, 0, seed_tail_start=start, reference_tail_start=stop
            )
            tasks.append(
                _block_task(
                    seed_job, block, BatchStart(), reference, job.seed_sink, "first-start-block"
                )
            )
        return delayed(_start_from_outcomes, pure=False)(tasks, n_frames, 0)


def _start_from_outcomes(
    outcomes: list[BlockOutcome], seed_count: int, reference_count: int
) -> BatchStart:
    return next_batch_start([outcome.tail for outcome in outcomes], seed_count, reference_count)


def _without_tail(outcome: BlockOutcome) -> BlockOutcome:
    return outcome.without_tail()


def windows(job: CorrectionJob, start: Any = None, max_tasks: int = 5000) -> Iterator[Window]:
    """Build the graph in windows of whole batches.

    Each window must be computed, and the value of its ``next_start`` sent back into the generator,
    before the next one is built; recordings of ordinary length are one window.

    Parameters
    ----------
    job : CorrectionJob
        What to build.
    start : BatchStart or Delayed, optional
        Start of the first batch; by default that of :func:`first_start`.
    max_tasks : int, optional
        Blocks of one window.

    Yields
    ------
    Window
        Lazy tasks; nothing is computed here.
    """
    reference = delayed(job.reference, pure=False, name=f"reference-{job.mark}")
    if start is None:
        start = first_start(job, reference)
    by_batch: list[list[Block]] = [[] for _ in range(job.grid.n_batches)]
    for block in job.grid.blocks:
        by_batch[block.batch].append(block)
    blocks: list[Block] = []
    tasks: list[Delayed] = []
    for batch, members in enumerate(by_batch):
        is_last = batch == job.grid.n_batches - 1
        following = start
        computed = {}
        for block in members:
            priority = SPINE_PRIORITY if block.in_tail else 0
            with dask.annotate(priority=priority):
                computed[block.index] = _block_task(
                    job, block, start, reference, job.sink, "correct-block"
                )
        if not is_last:
            tail = [block for block in members if block.in_tail]
            if tail:
                with dask.annotate(priority=SPINE_PRIORITY):
                    following = delayed(_start_from_outcomes, pure=False)(
                        [computed[block.index] for block in tail],
                        sum(block.stop - block.seed_tail_start for block in tail),
                        sum(block.stop - block.reference_tail_start for block in tail),
                        dask_key_name=f"batch-start-{batch + 1:06d}-{job.mark}",
                    )
        for block in members:
            blocks.append(block)
            task = computed[block.index]
            tasks.append(delayed(_without_tail, pure=False)(task) if block.in_tail else task)
        start = following
        if is_last or len(tasks) + len(by_batch[batch + 1]) > max_tasks:
            lazy_next = None if is_last or not isinstance(start, Delayed) else start
            computed_start = yield Window(blocks, tasks, lazy_next)
            if computed_start is not None:
                start = computed_start
            blocks, tasks = [], []
