"""Bad inputs end in a result or in one clear message: a sample here, all with ``-m fuzz``."""

from __future__ import annotations

import pytest

from tests.fuzz.campaign import GROUPS, run_cases
from tests.fuzz.server import Ended
from tests.fuzz.verdict import Verdict, verdict_of

SAMPLE = 12  # cases of each group in the default run
PARTS = 4  # of each group in the full run, for as many processes


def check(tally):
    assert sum(counts.total() for counts in tally.counts.values()) > 0
    shown = "\n".join(sorted(tally.failures)[:25])
    assert not tally.failures, f"{len(tally.failures)} went wrong:\n{shown}\n{tally.table()}"


@pytest.mark.parametrize("group", GROUPS)
def test_a_sample(seeds, server, scratch, group):
    cases = list(GROUPS[group](seeds))
    check(run_cases(cases[3 :: max(1, len(cases) // SAMPLE)], seeds, server, scratch))


@pytest.mark.fuzz
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("group", GROUPS)
def test_all(seeds, server, scratch, group, part):
    check(run_cases(list(GROUPS[group](seeds))[part::PARTS], seeds, server, scratch))


def test_at_least_5000_inputs(seeds):
    names = [(case.group, case.name) for make in GROUPS.values() for case in make(seeds)]
    assert len(names) >= 5000
    assert len(set(names)) == len(names)


def test_good_recordings_are_accepted(seeds, server, scratch):
    """Otherwise all that is tried above would be refused for a reason that is not tried."""
    for name, path in seeds.paths.items():
        ended = server.run(["inspect", str(path)], scratch)
        assert verdict_of(ended, executed=False) is Verdict.ACCEPTED, (name, ended.err)


@pytest.mark.parametrize(
    ("ended", "verdict"),
    [
        (Ended(0, "fine", "", 0.1), Verdict.ACCEPTED),
        (Ended(1, "", "warning: odd\nerror: a.tif is damaged\n", 0.1), Verdict.CLEAR),
        (Ended(2, "", "Usage: …\n╭─ Error ──╮\n│ wrong │\n", 0.1), Verdict.CLEAR),
        (Ended(1, "", "", 0.1), Verdict.UNCLEAR),
        (Ended(1, "", "error: a\nerror: b\n", 0.1), Verdict.UNCLEAR),
        (Ended(1, "", "error: Unable to allocate 26.8 GiB\n", 0.1), Verdict.UNCLEAR),
        (Ended(1, "", "Traceback (most recent call last):\nKeyError: 1\n", 0.1), Verdict.TRACEBACK),
        (Ended(None, "", "", 60.0), Verdict.HANG),
        (Ended(-11, "", "", 0.1), Verdict.CRASH),
    ],
)
def test_verdicts(ended, verdict):
    assert verdict_of(ended, executed=False) is verdict
    assert verdict_of(ended, executed=True) is Verdict.EXECUTED
