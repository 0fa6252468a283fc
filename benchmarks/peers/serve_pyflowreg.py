"""Runs PyFlowReg frame by frame on request, so that both programs can be timed alternately.

Usage: ``python serve_pyflowreg.py FRAMES.npz``. This file runs under the peer's Python, through its
public interface only. Each line on standard input is a JSON object ``{"frame": n, "parameters":
{...}, "flow": path or null}``; the answer is one line with the seconds that the frame took:
normalise, filter, solve, warp the raw frame, cast.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import cv2
import numpy as np
from pyflowreg import get_displacement
from pyflowreg.core.warping import imregister_wrapper
from pyflowreg.util.image_processing import apply_gaussian_filter, normalize

SIGMA = np.array([[1.0, 1.0, 0.1]])


def main(path: str) -> None:
    """Answer requests until standard input ends."""
    cv2.setNumThreads(1)
    with np.load(path) as stored:
        video, reference = stored["video"], stored["reference"].astype(np.float64)
    fixed = apply_gaussian_filter(normalize(reference, ref=reference), SIGMA)
    for line in sys.stdin:
        request = json.loads(line)
        raw = video[request["frame"]]
        start = time.perf_counter()
        moving = apply_gaussian_filter(normalize(raw.astype(np.float64), ref=reference), SIGMA)
        flow = get_displacement(fixed, moving, **request["parameters"])
        warped = imregister_wrapper(raw, flow[..., 0], flow[..., 1], reference)
        np.asarray(warped).astype(raw.dtype)
        seconds = time.perf_counter() - start
        if request["flow"]:
            np.save(request["flow"], flow.astype(np.float32))
        sys.stdout.write(f"{seconds}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
