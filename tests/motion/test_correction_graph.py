from __future__ import annotations

import dataclasses
import pickle

import dask
import numpy as np
import pytest

from scopeflow.engine.executor import open_executor
from scopeflow.io.lazy import lazy_array
from scopeflow.io.open import open_source
from scopeflow.motion.block.correct import make_reference
from scopeflow.motion.graph.correct import CorrectionJob, windows
from scopeflow.motion.graph.run import run_job
from scopeflow.motion.plan import plan_correction
from tests.conftest import same_bits


@pytest.fixture
def make_job(small_recording, quick_options, quiet):
    def make(block_length=2, **changes) -> CorrectionJob:
        options = quick_options(
            input_file=small_recording.video, output_format="ARRAY", buffer_size=6
        )
        plan = plan_correction(options, quiet(block_length=block_length))
        reference = make_reference(
            small_recording.reference, plan.parameters.preprocess, plan.weight
        )
        job = CorrectionJob(plan.recording.video, plan.grid, reference, plan.request)
        return dataclasses.replace(job, **changes)

    return make


def run(job, quiet, **places):
    with open_executor(quiet(**places)) as executor:
        outcomes = run_job(job, executor)
    return np.concatenate([outcome.content.motion for outcome in outcomes])


def test_windows_give_the_bits_of_one_graph(make_job, quiet):
    whole = run(make_job(), quiet)
    for tasks_per_window in (1, 4, 10):
        assert same_bits(run(make_job(tasks_per_window=tasks_per_window), quiet), whole)


def test_every_block_is_in_one_window_and_nothing_is_computed_while_building(make_job):
    def refuse(*_args, **_kwargs):
        raise AssertionError("computed while the graph was built")

    job = make_job(tasks_per_window=8)
    seen = []
    with dask.config.set(scheduler=refuse):
        for window in windows(job):
            assert len(window.tasks) == len(window.blocks) <= 8
            seen += [block.index for block in window.blocks]
    assert seen == list(range(len(job.grid.blocks)))


@pytest.mark.parametrize("ahead", [2, 3])
def test_the_spine_does_not_run_away_from_the_leaves(make_job, quiet, ahead):
    job = make_job(batches_ahead=ahead)
    remaining = {batch: len(job.grid.batch(batch)) for batch in range(job.grid.n_batches)}
    spans = []

    def on_finish(block, _):
        remaining[block.batch] -= 1
        oldest = min((batch for batch, left in remaining.items() if left), default=block.batch)
        spans.append(block.batch - oldest)

    with open_executor(quiet(parallelization="threading", n_jobs=2)) as executor:
        run_job(job, executor, on_finish)
    assert max(spans) <= ahead


def test_the_graph_of_a_long_recording_is_small(make_job):
    job = make_job(block_length=1)
    (window,) = windows(job)
    size = len(pickle.dumps([task.key for task in window.tasks]))
    graph = dask.base.collections_to_expr(window.tasks).__dask_graph__()
    # Per block: the task, the token that it is done, and for tails the outcome without its tail.
    assert len(graph) < 5 * len(window.tasks) + 50
    assert size < 100 * len(window.tasks)


class CountingSource:
    """Counts the frames that are read."""

    def __init__(self, video):
        self._video = video
        self.shape, self.dtype = video.shape, video.dtype
        self.read_frames = []

    def read(self, start, stop):
        self.read_frames += range(start, stop)
        return self._video[start:stop]


def test_a_lazy_array_reads_only_the_frames_that_are_looked_at(small_recording):
    source = CountingSource(small_recording.video)
    lazy = lazy_array(source, 8)
    assert source.read_frames == []
    found = lazy[17:19, 4:9, :, 1].compute(scheduler="synchronous")
    np.testing.assert_array_equal(found, small_recording.video[17:19, 4:9, :, 1])
    assert set(source.read_frames) <= set(range(16, 24))


def test_a_lazy_array_has_whole_frames_as_chunks(small_recording):
    lazy = lazy_array(open_source(small_recording.video), 8)
    assert lazy.chunks == ((8, 8, 8, 8, 8, 4), (40,), (52,), (2,))
