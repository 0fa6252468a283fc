"""Time of one frame, ours against PyFlowReg, alternating in one run on one core.

A frame is what a recording costs: normalise and filter, solve the flow, warp the raw frame and cast
it. Both programs work on the same frames of a synthetic recording with known motion, cycle through
different frames, and take turns, so that whatever else the machine does hits both. Prints the
median time of each, the median ratio with its range, both endpoint errors, and the mean difference
of the flows. A second table says how much more two threads do than one, also in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from scopeflow.flow.parameters import FlowParameters
from scopeflow.images.resize import upsample_flow
from scopeflow.motion.block.correct import correct_block, make_reference
from scopeflow.motion.block.values import BatchStart, BlockRequest
from scopeflow.motion.grid import Block
from scopeflow.motion.parameters import CorrectionParameters, PreprocessParameters
from scopeflow.report.metrics import endpoint_error
from scopeflow.testing import synthetic_recording
from scopeflow.warm_up import warm_up

SERVER = Path(__file__).parent / "peers" / "serve_pyflowreg.py"
QUALITIES = {"fast": 6, "balanced": 4, "quality": 0}
BORDER = 16
REFERENCE_FRAMES = 40


class Ours:
    """The block of motion correction, one frame at a time."""

    def __init__(self, video: np.ndarray, reference: np.ndarray, min_level: int) -> None:
        channels = video.shape[-1]
        parameters = CorrectionParameters(
            flow=FlowParameters(min_level=min_level),
            preprocess=PreprocessParameters(sigma=((1.0, 1.0, 0.1),)),
        )
        self._video = video
        self._reference = make_reference(
            reference, parameters.preprocess, np.full(channels, 1 / channels)
        )
        self._request = BlockRequest(parameters, str(video.dtype))
        self.flow = np.empty(0)

    def seconds(self, frames: list[int]) -> float:
        """Mean time of a frame in a block of these frames."""
        block = self._video[frames]
        count = len(frames)
        start = time.perf_counter()
        result = correct_block(
            block,
            Block(0, 0, count, 0, count, 0, count, count),
            (0, count),
            self._reference,
            BatchStart(),
            self._request,
        )
        seconds = (time.perf_counter() - start) / count
        self.flow = upsample_flow(result.motion[-1], self._video.shape[1:3])
        return seconds


@contextmanager
def peer(folder: Path, video: np.ndarray, reference: np.ndarray) -> Iterator[subprocess.Popen[str]]:
    """Start the peer on these frames."""
    python = os.environ.get("SCOPEFLOW_PEER_PYTHON")
    if not python or not Path(python).is_file():
        sys.exit("Set SCOPEFLOW_PEER_PYTHON to the peer's Python, see benchmarks/peers/README.md.")
    np.savez(folder / "frames.npz", video=video, reference=reference)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["NUMBA_NUM_THREADS"] = "1"
    if source := os.environ.get("SCOPEFLOW_PEER_SOURCE"):
        environment["PYTHONPATH"] = str(Path(source).resolve())
    process = subprocess.Popen(
        [python, str(SERVER), str(folder / "frames.npz")],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.communicate()


def ask(process: subprocess.Popen[str], frame: int, min_level: int, flow: Path | None) -> float:
    """Let the peer do one frame and return its seconds."""
    parameters = {"alpha": [1.5, 1.5], "min_level": min_level, "levels": 100}
    request = {"frame": frame, "parameters": parameters, "flow": str(flow) if flow else None}
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        sys.exit("The peer stopped.")
    return float(line)


def compare(
    side: int, channels: int, quality: str, alternations: int, block: int
) -> tuple[str, ...]:
    """Take turns on one kind of recording; returns a row of the table."""
    n_frames = max(8, block)
    moved = synthetic_recording(n_frames, side, side, channels, seed=7)
    video, reference = moved.video, np.asarray(moved.reference, np.float64)
    min_level = QUALITIES[quality]
    ours = Ours(video, reference, min_level)
    ours.seconds([0, 1, 2])
    theirs_s, ours_s = [], []
    with tempfile.TemporaryDirectory() as name, peer(Path(name), video, reference) as process:
        ask(process, 0, min_level, None)
        errors = []
        for turn in range(alternations):
            frame = (turn + 1) % n_frames
            path = Path(name) / "flow.npy"
            theirs_s.append(ask(process, frame, min_level, path))
            frames = [(frame + 1 + k) % n_frames for k in range(block - 1)] + [frame]
            ours_s.append(ours.seconds(frames))
            truth, theirs = moved.flow_at(frame)[None], np.load(path)[None]
            errors.append(
                [
                    float(endpoint_error(flow, other, border=BORDER).mean())
                    for flow, other in (
                        (theirs, truth),
                        (ours.flow[None], truth),
                        (ours.flow[None], theirs),
                    )
                ]
            )
    ratios = np.array(theirs_s) / np.array(ours_s)
    mean_errors = np.mean(errors, axis=0)
    return (
        f"{side}",
        f"{channels}",
        quality,
        f"{1e3 * np.median(theirs_s):.1f}",
        f"{1e3 * np.median(ours_s):.2f}",
        f"{np.median(ratios):.1f}",
        f"{ratios.min():.1f}-{ratios.max():.1f}",
        *(f"{error:.4f}" for error in mean_errors),
    )


def compare_threads(side: int, quality: str, alternations: int, block: int) -> tuple[str, ...]:
    """Frames per second of one and of two threads in turns; returns a row of the table."""
    moved = synthetic_recording(block, side, side, 1, seed=7)
    reference = np.asarray(moved.reference, np.float64)
    workers = [Ours(moved.video, reference, QUALITIES[quality]) for _ in range(2)]
    frames = list(range(block))
    rates: dict[int, list[float]] = {1: [], 2: []}
    with ThreadPoolExecutor(2) as pool:
        for turn in range(alternations + 1):
            for count in (1, 2):
                start = time.perf_counter()
                for task in [pool.submit(one.seconds, frames) for one in workers[:count]]:
                    task.result()
                if turn > 0:  # the first turn records what the others repeat
                    rates[count].append(count * block / (time.perf_counter() - start))
    ratios = np.array(rates[2]) / np.array(rates[1])
    return (
        f"{side}",
        quality,
        f"{np.median(rates[1]):.1f}",
        f"{np.median(rates[2]):.1f}",
        f"{np.median(ratios):.2f}",
        f"{ratios.min():.2f}-{ratios.max():.2f}",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--channels", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--qualities", nargs="+", choices=QUALITIES, default=list(QUALITIES))
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--block", type=int, default=20, help="frames of one of our turns")
    arguments = parser.parse_args()
    console = Console(width=120)
    warm_up()
    table = Table(
        "px", "C", "quality", "PyFlowReg ms", "scopeflow ms", "ratio", "range",
        "EPE theirs", "EPE ours", "difference", title="One frame on one core",
    )  # fmt: skip
    for side in arguments.sides:
        for channels in arguments.channels:
            for quality in arguments.qualities:
                row = compare(side, channels, quality, arguments.alternations, arguments.block)
                table.add_row(*row)
                console.print(*row)
    console.print(table)
    threads = Table(
        "px", "quality", "1 thread, 1/s", "2 threads, 1/s", "ratio", "range",
        title="Frames per second, one channel",
    )  # fmt: skip
    for side in arguments.sides:
        for quality in arguments.qualities:
            threads.add_row(
                *compare_threads(side, quality, arguments.alternations, arguments.block)
            )
    console.print(threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
