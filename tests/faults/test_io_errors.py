"""Each call of the system fails once: one clear error, and the next run has the right bytes."""

from __future__ import annotations

import pytest

from tests.faults.workloads import USUAL, WORKLOADS, contents

CODES = ("EIO", "ENOSPC", "EACCES")
SAMPLE = 4  # calls of each workload in the default run


def changed(place, expected):
    """Names of results that are not as they should be; what a failed removal left may stay."""
    found = contents(place.root)
    names = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
    return [name for name in names if not name.endswith(".partial")]


def is_picture(name):
    """Small copies of images for viewers: results are whole without them, and a warning says so."""
    return ".zarr/" in name and "1" in name.partition(".zarr/")[2].split("/")[1:2]


def check(place, name, calls, numbers):
    expected, wrong = place.expected(name), []
    for position, number in enumerate(numbers):
        code = CODES[position % len(CODES)]
        where = f"{code} at call {number}, {calls[number].replace(str(place.root), '')}"
        place.prepare(name)
        failed = place.run(name, "tests.faults.hooks:failing", number, code)
        errors = [line for line in failed.err.splitlines() if line.startswith("error: ")]
        if failed.code == 0:
            missed = changed(place, expected)
            if any(not is_picture(one) for one in missed):
                wrong.append(f"{where}: exit 0 and other bytes: {missed[:3]}")
            elif missed and "warning: " not in failed.err:
                wrong.append(f"{where}: exit 0, not a word, and no pictures: {missed[:3]}")
        elif failed.code != 1 or len(errors) != 1 or "Traceback" in failed.err:
            wrong.append(f"{where}: exit {failed.code}: {failed.err.strip().splitlines()[-1:]}")
        elif str(place.root) not in errors[0]:
            wrong.append(f"{where}: names no file: {errors[0]}")
        again = place.run(name)
        if again.code != 0:
            wrong.append(f"{where}, again: {again.err.strip().splitlines()[-1:]}")
        elif missed := changed(place, expected):
            wrong.append(f"{where}, again: other bytes: {missed[:3]}")
    shown = "\n".join(wrong[:25])
    assert not wrong, f"{len(wrong)} of {len(numbers)} errors did harm:\n{shown}"


@pytest.mark.parametrize("name", USUAL)
def test_a_sample_of_calls_fails(place, calls, name):
    made = calls(name)
    assert len(made) > SAMPLE
    every = len(made) // SAMPLE
    check(place, name, made, range(every // 2, len(made), every))


@pytest.mark.fuzz
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", WORKLOADS)
def test_every_call_fails(place, calls, name):
    made = calls(name)
    check(place, name, made, range(len(made)))
