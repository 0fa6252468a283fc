"""Whole corrections, from file to file, of scopeflow and of PyFlowReg on the same recording.

Set-up: benchmarks/peers/README.md makes the peer's environment; name it with SCOPEFLOW_PEER_PYTHON
and SCOPEFLOW_PEER_SOURCE, then run ``python benchmarks/end_to_end.py``. It takes some minutes.

A synthetic recording of 512 × 512 px is stored as zarr (16-frame chunks, compressed) and as
uncompressed HDF5. Both programs get the same options (alpha 1.5, sigma 1, 1, 0.1, equal
``buffer_size``, a given reference, statistics and no displacements written) and two workers:
threads here, processes there, one numba and one OpenCV thread each. Every run is a process of its
own whose kernels are compiled before; imports and compiling are not timed. Our recording repeats
the frames of theirs, because a run of half a second would measure the start.

Four kinds of rows:

* *zarr → zarr* and *HDF5 → HDF5* of scopeflow: frames per second, CPU time per frame, and peak
  memory of the process and its children (shared pages counted once).
* *HDF5 → HDF5* of PyFlowReg, the same. Its first batch solves up to 22 frames twice and starts its
  workers; *steady* is the rate of its second batch. Its CPU time includes imports.
* *2 × one core* of PyFlowReg: twice the rate of ``get_displacement`` and warp on one core, without
  any file, process pool or statistics. It is the fair yardstick: what two perfect workers would do.

Ratios are rates over that of the yardstick, which is measured alternately with our runs on
different frames: median and range. The last column compares what both programs wrote: the mean
absolute difference of pixels, relative to the standard deviation of the recording.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import zarr
from peers.client import peer_command
from rich.console import Console
from rich.table import Table
from zarr.codecs import BloscCodec

from scopeflow.testing import synthetic_recording

PEERS = Path(__file__).parent / "peers"
MIN_LEVELS = {"fast": 6, "balanced": 4, "quality": 0}
# Frames that the peer corrects, frames that we correct, and frames of one turn of the yardstick.
# The peer has two batches of half its frames. A batch starts from the last 20 flows of the one
# before, so batches of about that length would keep our workers waiting for each other.
FRAMES = {"fast": (176, 880, 8), "balanced": (176, 528, 6), "quality": (96, 192, 2)}
WORKERS = 2
SECONDS_BETWEEN_SAMPLES = 0.1
CHUNK = 16


@dataclass(frozen=True)
class Recording:
    """The same frames in each format, ours repeated to the length that we correct."""

    video: np.ndarray
    reference: Path
    zarr: Path
    hdf5: Path
    peer_hdf5: Path


@dataclass
class Run:
    """What one process answered, and what it took."""

    answer: dict[str, Any]
    cpu_seconds: float
    peak_bytes: int


@dataclass
class Rates:
    """Runs of one kind of row."""

    frames: int
    runs: list[Run] = field(default_factory=list)

    @property
    def per_second(self) -> np.ndarray:
        """Frames per second of each run."""
        return self.frames / np.array([run.answer["seconds"] for run in self.runs])

    @property
    def cpu_per_frame(self) -> float:
        """Median CPU time of a frame, milliseconds."""
        return 1e3 * float(np.median([run.cpu_seconds for run in self.runs])) / self.frames

    @property
    def peak_megabytes(self) -> float:
        """Largest peak memory of a run."""
        return max(run.peak_bytes for run in self.runs) / 1e6


def write_recordings(folder: Path, side: int, frames: int, our_frames: int) -> Recording:
    """Write a synthetic recording in both formats."""
    moved = synthetic_recording(frames, side, side, seed=7)
    video = moved.video
    repeated = np.resize(video, (our_frames, *video.shape[1:]))
    array = zarr.create_array(
        folder / "raw.zarr",
        shape=repeated.shape,
        chunks=(CHUNK, *repeated.shape[1:]),
        dtype=repeated.dtype,
        compressors=BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
    )
    array[:] = repeated
    for name, content in (("raw", repeated), ("peer", video)):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("mov", data=content[..., 0], chunks=(1, side, side))
    np.save(folder / "reference.npy", np.asarray(moved.reference, np.float64))
    return Recording(
        video,
        folder / "reference.npy",
        folder / "raw.zarr",
        folder / "raw.h5",
        folder / "peer.h5",
    )


def measured(command: list[str], environment: dict[str, str] | None, folder: Path) -> Run:
    """Run a process; add up the CPU time and sample the memory of it and all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        peak = [0]

        def sample() -> None:
            while process.poll() is None:
                peak[0] = max(peak[0], tree_bytes(process.pid))
                time.sleep(SECONDS_BETWEEN_SAMPLES)

        sampler = threading.Thread(target=sample)
        sampler.start()
        assert process.stdout is not None
        output = process.stdout.read()
        sampler.join()
    if process.returncode:
        sys.exit(f"{command} failed:\n{(folder / 'errors.txt').read_text()[-4000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    answer = json.loads(output.splitlines()[-1])
    return Run(answer, answer.get("cpu_seconds", seconds), peak[0])


def tree_bytes(pid: int) -> int:
    """Memory of a process and its children, shared pages counted once."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            total += process.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        pass  # it ended while we looked
    return total


def options_of(quality: str, buffer_size: int) -> dict[str, Any]:
    """Options of both programs."""
    return {
        "quality_setting": quality,
        "alpha": 1.5,
        "sigma": [[1.0, 1.0, 0.1]],
        "buffer_size": buffer_size,
        "save_w": False,
        "save_meta_info": True,
    }


def correct(job: dict[str, Any]) -> None:
    """Correct one recording in this process and say how long it took."""
    from scopeflow import OFOptions, RegistrationConfig, compensate_recording
    from scopeflow.warm_up import warm_up

    warm_up()
    # Imports of the first run and scratch memory are not timed, as on the other side.
    tiny = np.random.default_rng(0).integers(0, 9, (4, 32, 32)).astype(np.uint16)
    config = RegistrationConfig(n_jobs=job["workers"], parallelization="threading", progress=False)
    compensate_recording(
        OFOptions(input_file=tiny, output_path=job["output"] + "-warm", quality_setting="fast"),
        config=config,
    )
    options = OFOptions(
        input_file=job["input"],
        output_path=job["output"],
        output_format=job["format"],
        **job["options"],
    )
    cpu, start = time.process_time(), time.perf_counter()
    compensate_recording(options, np.load(job["reference"]), config)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    sys.stdout.write(json.dumps({"seconds": seconds, "cpu_seconds": cpu}) + "\n")


def run_ours(folder: Path, recording: Recording, kind: str, options: dict[str, Any]) -> Run:
    """Correct our recording once from one format to the same format."""
    output = Path(tempfile.mkdtemp(dir=folder))
    job = {
        "input": str(recording.zarr if kind == "ZARR" else recording.hdf5),
        "output": str(output),
        "format": kind,
        "reference": str(recording.reference),
        "workers": WORKERS,
        "options": options,
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    run = measured([sys.executable, __file__, "--correct", str(path)], None, folder)
    run.answer["output"] = output
    return run


def run_theirs(folder: Path, recording: Recording, options: dict[str, Any]) -> Run:
    """Let the peer correct its recording once."""
    output = folder / "peer-output"
    job = {
        "input": str(recording.peer_hdf5),
        "output": str(output),
        "reference": str(recording.reference),
        "workers": WORKERS,
        "options": options,
    }
    path = folder / "peer-job.json"
    path.write_text(json.dumps(job))
    command, environment = peer_command(PEERS / "record_pyflowreg.py", path)
    environment["OPENCV_FOR_THREADS_NUM"] = "1"
    run = measured(command, environment, folder)
    run.answer["output"] = output
    return run


@contextmanager
def yardstick(folder: Path, recording: Recording) -> Iterator[subprocess.Popen[str]]:
    """The peer on one core, frame by frame on request."""
    frames = folder / "frames.npz"
    np.savez(frames, video=recording.video, reference=np.load(recording.reference))
    command, environment = peer_command(PEERS / "serve_pyflowreg.py", frames)
    process = subprocess.Popen(
        command,
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


def single_core_seconds(
    process: subprocess.Popen[str], frames: list[int], quality: str
) -> list[float]:
    """Seconds that the peer took for each frame."""
    parameters = {"alpha": [1.5, 1.5], "min_level": MIN_LEVELS[quality], "levels": 100}
    assert process.stdin is not None
    assert process.stdout is not None
    seconds = []
    for frame in frames:
        request = {"frame": frame, "parameters": parameters, "flow": None}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            sys.exit("The peer stopped.")
        seconds.append(float(line))
    return seconds


def read_corrected(folder: Path, frames: int) -> np.ndarray:
    """First frames of the corrected HDF5 file in a folder of results."""
    (path,) = (p for p in folder.iterdir() if p.name.lower() == "compensated.hdf5")
    with h5py.File(path) as file:
        name = next(name for name in file if getattr(file[name], "ndim", 0) >= 3)
        return np.asarray(file[name][:frames], np.float64).reshape(frames, -1)


def compare(
    quality: str, side: int, repeats: int, frames: tuple[int, int, int], with_peer: bool
) -> Iterator[tuple[str, ...]]:
    """Rows of one quality setting."""
    peer_frames, our_frames, turn_frames = frames
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording = write_recordings(folder, side, peer_frames, our_frames)
        options = options_of(quality, peer_frames // 2)
        ours = {"ZARR": Rates(our_frames), "HDF5": Rates(our_frames)}
        ratios: dict[str, list[float]] = {kind: [] for kind in ours}
        single: list[float] = []
        with yardstick(folder, recording) as process:
            single_core_seconds(process, [0], quality)  # compiles
            for turn in range(repeats):
                chosen = [(1 + turn * turn_frames + k) % peer_frames for k in range(turn_frames)]
                seconds = single_core_seconds(process, chosen, quality)
                single += seconds
                for kind, rates in ours.items():
                    rates.runs.append(run_ours(folder, recording, kind, options))
                    ratio = rates.per_second[-1] * float(np.median(seconds)) / WORKERS
                    ratios[kind].append(ratio)
        difference = ""
        theirs = Rates(peer_frames)
        if with_peer:
            theirs.runs.append(run_theirs(folder, recording, options))
            mine = read_corrected(ours["HDF5"].runs[0].answer["output"], peer_frames)
            other = read_corrected(theirs.runs[0].answer["output"], peer_frames)
            difference = f"{100 * np.abs(mine - other).mean() / recording.video.std():.2f} %"
        for kind, rates in ours.items():
            yield (
                quality,
                f"scopeflow {kind} → {kind}",
                f"{np.median(rates.per_second):.1f}",
                "",
                f"{rates.cpu_per_frame:.1f}",
                f"{rates.peak_megabytes:.0f}",
                f"{np.median(ratios[kind]):.1f}",
                f"{min(ratios[kind]):.1f}-{max(ratios[kind]):.1f}",
                difference if kind == "HDF5" else "",
            )
    rate = WORKERS / float(np.median(single))
    if with_peer:
        first, *_, last = theirs.runs[0].answer["finished"]
        steady = (last[0] - first[0]) / (last[1] - first[1])
        whole = theirs.per_second[0]
        yield (
            quality,
            "PyFlowReg HDF5 → HDF5",
            f"{whole:.2f}",
            f"{steady:.2f}",
            f"{theirs.cpu_per_frame:.0f}",
            f"{theirs.peak_megabytes:.0f}",
            f"{whole / rate:.2f}",
            "",
            "",
        )
    cpu = f"{1e3 * np.median(single):.0f}"
    yield (quality, "PyFlowReg 2 × one core", f"{rate:.2f}", "", cpu, "", "1", "", "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument(
        "--qualities", nargs="+", choices=MIN_LEVELS, default=["balanced", "quality"]
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--frames",
        type=int,
        nargs=3,
        metavar=("PEER", "OURS", "TURN"),
        help="frames of one run of the peer, of one of ours, and of a turn of the yardstick",
    )
    parser.add_argument("--no-recording", action="store_true", help="leave the peer's run out")
    parser.add_argument("--correct", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.correct:
        correct(json.loads(arguments.correct.read_text()))
        return 0
    console = Console(width=140)
    table = Table(
        "quality", "run", "frames/s", "steady", "CPU ms/frame", "peak MB", "ratio", "range",
        "difference", title=f"{arguments.side} × {arguments.side} px, {WORKERS} workers",
    )  # fmt: skip
    for quality in arguments.qualities:
        rows = compare(
            quality,
            arguments.side,
            arguments.repeats,
            tuple(arguments.frames or FRAMES[quality]),
            not arguments.no_recording,
        )
        for row in rows:
            table.add_row(*row)
            console.print(*row)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
