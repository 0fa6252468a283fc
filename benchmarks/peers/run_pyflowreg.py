"""Runs PyFlowReg, in its own environment and through its public interface only, on one job file.

Usage: ``python run_pyflowreg.py JOB.npz RESULT.npz``. This file runs under the peer's Python and
imports nothing of scopeflow; see README.md beside it for the environment and the two file formats.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import cv2
import numpy as np


def run_flow(job: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
    """Flow of each moving frame against one reference, for each set of parameters."""
    from pyflowreg import get_displacement

    fixed, moving = job["fixed"].astype(np.float64), job["moving"].astype(np.float64)
    parameter_sets = json.loads(str(job["parameters"]))
    frames, height, width = moving.shape[:3]
    flow = np.empty((len(parameter_sets), frames, height, width, 2), np.float32)
    seconds = np.empty((len(parameter_sets), frames))
    # The first call compiles; it is not timed.
    get_displacement(fixed[:32, :32], moving[0, :32, :32], min_level=3)
    for row, parameters in enumerate(parameter_sets):
        # JSON has no arrays: a constant initial flow is a pair, values per channel are lists.
        if "uv" in parameters:
            parameters["uv"] = np.tile(np.float64(parameters["uv"]), (height, width, 1))
        for name in ("weight", "a_data"):
            if isinstance(parameters.get(name), list):
                parameters[name] = np.float64(parameters[name])
        for frame in range(frames):
            start = time.perf_counter()
            flow[row, frame] = get_displacement(fixed, moving[frame], **parameters)
            seconds[row, frame] = time.perf_counter() - start
    return {"flow": flow, "seconds": seconds}


def run_recording(job: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
    """Whole recording corrected against a given reference."""
    from pyflowreg.motion_correction.compensate_arr import compensate_arr
    from pyflowreg.motion_correction.compensate_recording import RegistrationConfig
    from pyflowreg.motion_correction.OF_options import OFOptions

    options = OFOptions(**json.loads(str(job["options"])))
    config = RegistrationConfig(n_jobs=1, parallelization="sequential")
    start = time.perf_counter()
    registered, flow = compensate_arr(
        job["video"], job["reference"], options, registration_config=config
    )
    seconds = time.perf_counter() - start
    return {
        "registered": np.asarray(registered, np.float32),
        "flow": np.asarray(flow, np.float32),
        "seconds": np.array(seconds),
    }


def main(job_path: str, result_path: str) -> None:
    """Read the job, run it, write the result."""
    cv2.setNumThreads(1)
    with np.load(job_path) as job:
        task = {"flow": run_flow, "recording": run_recording}[str(job["task"])]
        result = task(job)
    partial = result_path + ".partial.npz"
    np.savez(partial, opencv=np.array(cv2.__version__), **result)
    os.replace(partial, result_path)  # a cache never holds half a result


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]))
