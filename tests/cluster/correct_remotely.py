"""Correct a recording from and to any address; slowly, if asked, so that a test can kill it."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from scopeflow.config.options import OFOptions
from scopeflow.config.registration import RegistrationConfig
from scopeflow.kernels.flow import get_displacement
from scopeflow.pipelines.correct import compensate_recording


class LoggedFlow:
    """The ordinary solver, with a pause and a line in a log for each frame."""

    def __init__(self, log: str) -> None:
        self.log = log

    def __call__(self, reference, moving, *, uv, weight, **parameters):
        flow = get_displacement(reference, moving, uv=uv, weight=weight, **parameters)
        time.sleep(float(os.environ.get("SECONDS_PER_FRAME", "0")))
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{float(np.sum(moving, dtype=np.float64)):.17g}\n".encode())
        os.close(descriptor)
        return flow


def options(source: str, folder: str, log: str) -> OFOptions:
    return OFOptions(
        input_file=source,
        output_path=folder,
        quality_setting="fast",
        iterations=5,
        buffer_size=12,
        reference_frames=list(range(6)),
        save_w=True,
        save_valid_idx=True,
        get_displacement_impl=LoggedFlow(log),
    )


def correct(source: str, folder: str, log: str) -> None:
    config = RegistrationConfig(
        parallelization="threading", n_jobs=2, block_length=4, progress=False
    )
    compensate_recording(options(source, folder, log), config=config)


if __name__ == "__main__":
    correct(*sys.argv[1:])
