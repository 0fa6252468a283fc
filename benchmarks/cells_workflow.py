"""The whole cell workflow: seconds of each step, peak memory, and bytes written.

By default 4 fields of view of 40 frames, 1024 × 1024 px, 2 channels, on 2 cores. --long is one
field of view of 180 frames of 2048 × 2048 px, whose peak memory must stay below 1.5 GB. Frames are
made when they are read, so that the recording needs no room. The run is a process of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from scopeflow.cells.config import WorkflowConfig
from scopeflow.cells.plan import plan_workflow
from scopeflow.cells.store.arrays import fov_folder
from scopeflow.cells.workflow import run_plan
from scopeflow.io.metadata import VideoMetadata
from scopeflow.warm_up import warm_up

MEMORY_BOUND = 1.5e9
PERIOD = 195  # px from cell to cell


@lru_cache(maxsize=4)
def _noise(side: int, mean: float, spread: float, seed: int) -> np.ndarray:
    # Longer than a frame: frames take different parts of it.
    drawn = np.random.default_rng(seed).normal(mean, spread, side * side + 65536)
    return np.clip(drawn, 0, 65535).astype(np.uint16)


@dataclass(frozen=True)
class Plate:
    """A recording of textured cells that drift; a source without files."""

    fov: int
    frames: int
    side: int
    metadata: VideoMetadata = field(default_factory=VideoMetadata)
    paths: tuple[str, ...] = ()
    frames_per_chunk: int = 1

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint16)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.frames, self.side, self.side, 2

    @property
    def description(self) -> str:
        return f"synthetic plate, FOV {self.fov}"

    def identity(self) -> dict[str, Any]:
        return {"plate": self.fov, "frames": self.frames, "side": self.side}

    def read(self, start: int, stop: int) -> np.ndarray:
        return np.stack([self._frame(t) for t in range(start, stop)])

    def _frame(self, t: int) -> np.ndarray:
        side = self.side
        first = (7919 * t + 104729 * self.fov) % 65536
        image = np.empty((side, side, 2), np.uint16)
        for channel, (mean, spread) in enumerate(((1000, 6), (200, 14))):
            values = _noise(side, mean, spread, channel)[first : first + side * side]
            image[..., channel] = values.reshape(side, side)
        y, x = np.mgrid[-30:31, -30:31]
        disc = y**2 + x**2 <= 30**2
        texture = _noise(side, 300, 150, 2)[first : first + int(disc.sum())]
        for top in range(80, side - 120, PERIOD):
            for left in range(80, side - 120, PERIOD):
                box = image[top + t % 40 : top + t % 40 + 61, left : left + 61]
                box[..., 0][disc] += texture
                box[..., 1][disc] += 300
        return image


def run(fovs: int, frames: int, side: int, workers: int, output: Path) -> None:
    """Run the workflow in this process and print seconds of each step, peak memory and bytes."""
    warm_up()
    config = WorkflowConfig(
        channels={"pc": 0, "fl": [1]}, params={"n_workers": workers, "batch_size": 2}
    )
    plan = plan_workflow(Plate(0, frames, side), output, config)
    (first,) = plan.fovs
    chosen = [
        replace(
            first,
            fov=n,
            source=Plate(n, frames, side),
            folder=first.folder.with_name(fov_folder(n)),
            records=first.records.with_name(fov_folder(n)),
        )
        for n in range(fovs)
    ]
    seconds: dict[str, float] = {}
    work: dict[str, float] = {}
    peaks: dict[str, int] = {}
    last, last_work = time.perf_counter(), time.process_time()

    def note(event: dict[str, Any]) -> None:
        nonlocal last, last_work
        now, now_work = time.perf_counter(), time.process_time()
        seconds[event["step"]] = seconds.get(event["step"], 0.0) + now - last
        work[event["step"]] = work.get(event["step"], 0.0) + now_work - last_work
        last, last_work = now, now_work
        peaks[event["step"]] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    if not run_plan(replace(plan, fovs=tuple(chosen)), progress=note):
        sys.exit("The workflow failed.")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    written = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    for name, value in seconds.items():
        sys.stdout.write(f"{name} {value} {work[name]} {peaks[name]}\n")
    sys.stdout.write(f"peak {peak}\nwritten {written}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fovs", type=int, default=4)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--long", action="store_true", help="1 x 180 frames of 2048 px, for memory")
    parser.add_argument("--scratch", type=Path, help="folder for the results, removed afterwards")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.long:
        arguments.fovs, arguments.frames, arguments.side = 1, 180, 2048
    sizes = [arguments.fovs, arguments.frames, arguments.side, arguments.workers]
    if arguments.run:
        run(*sizes, arguments.run)
        return 0
    cores = sorted(os.sched_getaffinity(0))[: arguments.workers]
    os.sched_setaffinity(0, cores)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        command = [sys.executable, __file__, "--run", str(Path(folder) / "out")]
        for flag, value in zip(("fovs", "frames", "side", "workers"), sizes, strict=True):
            command += [f"--{flag}", str(value)]
        started = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        wall = time.perf_counter() - started
    lines = [line.split() for line in done.stdout.splitlines()]
    facts = {name: [float(value) for value in values] for name, *values in lines}
    (peak,), (written,) = facts.pop("peak"), facts.pop("written")
    frames = arguments.fovs * arguments.frames
    title = (
        f"{arguments.fovs} FOVs of {arguments.frames} frames, {arguments.side} px, "
        f"{len(cores)} cores"
    )
    columns = ("step", "seconds", "ms a frame", "CPU seconds", "peak MB until its end")
    table = Table(*columns, title=title)
    for name, (value, work, most) in facts.items():
        each = f"{1e3 * value / frames:.0f}"
        table.add_row(name, f"{value:.1f}", each, f"{work:.1f}", f"{most / 1e6:.0f}")
    table.add_row("all, with start-up", f"{wall:.1f}", f"{1e3 * wall / frames:.0f}")
    console = Console(width=100)
    console.print(table)
    console.print(f"Peak memory {peak / 1e6:.0f} MB, results {written / 1e6:.0f} MB.")
    return int(peak > MEMORY_BOUND)


if __name__ == "__main__":
    sys.exit(main())
