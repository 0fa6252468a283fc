"""Recorded sequences of kernel calls give what the calls themselves give."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

from scopeflow.compiled import sequence as _sequence
from scopeflow.compiled.gateway import float64, int64, kernel, nothing, readable, writable
from scopeflow.compiled.sequence import KernelSequence, repeated
from scopeflow.flow.flow import prepare_start, solve_prepared
from scopeflow.flow.parameters import FlowParameters
from scopeflow.flow.reference import prepare_reference

SHAPE = (37, 52)


@kernel(nothing, readable(2, float64), int64, writable(2, float64))
def _add(values, number, out):
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            out[y, x] = values[y, x] + number


@kernel(float64, readable(1, float64))
def _first(values):
    return values[0]


def frames(count, channels=1):
    return np.random.default_rng(3).random((count, *SHAPE, channels)).astype(np.float32)


@pytest.fixture(autouse=True)
def _no_sequences():
    _sequence._kept.owners.clear()


def test_repeats_with_other_inputs():
    first, out = np.arange(6.0).reshape(2, 3), np.zeros((2, 3))
    constant = np.full((2, 3), 100.0)
    twice = np.zeros((2, 3))

    def run():
        _add(first, 5, out)
        _add(out, 1, twice)
        _add(constant, 0, out)
        return twice

    sequence = KernelSequence(run, [first])
    assert np.array_equal(sequence.result, first + 6)
    other = np.full((2, 3), -7.0)
    assert np.array_equal(sequence(other), other + 6)
    assert np.array_equal(out, constant)


def test_only_calls_of_the_recording_are_repeated():
    values, out = np.ones((2, 3)), np.zeros((2, 3))
    sequence = KernelSequence(lambda: _add(values, 1, out), [values])
    _add(values, 50, out)
    sequence(values)
    assert np.array_equal(out, values + 1)


def test_refuses_kernels_with_a_result():
    with pytest.raises(TypeError, match="returns a value"):
        KernelSequence(lambda: _first(np.ones(3)), [])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_level": 2, "data_term": "gray"},
        {"data_term": "cs"},
        {"a_smooth": 0.5},
        {"gnc_schedule": (0.0, 1.0), "warping_steps": 2},
        {"levels": 2},
    ],
    ids=lambda options: ",".join(options) or "default",
)
@pytest.mark.parametrize("channels", [1, 2])
def test_frames_of_a_sequence_equal_single_frames(options, channels):
    params = FlowParameters(iterations=7, **options)
    reference, *moving = frames(6, channels)
    kept = prepare_reference(reference, None, params)
    for number, frame in enumerate(moving):
        fresh = prepare_reference(reference, None, params)
        assert np.array_equal(solve_prepared(kept, frame), solve_prepared(fresh, frame)), number
    sequences = _sequence._kept.owners[id(kept)][1].values()
    assert [type(each) for each in sequences] == [KernelSequence] * len(sequences)


def test_start_changes_between_frames():
    params = FlowParameters(iterations=5, min_level=1)
    reference, *moving = frames(6)
    kept = prepare_reference(reference, None, params)
    for number, frame in enumerate(moving):
        start = prepare_start(kept, np.full((*SHAPE, 2), 0.5 * number))
        fresh = prepare_reference(reference, None, params)
        given, expected = solve_prepared(kept, frame, start), solve_prepared(fresh, frame, start)
        assert np.array_equal(given, expected), number


def test_larger_frames_in_between_change_nothing():
    params = FlowParameters(iterations=5)
    reference, *moving = frames(5)
    large = np.random.default_rng(0).random((3, 90, 110, 2)).astype(np.float32)
    small_kept = prepare_reference(reference, None, params)
    large_kept = prepare_reference(large[0], None, params)
    expected = [solve_prepared(prepare_reference(reference, None, params), f) for f in moving]
    for frame, value in zip(moving, expected, strict=True):
        assert np.array_equal(solve_prepared(small_kept, frame), value)
        solve_prepared(large_kept, large[1])


def test_threads_have_sequences_of_their_own():
    params = FlowParameters(iterations=5)
    reference, *moving = frames(9)
    prepared = prepare_reference(reference, None, params)
    expected = [solve_prepared(prepared, frame) for frame in moving]
    found: dict[int, bool] = {}

    def work(number):
        results = [solve_prepared(prepared, frame) for frame in moving]
        found[number] = all(map(np.array_equal, results, expected))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), True)


def test_only_few_are_kept_and_then_let_go():
    class Owner:
        pass

    def run(values):
        out = np.zeros((2, 3))
        _add(values, 1, out)
        return out

    owners = [Owner() for _ in range(7)]
    for owner in owners:
        for _ in range(3):
            repeated(owner, "add", run, [np.ones((2, 3))])
    watched = [weakref.ref(owner) for owner in owners]
    del owner, owners
    gc.collect()
    assert [each() is not None for each in watched] == [False] * 2 + [True] * 5


def test_inputs_are_not_kept():
    out = np.zeros((2, 3))

    def recorded(values):
        return KernelSequence(lambda: _add(values, 1, out), [values])

    given = np.ones((2, 3))
    sequence = recorded(given)
    watched = weakref.ref(given)
    del given
    gc.collect()
    assert watched() is None
    sequence(np.full((2, 3), 4.0))
    assert np.array_equal(out, np.full((2, 3), 5.0))
