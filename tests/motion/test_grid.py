from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeflow.errors import InputError, MemoryLimitError
from scopeflow.motion.graph.memory import check_memory, project_correction
from scopeflow.motion.grid import (
    SEED_TAIL,
    choose_block_length,
    fitting_block_length,
    halo_range,
    make_grid,
)

lengths = st.integers(1, 120)


@st.composite
def grids(draw):
    n_frames = draw(st.integers(1, 300))
    batch_length = draw(st.integers(1, 120))
    wanted = draw(st.integers(1, 60))
    block_length = choose_block_length(n_frames, batch_length, 1000, wanted)
    return make_grid(
        n_frames,
        batch_length,
        block_length,
        halo=draw(st.integers(0, 7)),
        halo_stops_at_batches=draw(st.booleans()),
        reference_tail=draw(st.sampled_from([0, 100])),
    )


@given(grids())
def test_blocks_cover_every_frame_once_and_own_whole_shards(grid):
    covered = [frame for block in grid.blocks for frame in range(block.start, block.stop)]
    assert covered == list(range(grid.n_frames))
    for block in grid.blocks:
        assert block.start % grid.block_length == 0
        assert block.stop == min(block.start + grid.block_length, grid.n_frames)


@given(grids())
def test_no_block_crosses_a_batch_border(grid):
    for block in grid.blocks:
        start, stop = grid.batch_range(block.batch)
        assert start <= block.start < block.stop <= stop


@given(grids())
def test_tails_are_the_last_frames_of_every_batch_but_the_last(grid):
    for batch in range(grid.n_batches):
        start, stop = grid.batch_range(batch)
        tail = [
            frame
            for block in grid.batch(batch)
            for frame in range(block.seed_tail_start, block.stop)
        ]
        expected = [] if batch == grid.n_batches - 1 else range(max(start, stop - SEED_TAIL), stop)
        assert tail == list(expected)


@given(grids())
def test_what_a_block_reads_holds_all_frames_of_its_reflected_halo(grid):
    for block in grid.blocks:
        assert 0 <= block.read_start <= block.start
        assert block.stop <= block.read_stop <= grid.n_frames


def naive_reflection(frame: int, lowest: int, highest: int) -> int:
    """Half-sample symmetric reflection, walked step by step."""
    while not lowest <= frame < highest:
        frame = 2 * lowest - 1 - frame if frame < lowest else 2 * highest - 1 - frame
    return frame


@given(st.integers(0, 30), st.integers(1, 10), st.integers(0, 40), st.integers(0, 30))
def test_halo_range_is_the_span_of_the_reflected_frames(start, length, halo, room):
    lowest, highest = 0, start + length + room
    frames = [
        naive_reflection(frame, lowest, highest)
        for frame in range(start - halo, start + length + halo)
    ]
    assert halo_range(start, start + length, halo, lowest, highest) == (
        min(frames),
        max(frames) + 1,
    )


@given(st.integers(1, 2000), st.integers(1, 500), st.one_of(st.none(), st.integers(1, 100)))
def test_every_chosen_block_length_makes_a_grid(n_frames, batch_length, requested):
    block_length = choose_block_length(n_frames, batch_length, 2**19, requested)
    grid = make_grid(n_frames, batch_length, block_length)
    assert grid.blocks[-1].stop == n_frames


def test_a_request_is_met_exactly_in_a_recording_of_one_batch():
    assert choose_block_length(100, 400, 1000, 7) == 7


def test_blocks_that_do_not_fill_a_batch_are_refused_with_the_nearest_that_do():
    with pytest.raises(InputError, match="use 30"):
        make_grid(1000, 390, 32)
    assert fitting_block_length(390, 32) == 30


def test_memory_grows_with_every_dimension_and_is_refused_when_too_large():
    small = project_correction((256, 256, 1), (128, 128), 2, 2, 10, 0)
    larger = [
        ((512, 256, 1), 10, 0),
        ((256, 256, 2), 10, 0),
        ((256, 256, 1), 20, 0),
        ((256, 256, 1), 10, 3),
    ]
    for shape, block, halo in larger:
        assert project_correction(shape, (128, 128), 2, 2, block, halo).total > small.total
    check_memory(small, small.total, 1)
    with pytest.raises(MemoryLimitError, match="n_jobs"):
        check_memory(small, small.total, 2)
