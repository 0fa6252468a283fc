"""Saves the motion of a fixed recording in a process that dies after a number of frames."""

from __future__ import annotations

import os
import sys

from scopeflow import OFOptions, RegistrationConfig, compute_motion
from scopeflow.testing.synthetic import synthetic_recording

calls = 0


def count(frame):
    """Pass a frame on; the process ends, without any clean-up, after ``DIES_AFTER`` frames."""
    global calls
    calls += 1
    # Not a global: the function that goes on has to be the one that began.
    if calls > int(os.environ.get("DIES_AFTER", "1000000000")):
        os._exit(9)
    return frame


def motion():
    """Return the lazy motion of the recording."""
    made = synthetic_recording(60, 32, 40, 1, seed=1, translation_px=2.0, nonrigid_px=0.5)
    options = OFOptions(quality_setting="fast", iterations=5, buffer_size=20, preproc_funct=count)
    return compute_motion(made.video, made.reference, options)


def config():
    """Return blocks of 5 frames in this thread."""
    return RegistrationConfig(parallelization="sequential", progress=False, block_length=5)


if __name__ == "__main__":
    import tests.faults.motion_dies as this

    os.environ["DIES_AFTER"] = sys.argv[2]
    this.motion().save(sys.argv[1], this.config())
