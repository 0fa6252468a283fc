"""A session of 6 recordings by scopeflow and by PyFlowReg, in one run and with equal options.

Recordings of 500 frames, 256 x 256 px, preset balanced, and two processors for each program, one
after the other. Both compile before they are timed, and both make the reference of each recording
from the same frames: by default 450, as the options say, or the first few (--reference-frames),
which takes half of the time. Prints a table, and exits with 1 when the bound is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile
from peers.client import run_peer_session
from rich.console import Console
from rich.table import Table

from scopeflow.testing.synthetic import synthetic_recording

SHIFTS = [(0, 0), (5, -3), (-7, 4), (3, 9), (-4, -6), (8, 2)]
BOUND = 15.0
_OURS = """
import json, sys, time
from scopeflow import RegistrationConfig, SessionConfig, run_stage1, run_stage2, run_stage3
from scopeflow.warm_up import warm_up
warm_up()
config = SessionConfig(**json.loads(sys.argv[2]))
run = RegistrationConfig(progress=False, n_jobs=int(sys.argv[3]))
answer, start = {}, time.perf_counter()
for name, stage in (("stage1", run_stage1), ("stage2", run_stage2), ("stage3", run_stage3)):
    result = stage(config, execution=run)
    answer[name], start = time.perf_counter() - start, time.perf_counter()
answer["valid_pixels"] = int(result.sum())
json.dump(answer, open(sys.argv[1], "w"))
"""


def write_recordings(root: Path, frames: int, size: int) -> None:
    """Write the recordings: one scene, moved within and between recordings."""
    root.mkdir(parents=True)
    margin = 12
    for n, (dx, dy) in enumerate(SHIFTS):
        scene = synthetic_recording(
            frames,
            size + 2 * margin,
            size + 2 * margin,
            seed=5,
            translation_px=3.0,
            nonrigid_px=1.0,
        )
        rows = slice(margin - dy, margin - dy + size)
        columns = slice(margin - dx, margin - dx + size)
        video = np.stack([scene.frame(t)[rows, columns, 0] for t in range(frames)])
        tifffile.imwrite(root / f"rec_{n}.tif", video, photometric="minisblack")


def run_ours(folder: Path, config: dict[str, object], workers: int) -> dict[str, float]:
    """Seconds of our stages, in a fresh process."""
    answer = folder / "ours.json"
    subprocess.run(
        [sys.executable, "-c", _OURS, str(answer), json.dumps(config), str(workers)],
        env={**os.environ, "NUMBA_NUM_THREADS": "1"},
        check=True,
    )
    return dict(json.loads(answer.read_text()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scratch", type=Path, required=True, help="folder for recordings, results"
    )
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--reference-frames", type=int, metavar="N", help="make the reference of the first N frames"
    )
    arguments = parser.parse_args()
    scratch = arguments.scratch.resolve()
    console = Console(width=100)
    root = scratch / f"recordings_{arguments.frames}_{arguments.size}"
    if not root.is_dir():
        partial = scratch / "recordings.partial"
        shutil.rmtree(partial, ignore_errors=True)
        write_recordings(partial, arguments.frames, arguments.size)
        partial.rename(root)
    flow_options: dict[str, object] = {"quality_setting": "balanced"}
    if arguments.reference_frames is not None:
        flow_options["reference_frames"] = list(range(arguments.reference_frames))
    common = {"pattern": "rec_*.tif", "flow_options": flow_options}
    for name in ("ours", "theirs", "warm"):
        shutil.rmtree(scratch / name, ignore_errors=True)
    # Compiled code of the peer comes from its cache afterwards.
    warm = scratch / "warm"
    write_recordings(warm, 24, 64)
    few = {**common, "flow_options": {**flow_options, "reference_frames": list(range(20))}}
    run_peer_session(scratch / "warm.json", "123", {**few, "root": str(warm), "n_workers": 1})

    def config(name: str) -> dict[str, object]:
        folder = scratch / name
        return {
            **common,
            "root": str(root),
            "output_root": str(folder / "outputs"),
            "final_results": str(folder / "final"),
        }

    before = os.getloadavg()[0]
    start = time.perf_counter()
    ours = run_ours(scratch, config("ours"), arguments.workers)
    our_process = time.perf_counter() - start
    start = time.perf_counter()
    theirs = run_peer_session(
        scratch / "theirs.json", "123", {**config("theirs"), "n_workers": arguments.workers}
    )
    their_process = time.perf_counter() - start
    table = Table(
        title=f"{len(SHIFTS)} × {arguments.frames} frames, {arguments.size} × {arguments.size} px, "
        f"balanced, {arguments.reference_frames or 'default'} reference frames, "
        f"{arguments.workers} workers; seconds"
    )
    for heading in ("", "stage 1", "stage 2", "stage 3", "together", "whole process", "valid px"):
        table.add_column(heading, justify="right" if heading else "left")
    totals = {}
    for name, seconds, process in (
        ("scopeflow", ours, our_process),
        ("PyFlowReg", theirs, their_process),
    ):
        stages = [float(seconds[f"stage{n}"]) for n in (1, 2, 3)]
        totals[name] = sum(stages)
        shown = [f"{value:.2f}" for value in (*stages, totals[name], process)]
        table.add_row(name, *shown, str(seconds["valid_pixels"]))
    console.print(table)
    ratio = totals["PyFlowReg"] / totals["scopeflow"]
    met = ratio >= BOUND
    console.print(
        f"{ratio:.1f} times less time, bound {BOUND:.0f}: {'met' if met else '[bold red]not met'} "
        f"(load of the machine before: {before:.1f})"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
