"""Seconds that `scopeflow correct` takes from its start to the first frame, cold and warm.

Cold: no compiled kernel is on disk. Warm: all are. Measured in the command's own process, from the
moment it was started to the moment at which the first displacement is known; everything before that
counts, reading the recording and the first pass for the reference too. Prints a table, and exits
with 1 when a bound is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tifffile
from rich.console import Console
from rich.table import Table

from scopeflow.testing.synthetic import synthetic_recording

BOUNDS = {"cold": 15.0, "warm": 1.5}
_COMMAND = """
import json, os, sys, time
answer, started = sys.argv.pop(), float(sys.argv.pop())
from scopeflow.cli.app import main
import scopeflow.motion.block.correct as blocks
registered_frames = blocks.registered_frames
def stamped(*arguments):
    for frame in registered_frames(*arguments):
        if not os.path.exists(answer):
            json.dump([time.time() - started, time.process_time()], open(answer, "w"))
        yield frame
blocks.registered_frames = stamped
main()
"""


def first_frame(movie: Path, folder: Path, cache: Path) -> tuple[float, float]:
    """Seconds, and seconds of processor time, to the first frame of a run in a new folder."""
    answer = folder / "answer.json"
    words = ["correct", str(movie), str(folder / "out"), "--quality", "fast"]
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-c", _COMMAND, *words, str(time.time()), str(answer)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        check=True,
        capture_output=True,
    )
    wall, cpu = json.loads(answer.read_text())
    return wall, cpu


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="warm runs")
    parser.add_argument("--cold-runs", type=int, default=1)
    arguments = parser.parse_args()
    table = Table(title="scopeflow correct, seconds to the first frame")
    for heading in ("start", "median", "least", "processor time", "bound"):
        table.add_column(heading, justify="right")
    met = True
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        recording = synthetic_recording(40, 128, 128, seed=1)
        movie = root / "movie.tif"
        tifffile.imwrite(movie, recording.video[..., 0], photometric="minisblack")
        runs = {"cold": arguments.cold_runs, "warm": arguments.runs}
        for start, count in runs.items():
            found = [
                first_frame(
                    movie,
                    root / f"{start}-{n}",
                    root / (f"cache-{n}" if start == "cold" else "cache-0"),
                )
                for n in range(count)
            ]
            wall, cpu = (statistics.median(values) for values in zip(*found, strict=True))
            least = min(seconds for seconds, _ in found)
            row = (wall, least, cpu, BOUNDS[start])
            table.add_row(start, *(f"{value:.2f}" for value in row))
            met &= wall < BOUNDS[start]
    Console(width=100).print(table)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
