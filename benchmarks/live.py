"""Latency of live correction, and its memory over a long stream.

Frames of a synthetic recording go through `scopeflow.FlowRegLive` one by one, over and over. Prints
the median and the 99th percentile of the time for a frame, with and without the frames at which
the reference is renewed, and the memory of this process along the stream. Exits with 1 when memory
grows by more than the bound after the first tenth.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from scopeflow import FlowRegLive
from scopeflow.testing.synthetic import synthetic_recording

BOUND_MB = 8.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--distinct", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=50, help="frames before measuring")
    arguments = parser.parse_args()
    recording = synthetic_recording(arguments.distinct, arguments.side, arguments.side, 1, seed=0)
    frames = recording.video
    live = FlowRegLive()
    live.set_reference(frames[0])
    process = psutil.Process()
    for count in range(arguments.warm_up):
        live(frames[count % len(frames)])
    memory: dict[int, float] = {}
    looks = {arguments.frames * share // 10 for share in (1, 2, 4, 6, 8, 10)}
    times, renewed = np.empty(arguments.frames), np.zeros(arguments.frames, bool)
    for count in range(arguments.frames):
        started = time.perf_counter()
        live(frames[count % len(frames)])
        times[count] = 1000 * (time.perf_counter() - started)
        renewed[count] = live.frame_count % live.reference_update_interval == 0
        if count + 1 in looks:
            memory[count + 1] = process.memory_info().rss / 1e6
    table = Table(
        "frames", "median, ms", "99th percentile, ms", "largest, ms", title="Time for a frame"
    )
    groups = {"all": np.ones_like(renewed), "between renewals": ~renewed, "renewals": renewed}
    for name, chosen in groups.items():
        some = times[chosen]
        if some.size:
            figures = (np.median(some), np.percentile(some, 99), some.max())
            table.add_row(name, *(f"{value:.1f}" for value in figures))
    console = Console()
    console.print(table)
    console.print(
        f"{arguments.frames} frames of {arguments.side} x {arguments.side} px; memory in MB after "
        + ", ".join(f"{count}: {size:.1f}" for count, size in memory.items())
    )
    sizes = list(memory.values())
    return int(sizes[-1] - sizes[0] > BOUND_MB)


if __name__ == "__main__":
    sys.exit(main())
