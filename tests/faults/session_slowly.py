"""Run a session so slowly that a test can kill it in each stage; run as a script of its own.

The solver of stages 1 and 2 and the alignment of stage 3 are the ordinary ones, with a pause.
"""

from __future__ import annotations

import os
import sys
import time

from scopeflow import RegistrationConfig, SessionConfig, run_session
from scopeflow.flow.backends.registry import register_backend
from scopeflow.flow.flow import get_displacement
from scopeflow.sessions import export as session_export


def pause() -> None:
    # Not a global: the solver of a run that goes on has to be the one that began.
    time.sleep(float(os.environ.get("SECONDS_PER_FRAME", "0")))


def slow_flow(fixed, moving, **parameters):
    pause()
    return get_displacement(fixed, moving, **parameters)


def slowly(function):
    def with_pause(*arguments):
        pause()
        return function(*arguments)

    return with_pause


def config(root: str) -> SessionConfig:
    return SessionConfig(
        root=root,
        center="rec_2.tif",
        flow_backend="slow",
        align_chunk_size=2,
        flow_options={
            "quality_setting": "fast",
            "iterations": 5,
            "reference_frames": [0],
            "buffer_size": 4,
        },
    )


if __name__ == "__main__":
    register_backend("slow", lambda: slow_flow)
    session_export.align_raw_frames = slowly(session_export.align_raw_frames)
    execution = RegistrationConfig(
        progress=False, n_jobs=2, block_length=2, parallelization="threading"
    )
    run_session(config(sys.argv[1]), execution=execution)
