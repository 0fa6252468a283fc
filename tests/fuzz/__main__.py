"""``python -m tests.fuzz``: all cases, the table of what became of them, and what went wrong."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.fuzz.campaign import GROUPS, Tally, prepare, run_cases
from tests.fuzz.server import ROOT, ForkServer

DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- fuzz: begin -->", "<!-- fuzz: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="write it to docs/reliability.md")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--group", action="append", choices=[*GROUPS], help="only these")
    parser.add_argument("--every", type=int, default=1, help="only each n-th case")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part is not None:
        print(json.dumps(_part(given)))
        return
    words = [word for group in given.group or [] for word in ("--group", group)]
    parts = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.fuzz", *words, "--every", str(given.every)),
                *("--part", f"{number}/{given.jobs}"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(given.jobs)
    ]
    tally = Tally()
    for part in parts:
        out, _ = part.communicate()
        if part.returncode:
            sys.exit(f"a part ended with exit code {part.returncode}")
        found = json.loads(out)
        counts = {group: Counter(counted) for group, counted in found["counts"].items()}
        tally.merge(Tally(counts, found["failures"]))
    print(tally.table())
    if given.table:
        _write_table(tally.table())
    sys.exit(bool(tally.failures))


def _part(given: argparse.Namespace) -> dict[str, object]:
    number, jobs = map(int, given.part.split("/"))
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        scratch = Path(name).resolve()
        with ForkServer(scratch) as server:
            seeds = prepare(scratch, server, given.group or GROUPS)
            for group in given.group or GROUPS:
                cases = list(GROUPS[group](seeds))[:: given.every][number::jobs]
                tally.merge(run_cases(cases, seeds, server, scratch))
    return {"counts": tally.counts, "failures": tally.failures}


def _write_table(table: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
