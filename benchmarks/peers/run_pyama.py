"""Runs steps of PyAMA, in its own environment and through its public functions, on one job file.

Usage: ``python run_pyama.py JOB.npz RESULT.npz``. This file runs under the Python of the peer and
imports nothing of scopeflow; see README.md beside it for the environment and the two file formats.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np


def segment(job: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
    """Foreground of phase-contrast frames."""
    from pyama_core.processing.segmentation import segment_cell

    phase = job["phase"]
    mask = np.zeros(phase.shape, bool)
    seconds = timed(lambda: segment_cell(phase, mask))
    return {"mask": mask, "seconds": seconds / len(phase)}


def track(job: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
    """Numbers of the cells in a foreground."""
    from pyama_core.processing.tracking.iou import track_cell

    mask = job["mask"]
    labels = np.zeros(mask.shape, np.uint16)
    seconds = timed(lambda: track_cell(mask, labels))
    return {"labels": labels, "seconds": seconds / len(mask)}


def background(job: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
    """Background of fluorescence frames; they have to be larger than 512 px."""
    from pyama_core.processing.background import estimate_background

    light = job["light"]
    level = np.zeros(light.shape, np.float32)
    seconds = timed(lambda: estimate_background(light, job["mask"], level))
    return {"background": level, "seconds": seconds / len(light)}


def extract(job: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
    """Area and total intensity of numbered cells."""
    from pyama_core.processing.extraction import extract_trace

    light, labels, level = job["light"], job["labels"], job["background"]
    times = np.arange(len(light), dtype=float)
    tables = []
    seconds = timed(
        lambda: tables.append(
            extract_trace(
                light,
                labels,
                times,
                level,
                features=["area", "intensity_total"],
                background_weight=float(job["weight"]),
            )
        )
    )
    columns = ("cell", "frame", "area", "intensity_total")
    values = {name: tables[0][name].to_numpy(np.float64) for name in columns}
    return {**values, "seconds": seconds / len(light)}


def timed(function: Callable[[], object]) -> np.ndarray:
    """Seconds of a call."""
    start = time.perf_counter()
    function()
    return np.array(time.perf_counter() - start)


TASKS = {"segment": segment, "track": track, "background": background, "extract": extract}


def main() -> None:
    """Run the tasks of the job, each on the results of those before it."""
    job_path, result_path = sys.argv[1:3]
    with np.load(job_path) as loaded:
        job = dict(loaded)
    answer: dict[str, np.ndarray] = {}
    for task in str(job["tasks"]).split():
        result = TASKS[task](job)
        answer[f"seconds_{task}"] = result.pop("seconds")
        job.update(result)
        answer.update(result)
    np.savez(result_path, **answer)


if __name__ == "__main__":
    main()
