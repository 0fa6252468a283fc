"""Seconds a frame of the cell numerics on one core, 2048 × 2048 px with 100 cells.

With --peer, PyAMA does the same steps on the same frame in turns (benchmarks/peers says how it is
set up); the ratio is the median over the turns, and the exit status is 1 when a bound is not met.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers.client import run_pyama
from rich.console import Console
from rich.table import Table

from scopeflow.cells.methods.background import (
    fill_tiles,
    foreground,
    surface,
    tile_medians,
    tiles_of,
)
from scopeflow.cells.methods.features import measure_frame, resolve_features
from scopeflow.cells.methods.segmentation import LogStdOptions, segment
from scopeflow.cells.methods.tracking import link_frames, region_table
from scopeflow.warm_up import warm_up

SIZE = 2048
BOUNDS = {"segmentation": 4.0, "background": 5.0, "extraction": 10.0}
PEER_TASKS = {
    "segmentation": "segment",
    "regions and link": "track",
    "background": "background",
    "extraction": "extract",
}


def frame() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    phase = rng.normal(1000, 6, (SIZE, SIZE))
    light = rng.normal(200, 14, (SIZE, SIZE))
    y, x = np.mgrid[-30:31, -30:31]
    disc = y**2 + x**2 <= 30**2
    for n in range(100):
        top, left = 60 + 195 * (n // 10), 60 + 195 * (n % 10)
        box = np.s_[top : top + 61, left : left + 61]
        phase[box][disc] += rng.normal(0, 150, disc.sum())
        light[box][disc] += 300
    return phase.astype(np.uint16), light.astype(np.uint16)


def best(function: Callable[[], Any], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def our_steps(phase: np.ndarray, light: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Each step on what the step before it made."""
    labels, _, _ = segment(phase)
    table = region_table(labels)
    tiles = tiles_of(SIZE, SIZE)

    def background() -> np.ndarray:
        medians = tile_medians(light, foreground(labels), tiles)
        return surface(fill_tiles(medians), tiles)

    level = background()
    area = resolve_features(["area"], "phase")
    totals = resolve_features(["intensity_mean", "intensity_total"], "fluorescence")

    def extraction() -> None:
        measure_frame(labels, table, phase, area)
        measure_frame(labels, table, light, totals, background=level, background_weight=1.0)

    bright = LogStdOptions(split="bright")
    return {
        "segmentation": lambda: segment(phase),
        "segmentation, split": lambda: segment(phase, bright),
        "regions and link": lambda: link_frames([region_table(labels), table]),
        "background": background,
        "extraction": extraction,
    }


def peer_seconds(folder: Path, phase: np.ndarray, light: np.ndarray) -> dict[str, float]:
    # Two frames, as tracking needs a frame before.
    answer = run_pyama(
        folder,
        "segment track background extract",
        phase=np.stack([phase, phase]).astype(np.float32),
        light=np.stack([light, light]),
        weight=1.0,
    )
    return {name: float(answer[f"seconds_{task}"]) for name, task in PEER_TASKS.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", action="store_true", help="measure PyAMA too")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    # One core for both programs; children inherit it.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    warm_up()
    phase, light = frame()
    steps = our_steps(phase, light)
    ours: dict[str, list[float]] = {name: [] for name in steps}
    theirs: dict[str, list[float]] = {name: [] for name in PEER_TASKS}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(arguments.turns):
            for name, function in steps.items():
                ours[name].append(best(function))
            if arguments.peer:
                for name, seconds in peer_seconds(Path(scratch), phase, light).items():
                    theirs[name].append(seconds)
    table = Table("step", "scopeflow, s", "PyAMA, s", "ratio", "range", "bound")
    met = True
    for name, times in ours.items():
        row = [name, f"{np.median(times):.4f}", "", "", "", ""]
        if theirs.get(name):
            ratios = np.array(theirs[name]) / np.array(times)
            bound = BOUNDS.get(name)
            met &= bound is None or bool(np.median(ratios) >= bound)
            row[2:] = [
                f"{np.median(theirs[name]):.3f}",
                f"{np.median(ratios):.1f}",
                f"{ratios.min():.1f} to {ratios.max():.1f}",
                "" if bound is None else f"{bound:g}",
            ]
        table.add_row(*row)
    Console(width=110).print(table)
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
