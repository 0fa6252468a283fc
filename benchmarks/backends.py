"""Endpoint error and speed of flow backends on the same recording, whose motion is known.

Every backend that is installed corrects a synthetic recording against its still image, in this
process and on one thread; torch on the device that it finds, or on the one that is named. The
error is measured without a border of 8 px. The last column is the mean difference from the
displacements of `flowreg`.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from scopeflow import OFOptions, RegistrationConfig, compensate_arr, list_backends
from scopeflow.testing.synthetic import synthetic_recording

BORDER = 8


def parameters_of(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    if name != "flowreg_torch":
        return {}
    import torch

    torch.set_num_threads(1)
    return {"device": arguments.device, "frames_at_once": arguments.frames_at_once}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--quality", nargs="+", default=["fast", "balanced", "quality"])
    parser.add_argument("--backends", nargs="+", default=None)
    parser.add_argument("--device", help="of flowreg_torch: cpu, cuda, cuda:1 …")
    parser.add_argument("--frames-at-once", type=int, default=16, help="of flowreg_torch")
    arguments = parser.parse_args()
    recording = synthetic_recording(
        arguments.frames, arguments.side, arguments.side, 1, seed=1, nonrigid_px=1.5
    )
    video, truth = recording.video, recording.flow
    still = recording.reference
    inside = np.s_[:, BORDER:-BORDER, BORDER:-BORDER]
    table = Table(
        "preset", "backend", "endpoint error, px", "99th percentile, px", "frames/s",
        "from flowreg, px",
        title=f"{arguments.frames} frames of {arguments.side} x {arguments.side} px",
    )  # fmt: skip
    moved = np.linalg.norm(truth, axis=-1)[inside]
    table.add_row("", "none", f"{moved.mean():.3f}", f"{np.percentile(moved, 99):.3f}", "", "")
    config = RegistrationConfig(parallelization="sequential", progress=False)
    chosen = arguments.backends or list_backends()
    if importlib.util.find_spec("torch") is None:
        Console(stderr=True).print("torch is not installed: flowreg_torch is left out")
    for quality in arguments.quality:
        ours = None
        for name in ["flowreg", *(name for name in chosen if name != "flowreg")]:
            options = OFOptions(
                quality_setting=quality,
                flow_backend=name,
                backend_params=parameters_of(name, arguments),
            )
            compensate_arr(video[:2], still, options, registration_config=config)  # compile, import
            started = time.perf_counter()
            _, flow = compensate_arr(video, still, options, registration_config=config)
            seconds = time.perf_counter() - started
            ours = flow if ours is None else ours
            error = np.linalg.norm(flow - truth, axis=-1)[inside]
            table.add_row(
                quality,
                name,
                f"{error.mean():.3f}",
                f"{np.percentile(error, 99):.3f}",
                f"{len(video) / seconds:.1f}",
                "" if name == "flowreg" else f"{np.linalg.norm(flow - ours, axis=-1).mean():.5f}",
            )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
