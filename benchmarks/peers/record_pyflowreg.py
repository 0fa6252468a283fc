"""Runs PyFlowReg on a recording, from file to file, through its public interface only.

Usage: ``python record_pyflowreg.py JOB.json``. This file runs under the peer's Python and imports
nothing of scopeflow. The job names ``input`` and ``output`` (HDF5 file and folder), ``reference``
(a ``.npy`` file), ``workers`` and ``options`` (keywords of ``OFOptions``). The answer is one line
of JSON on standard output: ``seconds`` of the whole run and ``finished``, pairs of the number of
frames that were finished and the seconds since the start, one for each batch.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import cv2
import numpy as np
from pyflowreg import get_displacement
from pyflowreg.motion_correction.compensate_recording import (
    BatchMotionCorrector,
    RegistrationConfig,
)
from pyflowreg.motion_correction.OF_options import OFOptions


def main(path: str) -> None:
    """Warm up, correct, and say how long it took."""
    cv2.setNumThreads(1)
    job = json.loads(Path(path).read_text())
    reference = np.load(job["reference"])
    # The first call compiles or loads kernels; it is not timed.
    get_displacement(reference[:32, :32], reference[:32, :32], min_level=3)
    options = OFOptions(
        input_file=job["input"],
        output_path=job["output"],
        output_format="HDF5",
        **job["options"],
    )
    config = RegistrationConfig(n_jobs=job["workers"], parallelization="multiprocessing")
    corrector = BatchMotionCorrector(options, config)
    finished: list[tuple[int, float]] = []
    corrector.register_registered_callback(
        lambda _batch, _start, end: finished.append((int(end), time.perf_counter() - start))
    )
    with contextlib.redirect_stdout(sys.stderr):
        start = time.perf_counter()
        corrector.run(reference)
        seconds = time.perf_counter() - start
    sys.stdout.write(json.dumps({"seconds": seconds, "finished": finished}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
