"""Lazy displacements: one chunk for each frame, so that only what is looked at is computed."""

from __future__ import annotations

import functools
import uuid
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from scopeflow.engine.pieces import Result
from scopeflow.io.lazy import LazyVideo, SourceVideo, lazy_array
from scopeflow.motion.block.apply import (
    compose_motion,
    motion_statistics,
    register_frames,
    upsample_motion,
    valid_pixels,
)
from scopeflow.motion.block.values import STATISTICS, BatchStart
from scopeflow.motion.graph.block_task import correct_and_keep
from scopeflow.motion.graph.correct import (
    FIRST_SEED_BLOCK,
    CorrectionJob,
    filter_limits,
    grid_of,
    start_from_outcomes,
)
from scopeflow.motion.grid import FIRST_SEED, Block, fitting_block_length, halo_range

_TAIL_BLOCK = 4
_SOLVED = "solved-motion-"


def frame_chunks(video: LazyVideo) -> da.Array:
    """Return a video as a dask array with one chunk for each frame.

    `video`: the recording. What is stored together is still read together.
    Returns: shape ``(T, H, W, C)``.
    """
    if isinstance(video, SourceVideo):
        array = lazy_array(video.source, max(1, video.source.frames_per_chunk))
    elif isinstance(video.array, da.Array):
        array = video.array
    else:
        array = da.from_array(video.array, chunks=(1, -1, -1, -1))
    return array.rechunk({0: 1, 1: -1, 2: -1, 3: -1})


def lazy_motion(job: CorrectionJob) -> da.Array:
    """Return the displacements of a correction, computed when they are read.

    `job`: recording, reference and parameters; its grid and sinks do not matter.
    Returns: float32, ``(T, h, w, 2)`` on the solver's finest grid, one chunk for each frame. A
        frame depends on the first frames of the recording and on the last ones of each batch before
        its own, where the parameters chain batches; else on its temporal neighbours only.
    """
    request, parameters = job.request, job.request.parameters
    frames, height, width, _ = job.video.shape
    length = fitting_block_length(min(parameters.batch_length, frames), _TAIL_BLOCK)
    grid = grid_of(frames, length, request, parameters)
    video = frame_chunks(job.video)
    name = f"{_SOLVED}{uuid.uuid4().hex[:12]}"
    rows, columns = request.motion_shape(height, width)
    graph: dict[Any, Any] = {(f"{name}-reference",): job.reference}
    job = replace(job, grid=grid)

    def block_task(block: Block, start: Any, what: Any) -> tuple[Any, ...]:
        read = [(video.name, t, 0, 0, 0) for t in range(block.read_start, block.read_stop)]
        limits = filter_limits(job, block.batch)
        run = functools.partial(_run_frames, block, limits, request, what)
        return (run, read, start, (f"{name}-reference",))

    start: Any = (f"{name}-start", 0)
    graph[start] = _first_start(job, block_task, graph, name)
    for batch in range(grid.n_batches):
        tails = []
        for block in grid.batch(batch):
            if block.in_tail:
                tail = (f"{name}-tail", block.index)
                graph[tail] = block_task(block, start, None)
                tails.append((block, tail))
                for offset in range(block.length):
                    graph[name, block.start + offset, 0, 0, 0] = (_frame_of, tail, offset)
                continue
            for t in range(block.start, block.stop):
                graph[name, t, 0, 0, 0] = block_task(_one_frame(job, t, batch), start, 0)
        if tails:
            start = (f"{name}-start", batch + 1)
            graph[start] = (
                start_from_outcomes,
                [tail for _, tail in tails],
                sum(block.stop - block.seed_tail_start for block, _ in tails),
                sum(block.stop - block.reference_tail_start for block, _ in tails),
            )
    chunks = ((1,) * frames, (rows,), (columns,), (2,))
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[video])
    return da.Array(layers, name, chunks=chunks, dtype=np.float32)


def is_solved_when_read(array: da.Array) -> bool:
    """Tell whether displacements are solved when they are read; else they are stored, or given."""
    return any(str(layer).startswith(_SOLVED) for layer in array.dask.layers)


def _one_frame(job: CorrectionJob, t: int, batch: int) -> Block:
    read = halo_range(t, t + 1, job.grid.halo, *filter_limits(job, batch))
    return Block(t, t, t + 1, *read, batch, seed_tail_start=t + 1, reference_tail_start=t + 1)


def _first_start(
    job: CorrectionJob, block_task: Any, graph: dict[Any, Any], name: str
) -> tuple[Any, ...]:
    """Return the task of the first batch's start: the mean displacement of its first frames."""
    if not job.request.parameters.chain:
        return (BatchStart,)
    graph[f"{name}-zero",] = (BatchStart,)
    n_frames = min(FIRST_SEED, job.grid.batch_range(0)[1])
    parts = []
    for start in range(0, n_frames, FIRST_SEED_BLOCK):
        stop = min(start + FIRST_SEED_BLOCK, n_frames)
        read = halo_range(start, stop, job.grid.halo, *filter_limits(job, 0))
        block = Block(start, start, stop, *read, 0, start, stop)
        key = (f"{name}-first", start)
        graph[key] = block_task(block, (f"{name}-zero",), None)
        parts.append(key)
    return (start_from_outcomes, parts, n_frames, 0)


def _run_frames(
    block: Block,
    limits: tuple[int, int],
    request: Any,
    what: int | None,
    frames: list[NDArray[Any]],
    start: BatchStart,
    reference: Any,
) -> Any:
    whole = np.concatenate(frames)
    result = correct_and_keep(block, limits, request, None, whole, start, reference)
    return result if what is None else _frame_of(result, what)


def _frame_of(result: Result, offset: int) -> NDArray[np.float32]:
    motion: NDArray[np.float32] = result.content.motion
    return motion[offset : offset + 1]


def full_resolution(motion: da.Array, shape: tuple[int, int]) -> da.Array:
    """Return displacements at full resolution, ``(T, H, W, 2)``, upsampled when they are read."""
    return da.map_blocks(
        upsample_motion,
        motion,
        shape,
        dtype=np.float32,
        chunks=(motion.chunks[0], (shape[0],), (shape[1],), (2,)),
        meta=np.empty((0, 0, 0, 0), np.float32),
    )


def lazy_valid(motion: da.Array, shape: tuple[int, int]) -> da.Array:
    """Return the valid pixels of registered frames, ``(T, H, W)`` of bool."""
    return da.map_blocks(
        valid_pixels,
        motion,
        shape,
        dtype=np.bool_,
        chunks=(motion.chunks[0], (shape[0],), (shape[1],)),
        drop_axis=3,
        meta=np.empty((0, 0, 0), np.bool_),
    )


def lazy_statistics(motion: da.Array, shape: tuple[int, int]) -> da.Array:
    """Return the statistics of displacements, ``(T, 4)`` of float64."""
    return da.map_blocks(
        motion_statistics,
        motion,
        shape,
        dtype=np.float64,
        chunks=(motion.chunks[0], (len(STATISTICS),)),
        drop_axis=(2, 3),
        meta=np.empty((0, 0), np.float64),
    )


def lazy_composition(first: da.Array, second: da.Array, shape: tuple[int, int]) -> da.Array:
    """Return two displacements chained into one, ``(T, H, W, 2)``."""
    return da.blockwise(
        compose_motion,
        "tyxd",
        first,
        "tijd",
        second.rechunk({0: first.chunks[0]}),
        "tkld",
        shape,
        None,
        new_axes={"y": shape[0], "x": shape[1]},
        concatenate=True,
        align_arrays=False,
        dtype=np.float32,
        meta=np.empty((0, 0, 0, 0), np.float32),
    )


def lazy_registered(
    video: LazyVideo, motion: da.Array, frames_per_chunk: int, dtype: str, **how: Any
) -> da.Array:
    """Return frames resampled along displacements, lazy, ``(T, H, W, C)``."""
    frames = frame_chunks(video).rechunk({0: frames_per_chunk})
    numbers = da.arange(frames.shape[0], chunks=frames_per_chunk, dtype=np.int64)
    return da.blockwise(
        functools.partial(register_frames, dtype=dtype, **how),
        "tyxc",
        frames,
        "tyxc",
        motion.rechunk({0: frames_per_chunk}),
        "tijd",
        numbers,
        "t",
        concatenate=True,
        align_arrays=False,
        dtype=np.dtype(dtype),
        meta=np.empty((0, 0, 0, 0), dtype),
    )
