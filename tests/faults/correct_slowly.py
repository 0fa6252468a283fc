"""Correct a recording so slowly that a test can kill it; run as a script in its own process.

Every computed frame appends its number to a log, so that a test can count what was done twice.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from scopeflow.engine.place import RegistrationConfig
from scopeflow.flow.flow import get_displacement
from scopeflow.motion.correct import compensate_recording
from scopeflow.motion.options.of_options import OFOptions


class SlowFlow:
    """The ordinary solver, with a pause and a line in a log for each frame."""

    def __init__(self, log: str) -> None:
        self.log = log

    def __call__(self, reference, moving, *, uv, weight, **parameters):
        flow = get_displacement(reference, moving, uv=uv, weight=weight, **parameters)
        time.sleep(float(os.environ.get("SECONDS_PER_FRAME", "0.05")))
        # One short append is atomic, also from several processes.
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{float(np.sum(moving, dtype=np.float64)):.17g}\n".encode())
        os.close(descriptor)
        return flow


def options(source: str, folder: str, **changes) -> OFOptions:
    return OFOptions(
        input_file=source,
        output_path=folder,
        quality_setting="fast",
        iterations=5,
        buffer_size=20,
        get_displacement_impl=SlowFlow(str(Path(folder).with_suffix(".log"))),
        **changes,
    )


if __name__ == "__main__":
    source, folder, output_format, parallelization = sys.argv[1:]
    compensate_recording(
        options(source, folder, output_format=output_format, reference_frames=list(range(12))),
        config=RegistrationConfig(
            parallelization=parallelization, n_jobs=2, block_length=4, progress=False
        ),
    )
