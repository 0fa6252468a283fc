"""A power cut at any step of a run costs work at most: what is left goes on to the same bytes."""

from __future__ import annotations

import pickle

import pytest

from tests.faults.disk import CONTENT_LOST, CONTENT_TORN, NAMES_LOST, restore
from tests.faults.workloads import USUAL, WORKLOADS, contents

SAMPLE = 3  # states of each workload in the default run


@pytest.fixture(scope="module")
def recorded(place, tmp_path_factory):
    """Return every state of a workload that a power cut could leave, and those after its end."""
    known = {}

    def states(name):
        if name not in known:
            place.expected(name)
            target = tmp_path_factory.mktemp("states") / "states.pickle"
            place.prepare(name)
            ended = place.run(name, "tests.faults.disk:record", str(target))
            assert ended.code == 0, ended.err
            assert contents(place.root) == place.expected(name)
            known[name] = pickle.loads(target.read_bytes())
        return known[name]

    return states


def differences(found, expected):
    return sorted(
        f"{'lost' if name not in found else 'new' if name not in expected else 'differs'}: {name}"
        for name in found.keys() | expected.keys()
        if found.get(name) != expected.get(name)
    )


def check(place, name, moments):
    wrong = []
    for moment in moments:
        restore(moment.state, place.root)
        ended = place.run(name)
        where = f"{moment.loss} after step {moment.number}, {moment.step}"
        if ended.code != 0:
            wrong.append(f"{where}: exit {ended.code}: {ended.err.strip().splitlines()[-1:]}")
        elif changed := differences(contents(place.root), place.expected(name)):
            wrong.append(f"{where}: {changed[:3]}")
    shown = "\n".join(wrong[:20])
    assert not wrong, f"{len(wrong)} of {len(moments)} power cuts cost more than work:\n{shown}"


@pytest.mark.parametrize("name", USUAL)
def test_nothing_is_lost_after_the_end(recorded, place, name):
    """Nobody runs again what ended with success: it has to be there."""
    _, last = recorded(name)
    assert {moment.loss for moment in last} == {NAMES_LOST, CONTENT_LOST, CONTENT_TORN}
    for moment in last:
        restore(moment.state, place.root)
        lost = differences(contents(place.root), place.expected(name))
        assert not lost, f"{moment.loss}: {len(lost)} files: {lost[:10]}"


@pytest.mark.parametrize("name", USUAL)
def test_a_sample_of_power_cuts(recorded, place, name):
    moments, _ = recorded(name)
    assert len(moments) >= 5
    every = max(1, len(moments) // SAMPLE)
    check(place, name, moments[every // 2 :: every])


@pytest.mark.fuzz
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", WORKLOADS)
def test_a_power_cut_at_every_step(recorded, place, name):
    moments, _ = recorded(name)
    check(place, name, moments)
