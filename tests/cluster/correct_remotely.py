"""Correct a recording from and to any address; slowly, if asked, so that a test can kill it."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from scopeflow.engine.place import RegistrationConfig
from scopeflow.motion.correct import compensate_recording
from scopeflow.motion.options.of_options import OFOptions


class LoggedFrame:
    """Leaves a frame as it is, with a pause and a line in a log."""

    def __init__(self, log: str) -> None:
        self.log = log

    def __dask_tokenize__(self):
        return "the same frame, wherever the log is"

    def __call__(self, frame):
        time.sleep(float(os.environ.get("SECONDS_PER_FRAME", "0")))
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{float(np.sum(frame, dtype=np.float64)):.17g}\n".encode())
        os.close(descriptor)
        return frame


def options(source: str, folder, log, **changes) -> OFOptions:
    defaults = {
        "input_file": source,
        "output_path": folder,
        "quality_setting": "fast",
        "iterations": 5,
        "buffer_size": 8,
        "reference_frames": list(range(4)),
        "save_w": True,
        "save_valid_idx": True,
        "preproc_funct": LoggedFrame(str(log)),
    }
    return OFOptions(**{**defaults, **changes})


def config(**changes) -> RegistrationConfig:
    defaults = {"parallelization": "threading", "n_jobs": 2, "block_length": 4, "progress": False}
    return RegistrationConfig(**{**defaults, **changes})


if __name__ == "__main__":
    compensate_recording(options(*sys.argv[1:]), config=config())
