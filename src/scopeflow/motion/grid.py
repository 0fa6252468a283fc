"""How a recording is cut into blocks and batches: integers only.

A *batch* is a run of frames that start from one initial displacement (``buffer_size``). A *block*
is the work of one task and one shard on disk. The tail of a batch gives the next batch its start,
so blocks never cross a batch border and every block knows which of its frames are in the tail.

Where frames are absent, batches and blocks are those of all frames, and what a block computes is
counted in the frames that are there: see :attr:`Block.present`.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cached_property

from scopeflow.errors import InputError

SEED_TAIL = 20
"""Last frames of a batch whose mean displacement starts the next batch."""

REFERENCE_TAIL = 100
"""Last frames of a batch that renew the reference."""

FIRST_SEED = 22
"""Frames solved from zero whose mean displacement starts the first batch."""

TARGET_BLOCK_FRAMES = 20
"""Fewest frames of a usual block: the tail that the next batch waits for."""

SMALL_BLOCK_BYTES = 8 * 2**20
"""Blocks of small frames take more of them: each block costs some 20 ms besides its frames."""

FEWEST_BLOCKS = 8
"""Into which a recording is cut before its blocks take more frames: work for all workers."""

TARGET_BLOCK_BYTES = 64 * 2**20
LARGEST_BLOCK_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Block:
    """One task: frames ``start`` to ``stop`` of the recording.

    `index`: position among all blocks; also the shard that the block owns.
    `read_start`, `read_stop`: frames that it reads: its own and the halo of a temporal filter.
    `seed_tail_start`: first of its frames whose displacement enters the next batch's start;
        ``stop`` if none.
    `reference_tail_start`: first of its frames that renews the reference; ``stop`` if none.
    `absent`: those of its frames that have no pixels.
    `present`: where any frame of the recording is absent: the same block in the numbers that frames
        have among those that are there.
    `numbers`: of such a block, the numbers in the recording of the frames that it reads.
    """

    index: int
    start: int
    stop: int
    read_start: int
    read_stop: int
    batch: int
    seed_tail_start: int
    reference_tail_start: int
    absent: tuple[int, ...] = ()
    present: Block | None = None
    numbers: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """Frames of the block."""
        return self.stop - self.start

    @property
    def computed(self) -> Block:
        """The block as it is read and computed: without absent frames."""
        return self if self.present is None else self.present

    @property
    def in_tail(self) -> bool:
        """Whether the next batch waits for this block."""
        return min(self.seed_tail_start, self.reference_tail_start) < self.stop


@dataclass(frozen=True)
class Grid:
    """All blocks of a recording, in order of time.

    `n_frames`, `block_length`, `batch_length`, `halo`: the numbers that the grid was made from.
    `blocks`: they cover ``[0, n_frames)`` exactly once.
    `absent`: frames without pixels, in order.
    """

    n_frames: int
    block_length: int
    batch_length: int
    halo: int
    blocks: tuple[Block, ...]
    absent: tuple[int, ...] = ()

    @cached_property
    def present(self) -> tuple[int, ...]:
        """Frames that are there, in order."""
        absent = frozenset(self.absent)
        return tuple(frame for frame in range(self.n_frames) if frame not in absent)

    def present_before(self, frame: int) -> int:
        """Return how many frames before a frame are there."""
        return frame - bisect_left(self.absent, frame)

    def numbers(self, first: int, last: int) -> tuple[int, ...]:
        """Return what a block needs to name frames that are counted without absent ones."""
        return self.present[first:last] if self.absent else ()

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return -(-self.n_frames // self.batch_length)

    def batch(self, index: int) -> tuple[Block, ...]:
        """Return the blocks of one batch."""
        return tuple(block for block in self.blocks if block.batch == index)

    def batch_range(self, index: int) -> tuple[int, int]:
        """Return first and one-past-last frame of one batch."""
        return index * self.batch_length, min((index + 1) * self.batch_length, self.n_frames)


def reflected_frame(frame: int, lowest: int, highest: int) -> int:
    """Return the frame that a temporal filter takes beyond the limits ``[lowest, highest)``.

    Half-sample symmetric reflection, as ``mode="reflect"`` of :mod:`scipy.ndimage`.

    Examples
    --------
    >>> [reflected_frame(frame, 0, 3) for frame in range(-3, 6)]
    [2, 1, 0, 0, 1, 2, 2, 1, 0]
    """
    period = 2 * (highest - lowest)
    position = (frame - lowest) % period
    return lowest + min(position, period - 1 - position)


def halo_range(start: int, stop: int, halo: int, lowest: int, highest: int) -> tuple[int, int]:
    """Return the frames to read for ``[start, stop)`` with a temporal halo inside given limits.

    The limits are the ends of the recording, or of the batch; beyond them the filter reflects, so
    a reflected frame can lie further inside than the halo when the limits are close.

    Examples
    --------
    >>> halo_range(10, 20, 2, 0, 100)
    (8, 22)
    >>> halo_range(0, 1, 3, 0, 100)
    (0, 4)
    """
    first, last = start, stop
    for edge in (*range(start - halo, start), *range(stop, stop + halo)):
        frame = reflected_frame(edge, lowest, highest)
        first, last = min(first, frame), max(last, frame + 1)
    return first, last


def make_grid(
    n_frames: int,
    batch_length: int,
    block_length: int,
    *,
    halo: int = 0,
    halo_stops_at_batches: bool = False,
    seed_tail: int = SEED_TAIL,
    reference_tail: int = 0,
    absent: tuple[int, ...] = (),
) -> Grid:
    """Cut a recording into batches and blocks.

    `block_length`: frames of one task; divides `batch_length` unless there is one batch only.
    `halo`: frames on either side that a temporal filter needs.
    `halo_stops_at_batches`: the filter reflects at batch borders instead of reading over them.
    `seed_tail`, `reference_tail`: frames at the end of each batch that the next batch depends on; 0
        for none.
    `absent`: frames without pixels, in order; tails and halos are of frames that are there.
    Raises InputError: if a number is not positive, or blocks would cross batch borders.

    Examples
    --------
    >>> grid = make_grid(50, 20, 10)
    >>> [(b.start, b.stop, b.batch, b.in_tail) for b in grid.blocks]
    [(0, 10, 0, True), (10, 20, 0, True), (20, 30, 1, True), (30, 40, 1, True), (40, 50, 2, False)]
    """
    if min(n_frames, batch_length, block_length) < 1:
        raise InputError(
            f"a grid needs positive lengths, got {n_frames} frames, batches of {batch_length} "
            f"and blocks of {block_length}"
        )
    batch_length = min(batch_length, n_frames)
    if n_frames > batch_length and batch_length % block_length:
        raise InputError(
            f"blocks of {block_length} frames do not fill batches of {batch_length}; "
            f"use {fitting_block_length(batch_length, block_length)}"
        )
    block_length = min(block_length, batch_length)
    n_batches = -(-n_frames // batch_length)
    blocks = []
    for index, start in enumerate(range(0, n_frames, block_length)):
        stop = min(start + block_length, n_frames)
        batch = start // batch_length
        batch_stop = min((batch + 1) * batch_length, n_frames)
        limits = (batch * batch_length, batch_stop) if halo_stops_at_batches else (0, n_frames)
        is_last_batch = batch == n_batches - 1
        tails = [
            stop if is_last_batch or tail == 0 else min(max(start, batch_stop - tail), stop)
            for tail in (seed_tail, reference_tail)
        ]
        blocks.append(
            Block(
                index,
                start,
                stop,
                *halo_range(start, stop, halo, *limits),
                batch,
                seed_tail_start=tails[0],
                reference_tail_start=tails[1],
            )
        )
    grid = Grid(n_frames, block_length, batch_length, halo, tuple(blocks), absent)
    if not absent:
        return grid
    tails_of = (seed_tail, reference_tail)
    counted = [_without_absent(grid, one, tails_of, halo_stops_at_batches) for one in blocks]
    return replace(grid, blocks=tuple(counted))


def _without_absent(
    grid: Grid, block: Block, tail_lengths: tuple[int, int], halo_stops_at_batches: bool
) -> Block:
    """Return a block that computes the frames that are there as if there were no others."""
    count = grid.present_before
    start, stop = count(block.start), count(block.stop)
    first, last = (count(frame) for frame in grid.batch_range(block.batch))
    limits = (first, last) if halo_stops_at_batches else (0, count(grid.n_frames))
    read = halo_range(start, stop, grid.halo, *limits) if start < stop else (start, stop)
    is_last_batch = block.batch == grid.n_batches - 1
    seed_tail, reference_tail = (
        stop if is_last_batch or length == 0 else min(max(start, last - length), stop)
        for length in tail_lengths
    )
    seed_start, reference_start = (
        grid.present[tail] if tail < stop else block.stop for tail in (seed_tail, reference_tail)
    )
    present = Block(
        block.index,
        start,
        stop,
        *read,
        block.batch,
        seed_tail_start=seed_tail,
        reference_tail_start=reference_tail,
        numbers=grid.numbers(*read),
    )
    lowest, highest = bisect_left(grid.absent, block.start), bisect_left(grid.absent, block.stop)
    return replace(
        block,
        seed_tail_start=seed_start,
        reference_tail_start=reference_start,
        absent=grid.absent[lowest:highest],
        present=present,
    )


def fitting_block_length(batch_length: int, wanted: int) -> int:
    """Return the divisor of `batch_length` that is nearest to `wanted` (the smaller of two).

    Examples
    --------
    >>> fitting_block_length(400, 32)
    25
    """
    divisors = [n for n in range(1, batch_length + 1) if batch_length % n == 0]
    return min(divisors, key=lambda n: (abs(n - wanted), n))


def choose_block_length(
    n_frames: int, batch_length: int, bytes_per_frame: int, requested: int | None = None
) -> int:
    """Choose how many frames one task computes and one shard holds.

    A request is met exactly where it can be; in recordings of several batches it moves to the
    nearest length that fills a batch. Results never depend on it.

    `n_frames`, `batch_length`: lengths of the recording and of a batch.
    `bytes_per_frame`: bytes that one frame needs in a task.

    Examples
    --------
    >>> choose_block_length(10_000, 400, 512 * 512 * 2)
    20
    >>> choose_block_length(10_000, 400, 256 * 256 * 2)
    50
    """
    if requested is not None:
        if n_frames <= batch_length:
            return min(requested, n_frames)
        return fitting_block_length(batch_length, requested)
    affordable = max(1, TARGET_BLOCK_BYTES // max(1, bytes_per_frame))
    larger = min(SMALL_BLOCK_BYTES // max(1, bytes_per_frame), n_frames // FEWEST_BLOCKS)
    target = min(max(TARGET_BLOCK_FRAMES, larger), affordable)
    if n_frames <= batch_length or batch_length <= target:
        return min(target, n_frames, batch_length)
    divisors = [n for n in range(1, batch_length + 1) if batch_length % n == 0]
    fitting = max(n for n in divisors if n <= target)
    if 2 * fitting >= target:
        return fitting
    # A batch length without good divisors: rather larger shards than a file for every frame.
    above = min(n for n in divisors if n > target)
    return above if above * bytes_per_frame <= LARGEST_BLOCK_BYTES else fitting
