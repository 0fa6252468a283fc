"""The gateway to numba: one signature, a private cache folder, no crash without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scopeflow.compiled import gateway
from scopeflow.compiled.scratch import release_scratch, scratch
from scopeflow.flow.median import _median_planes
from scopeflow.warm_up import warm_up

SCRIPT = """
import numpy as np
from scopeflow.compiled import gateway
from scopeflow.images.power import positive_power
print(gateway.cache_folder())
print(float(positive_power(np.float32([4.0]), 0.5)[0]))
"""


def run(**environment):
    source = Path(gateway.__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": str(source), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.split()


def test_a_second_signature_is_refused():
    planes = np.zeros((1, 5, 5))  # float64
    with pytest.raises(TypeError, match=r"[Nn]o matching definition"):
        _median_planes(planes, 0, 0, planes[:0], planes.copy(), planes[0].copy())


def test_read_only_arrays_are_welcome():
    planes = np.zeros((1, 5, 5), np.float32)
    planes.flags.writeable = False
    out = np.ones((1, 5, 5), np.float32)
    _median_planes(planes, 0, 0, planes[:0], out, np.empty((10, 9), np.float32))
    assert not out.any()


def test_warm_up_compiles_everything():
    assert warm_up() == len(gateway._registry)
    assert all(each._compiled is not None for each in gateway._registry)


def test_cache_is_kept_in_a_folder_of_this_machine_and_source(tmp_path):
    folder, value = run(NUMBA_CACHE_DIR=str(tmp_path))
    assert Path(folder).is_relative_to(tmp_path)
    assert float(value) == pytest.approx(2, rel=1e-5)
    assert len(list(tmp_path.rglob("*.nbi"))) == 1  # one kernel used, one index
    assert len(list(tmp_path.rglob("*.nbc"))) == 1  # one signature


def test_cache_can_be_turned_off(tmp_path):
    folder, value = run(NUMBA_CACHE_DIR=str(tmp_path), SCOPEFLOW_NUMBA_CACHE="0")
    assert folder == "None"
    assert float(value) == pytest.approx(2, rel=1e-5)
    assert not list(tmp_path.rglob("*.nb*"))


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    folder, value = run(NUMBA_CACHE_DIR=str(blocked))
    assert folder == "None"
    assert float(value) == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_cache_is_no_error(tmp_path, suffix):
    run(NUMBA_CACHE_DIR=str(tmp_path))
    (damaged,) = tmp_path.rglob(f"*.{suffix}")
    damaged.write_bytes(b"damaged")
    _, value = run(NUMBA_CACHE_DIR=str(tmp_path))
    assert float(value) == pytest.approx(2, rel=1e-5)


def test_scratch_is_reused_and_aligned():
    first = scratch("test", (4, 5))
    assert first.ctypes.data % 64 == 0
    assert scratch("test", (2, 3)).ctypes.data == first.ctypes.data
    assert scratch("test", (400, 5)).shape == (400, 5)
    release_scratch()
