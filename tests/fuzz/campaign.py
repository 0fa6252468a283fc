"""Runs cases, and counts what became of them."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz import (
    mutate_bytes,
    mutate_json,
    mutate_options,
    mutate_pickles,
    mutate_state,
    mutate_structure,
)
from tests.fuzz.cases import CORRECT, MARKER, Case
from tests.fuzz.seeds import Seeds, make_seeds
from tests.fuzz.server import Ended, ForkServer
from tests.fuzz.verdict import ALLOWED, Verdict, verdict_of

GROUPS: dict[str, Callable[[Seeds], Iterator[Case]]] = {
    module.GROUP: module.cases
    for module in (
        mutate_bytes,
        mutate_structure,
        mutate_json,
        mutate_options,
        mutate_pickles,
        mutate_state,
    )
}
AFTERWARDS = "correct on what inspect accepted"
_CORRECT_EVERY = 4  # of the accepted


@dataclass
class Tally:
    """How many cases of each group ended in which way, and all that ended in a forbidden one."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, group: str, name: str, verdict: Verdict, ended: Ended) -> None:
        """Count one ending."""
        self.counts.setdefault(group, Counter())[verdict.value] += 1
        if verdict not in ALLOWED:
            last = next(reversed((ended.err.strip() or ended.out.strip() or "-").splitlines()))
            failure = f"{verdict.value}: [{group}] {name} (exit {ended.code}): {last[:200]}"
            self.failures.append(failure)
            sys.stderr.write(failure + "\n")  # at once: the whole takes long

    def merge(self, other: Tally) -> None:
        """Add the counts of another part."""
        for group, counts in other.counts.items():
            self.counts.setdefault(group, Counter()).update(counts)
        self.failures += other.failures

    def table(self) -> str:
        """Return the counts as a table in markdown."""
        kinds = [*Verdict]
        head = ["inputs", "tried", *(kind.value for kind in kinds)]
        rows = [head, ["---"] + ["--:"] * (len(head) - 1)]
        total: Counter[str] = Counter()
        for group, counts in self.counts.items():
            total.update(counts)
            rows.append([group, str(counts.total()), *(str(counts[kind]) for kind in kinds)])
        rows.append(["**sum**", str(total.total()), *(str(total[kind]) for kind in kinds)])
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def prepare(scratch: Path, server: ForkServer, groups: Iterable[str] = tuple(GROUPS)) -> Seeds:
    """Make all that cases of some groups start from."""
    seeds = make_seeds(scratch / "seeds")
    if mutate_state.GROUP in groups:
        seeds.outputs = mutate_state.make_outputs(scratch, server)
    return seeds


def run_cases(cases: Iterable[Case], seeds: Seeds, server: ForkServer, scratch: Path) -> Tally:
    """Make and run every case in a folder of its own; what is accepted may be corrected, too."""
    tally, accepted = Tally(), 0
    folder = scratch / "case"
    for case in cases:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        words = case.make(folder, seeds, case.generator)
        verdict = _run(case, seeds, words, server, folder, tally)
        if verdict is Verdict.ACCEPTED and case.recording is not None:
            accepted += 1
            if accepted % _CORRECT_EVERY == 0:
                words = ["correct", case.recording, "out", *CORRECT]
                again = Case(AFTERWARDS, case.name, case.make)
                _run(again, seeds, words, server, folder, tally)
    shutil.rmtree(folder, ignore_errors=True)
    return tally


def _run(
    case: Case, seeds: Seeds, words: Sequence[str], server: ForkServer, folder: Path, tally: Tally
) -> Verdict:
    ended = server.run(words, folder)
    verdict = verdict_of(ended, executed=(folder / MARKER).exists())
    if verdict is Verdict.ACCEPTED and case.is_right is not None and not case.is_right(seeds):
        verdict = Verdict.WRONG
    tally.add(case.group, case.name, verdict, ended)
    return verdict
