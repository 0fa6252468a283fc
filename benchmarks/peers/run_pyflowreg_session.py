"""Runs stages of a PyFlowReg session, in its own environment and through its public functions.

Usage: ``python run_pyflowreg_session.py ANSWER.json STAGES CONFIG``, where STAGES are digits such
as ``123`` and CONFIG is a JSON object of keywords for its ``SessionConfig``. The answer holds the
seconds of each stage, the position of the center, and the OpenCV version.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ.setdefault("NUMBA_NUM_THREADS", "1")


def main() -> None:
    """Run the stages and write the answer."""
    import cv2
    from pyflowreg.session.config import SessionConfig
    from pyflowreg.session.stage1_compensate import run_stage1
    from pyflowreg.session.stage2_between_avgs import run_stage2
    from pyflowreg.session.stage3_valid_mask import run_stage3

    cv2.setNumThreads(1)
    answer_path, stages, config = sys.argv[1], sys.argv[2], SessionConfig(**json.loads(sys.argv[3]))
    answer: dict[str, object] = {"opencv": cv2.__version__}
    for stage in stages:
        start = time.perf_counter()
        if stage == "1":
            run_stage1(config)
        elif stage == "2":
            answer["middle_idx"] = int(run_stage2(config)[0])
        else:
            answer["valid_pixels"] = int(run_stage3(config).sum())
        answer[f"stage{stage}"] = time.perf_counter() - start
    with open(answer_path, "w", encoding="utf-8") as file:
        json.dump(answer, file)


if __name__ == "__main__":  # its workers import this file again
    main()
