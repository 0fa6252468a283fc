"""``python -m tests.faults``: faults of every kind in every workload, and the table of them."""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.disk import restore
from tests.faults.place import Place
from tests.faults.workloads import WORKLOADS, contents
from tests.fuzz.server import ROOT, ForkServer

DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


@dataclass
class Row:
    """One kind of fault in one workload."""

    fault: str
    work: str
    tried: int = 0
    survived: int = 0
    repeated: int = 0
    lost: int = 0
    notes: list[str] = field(default_factory=list)

    def count(self, place: Place, name: str, before: Sequence[str], where: str) -> None:
        """Run again after a fault, and see whether all is there, and what was done twice."""
        place.completed()
        self.tried += 1
        again = place.run(name)
        if again.code == 0 and contents(place.root) == place.expected(name):
            self.survived += 1
        else:
            last = (again.err.strip().splitlines() or ["other bytes"])[-1]
            self.notes.append(f"{self.fault}, {name}, {where}: exit {again.code}: {last[:160]}")
        self.repeated += len(set(before) & set(place.completed()))


def power_cuts(place: Place, name: str, most: int, scratch: Path) -> Iterator[Row]:
    """Yield what power cuts do during a run, and after its end."""
    place.expected(name)
    place.prepare(name)
    place.completed()
    target = scratch / "states.pickle"
    ended = place.run(name, "tests.faults.disk:record", str(target))
    assert ended.code == 0, ended.err
    moments, last = pickle.loads(target.read_bytes())
    row = Row("power cut", name)
    for moment in _some(moments, most):
        restore(moment.state, place.root)
        row.count(place, name, moment.completed, f"{moment.loss} after {moment.step}")
    yield row
    row = Row("power cut after exit code 0", name)
    expected = place.expected(name)
    for moment in last:
        restore(moment.state, place.root)
        found = contents(place.root)
        lost = [one for one in expected if found.get(one) != expected[one]]
        row.tried += 1
        row.survived += not lost
        place.prepare(name)
        place.run(name)
        row.lost += sum((place.root / one).stat().st_size for one in lost)
        row.notes += [f"power cut after exit 0, {name}, {moment.loss}: {lost[:3]}"] if lost else []
    yield row


def at_calls(place: Place, name: str, most: int, scratch: Path) -> Iterator[Row]:
    """Yield what kills and errors of the system do at calls that a run makes."""
    target = scratch / "calls"
    place.prepare(name)
    ended = place.run(name, "tests.faults.hooks:counted", str(target))
    assert ended.code == 0, ended.err
    calls = target.read_text().splitlines()
    row = Row("SIGKILL", name)
    for number in _some(range(len(calls)), most):
        place.prepare(name)
        place.completed()
        place.run(name, "tests.faults.hooks:killed", number)
        row.count(place, name, place.completed(), f"at call {number}")
    yield row
    row = Row("EIO, ENOSPC, EACCES", name)
    for turn, number in enumerate(_some(range(len(calls)), most)):
        place.prepare(name)
        place.completed()
        code = ("EIO", "ENOSPC", "EACCES")[turn % 3]
        place.run(name, "tests.faults.hooks:failing", number, code)
        row.count(place, name, place.completed(), f"{code} at call {number}")
    yield row
    row = Row("ten runs at once", name)
    for turn in range(5):
        place.prepare(name)
        place.run(name, "tests.faults.hooks:together", 10)
        row.count(place, name, (), f"turn {turn}")
    yield row


def _some(values: Sequence, most: int) -> list:  # type: ignore[type-arg]
    every = max(1, len(values) // most)
    return [*values][every // 2 :: every]


def table(rows: Sequence[Row]) -> str:
    """Return all rows in markdown."""
    head = ["fault", "in", "tried", "survived", "blocks repeated", "bytes lost"]
    lines = [head, ["---", "---", *["--:"] * 4]]
    for row in sorted(rows, key=lambda row: row.fault):
        numbers = (row.tried, row.survived, row.repeated, row.lost)
        lines.append([row.fault, row.work, *map(str, numbers)])
    sums = (sum(getattr(row, one) for row in rows) for one in ("tried", "survived"))
    more = (sum(getattr(row, one) for row in rows) for one in ("repeated", "lost"))
    lines.append(["**sum**", "", *map(str, sums), *map(str, more)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rows_of(name: str, most: int) -> list[Row]:
    """Try all faults in one workload."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        scratch = Path(folder).resolve()
        with ForkServer(scratch) as server:
            place = Place(scratch / "place", server)
            return [*power_cuts(place, name, most, scratch), *at_calls(place, name, most, scratch)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="write it to docs/reliability.md")
    parser.add_argument("--most", type=int, default=60, help="trials of each kind in each workload")
    parser.add_argument("--only", action="append", choices=[*WORKLOADS], help="only these")
    parser.add_argument("--jobs", type=int, default=2, help="workloads at a time")
    given = parser.parse_args()
    rows: list[Row] = []
    with ProcessPoolExecutor(given.jobs) as pool:
        tried = [pool.submit(rows_of, name, given.most) for name in given.only or WORKLOADS]
        for one in tried:
            rows += one.result()
            sys.stderr.write(f"{rows[-1].work}: done\n")
    for row in rows:
        print(*row.notes, sep="\n", end="\n" if row.notes else "")
    print(table(rows))
    if given.table:
        text = DOCUMENT.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        content = f"{before}{BEGIN}\n{table(rows)}\n{END}{after}"
        DOCUMENT.write_text(content, encoding="utf-8")
    sys.exit(any(row.notes for row in rows))


if __name__ == "__main__":
    main()
