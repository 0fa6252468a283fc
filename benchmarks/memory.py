"""Peak memory of correcting a short and a long recording with the same settings.

Memory is bounded by blocks, so a recording ten times as long must not need more. Each run is a
process of its own; its peak resident memory is read from the operating system. Exits with 1 when
the peaks differ by more than the bound.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import zarr
from rich.console import Console
from rich.table import Table

BOUND = 0.10
DISTINCT_FRAMES = 200


def write_recording(path: Path, n_frames: int, side: int) -> None:
    """Write a recording that repeats some synthetic frames, block by block."""
    from scopeflow.testing.synthetic import synthetic_recording

    distinct = synthetic_recording(DISTINCT_FRAMES, side, side, seed=0).video
    array = zarr.create_array(
        path,
        shape=(n_frames, *distinct.shape[1:]),
        chunks=(DISTINCT_FRAMES // 10, *distinct.shape[1:]),
        dtype=distinct.dtype,
    )
    for start in range(0, n_frames, DISTINCT_FRAMES):
        array[start : start + DISTINCT_FRAMES] = distinct


def correct(source: Path, output: Path, output_format: str) -> None:
    """Correct one recording in this process and print its peak memory and time."""
    from scopeflow.engine.place import RegistrationConfig
    from scopeflow.motion.correct import compensate_recording
    from scopeflow.motion.options.of_options import OFOptions

    started = time.perf_counter()
    options = OFOptions(
        input_file=source,
        output_path=output,
        output_format=output_format,
        quality_setting="fast",
        reference_frames=list(range(100)),
    )
    config = RegistrationConfig(parallelization="threading", progress=False)
    compensate_recording(options, config=config)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(f"{peak} {time.perf_counter() - started}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs=2, default=[2000, 20000])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--format", default="ZARR")
    parser.add_argument("--correct", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.correct:
        correct(*arguments.correct, arguments.format)
        return 0
    # Compiling kernels takes memory too; do it before, in a process of its own.
    warm_up = "from scopeflow.warm_up import warm_up; warm_up()"
    subprocess.run([sys.executable, "-c", warm_up], check=True)
    table = Table("frames", "peak memory, MB", "seconds", "frames/s", title="Peak memory")
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for n_frames in arguments.frames:
            source = Path(folder) / f"raw-{n_frames}.zarr"
            write_recording(source, n_frames, arguments.side)
            output = Path(folder) / f"out-{n_frames}"
            command = [sys.executable, __file__, "--format", arguments.format]
            done = subprocess.run(
                [*command, "--correct", str(source), str(output)],
                check=True,
                capture_output=True,
                text=True,
            )
            peak, seconds = (float(word) for word in done.stdout.split())
            peaks.append(peak)
            table.add_row(
                str(n_frames), f"{peak / 1e6:.0f}", f"{seconds:.1f}", f"{n_frames / seconds:.0f}"
            )
    Console().print(table)
    return int(abs(peaks[1] / peaks[0] - 1) > BOUND)


if __name__ == "__main__":
    sys.exit(main())
