"""The hot kernels compile to packed arithmetic, and work on processors with other registers.

A loop that LLVM no longer vectorises gives the same results many times slower, which no other test
would notice. The compiler's own code is inspected, before it is turned into machine code, so that
the test holds on every processor.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from scopeflow.flow import median, solver, tensor
from scopeflow.flow.flow import solve_flow
from scopeflow.flow.parameters import FlowParameters
from scopeflow.flow.reference import prepare_reference
from scopeflow.images import filters, register, resize, statistics, warp

# Kernel, and how many packed operations there are at least for each scalar one.
HOT = [
    (solver.solve, 2.0),  # scalars: ghost cells
    (tensor._gradient_tensor, 4.0),
    (tensor._brightness_tensor, 4.0),
    (tensor._census_tensor, 2.0),
    (resize._resize_planes, 0.5),  # scalars: rows shorter than a vector
    (median._median_planes, 0.5),  # scalars: ends of rows
    (warp._warp_planes, 10.0),
    (filters._gaussian_plane, 2.0),
    (register._inside, 0.3),
    (register._cast_to_uint16, 0.8),
]

ARITHMETIC = re.compile(r"= (?:fadd|fsub|fmul|fdiv|fcmp)\b")
PACKED = re.compile(r"<\d+ x (?:float|double)>")


def optimised_code(kernel):
    # Compiled anew: code from the disk cache cannot be inspected.
    return "\n".join(kernel._declare(cache=False).inspect_llvm().values())


@pytest.mark.parametrize(("kernel", "ratio"), HOT, ids=lambda value: str(value))
def test_arithmetic_is_packed(kernel, ratio):
    lines = [line for line in optimised_code(kernel).splitlines() if ARITHMETIC.search(line)]
    packed = sum(bool(PACKED.search(line)) for line in lines)
    assert packed >= 4
    assert packed >= ratio * (len(lines) - packed)


def test_statistics_use_packed_arithmetic():
    assert re.search(r"fadd.*<\d+ x double>", optimised_code(statistics._measure))


SMALL_FLOW = """
import sys, numpy as np
from scopeflow.flow.parameters import FlowParameters
from scopeflow.flow.flow import solve_flow
from scopeflow.flow.reference import prepare_reference
fixed, moving = np.load(sys.argv[1])
prepared = prepare_reference(fixed, None, FlowParameters(min_level=2))
np.save(sys.argv[2], solve_flow(prepared, moving))
"""


def test_a_processor_without_wide_registers_finds_the_same_motion(tmp_path):
    texture = gaussian_filter(np.random.default_rng(0).random((48, 64)), 1.5)
    frames = [(texture[:, dx : dx + 61] - 0.3) * 2 for dx in (0, 1)]
    fixed, moving = np.array(frames, np.float32)[..., None]
    np.save(tmp_path / "frames.npy", np.stack([fixed, moving]))
    # "generic" is the oldest processor of this kind of machine: SSE2 on x86, NEON on Arm.
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "SCOPEFLOW_NUMBA_CACHE": "0",
    }
    subprocess.run(
        [sys.executable, "-c", SMALL_FLOW, tmp_path / "frames.npy", tmp_path / "motion.npy"],
        env=environment,
        check=True,
        timeout=300,
    )
    here = solve_flow(prepare_reference(fixed, None, FlowParameters(min_level=2)), moving)
    # Without fused multiply-add every rounding differs.
    assert np.abs(np.load(tmp_path / "motion.npy") - here).mean() < 2e-3
    assert np.abs(here[4:-4, 4:-4] - (-1, 0)).mean() < 0.1
