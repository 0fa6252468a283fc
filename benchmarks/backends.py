"""Endpoint error and speed of flow backends on the same recording, whose motion is known.

Every backend that is installed corrects a synthetic recording against its still image, in this
process and on one thread. The error is measured without a border of 8 px.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from scopeflow import OFOptions, RegistrationConfig, compensate_arr, list_backends
from scopeflow.testing.synthetic import synthetic_recording

BORDER = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--quality", default="balanced")
    parser.add_argument("--backends", nargs="*", default=None)
    arguments = parser.parse_args()
    recording = synthetic_recording(
        arguments.frames, arguments.side, arguments.side, 1, seed=1, nonrigid_px=1.5
    )
    video, truth = recording.video, recording.flow
    still = recording.reference
    inside = np.s_[:, BORDER:-BORDER, BORDER:-BORDER]
    table = Table(
        "backend", "endpoint error, px", "99th percentile, px", "frames/s",
        title=f"{arguments.frames} frames of {arguments.side} x {arguments.side} px, "
        f"preset {arguments.quality}",
    )  # fmt: skip
    moved = np.linalg.norm(truth, axis=-1)[inside]
    table.add_row("(no correction)", f"{moved.mean():.3f}", f"{np.percentile(moved, 99):.3f}", "")
    for name in arguments.backends or list_backends():
        options = OFOptions(quality_setting=arguments.quality, flow_backend=name)
        config = RegistrationConfig(parallelization="sequential", progress=False)
        compensate_arr(video[:2], still, options, registration_config=config)  # compile, import
        started = time.perf_counter()
        _, flow = compensate_arr(video, still, options, registration_config=config)
        seconds = time.perf_counter() - started
        error = np.linalg.norm(flow - truth, axis=-1)[inside]
        table.add_row(
            name,
            f"{error.mean():.3f}",
            f"{np.percentile(error, 99):.3f}",
            f"{len(video) / seconds:.1f}",
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
