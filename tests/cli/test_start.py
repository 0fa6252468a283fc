"""How soon the command starts: what it imports, warm and cold kernels, several at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from scopeflow.compiled import gateway

SOURCES = Path(gateway.__file__).parents[2]
MESSAGE = "Compiling kernels"
# Each takes a tenth of a second or more, and a correction of a file on threads needs none.
NOT_NEEDED = ("xarray", "pandas", "dask.array", "distributed", "skimage", "matplotlib", "scipy.fft")
CORRECT = """
import sys
from scopeflow.cli.app import main
sys.argv = ["scopeflow", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
loaded = [name for name in {names!r} if name in sys.modules]
assert not loaded, loaded
"""
KERNELS_ARE_LOADED = """
from scopeflow.compiled import gateway
ready = [each for each in gateway._registry if each._compiled is not None]
assert len(ready) > 10, ready
compiled = [each for each in ready if not each.from_disk]
assert not compiled, compiled
"""


def start(movie, output, *, code=None, **environment):
    code = code or CORRECT.format(names=NOT_NEEDED)
    words = ["correct", str(movie), str(output), "--quality", "fast", "--workers", "2"]
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(SOURCES), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    return errors


def pixels(output):
    return np.asarray(zarr.open_array(output / "compensated.zarr" / "registered"))


def test_a_correction_imports_nothing_that_it_does_not_need(movie, tmp_path):
    finish(start(movie, tmp_path / "out"))


def test_a_warm_start_compiles_nothing(movie, tmp_path):
    finish(start(movie, tmp_path / "out"))
    code = CORRECT.format(names=NOT_NEEDED) + KERNELS_ARE_LOADED
    assert MESSAGE not in finish(start(movie, tmp_path / "again", code=code))


@pytest.mark.slow
def test_a_cold_start_says_that_it_compiles(movie, tmp_path):
    errors = finish(start(movie, tmp_path / "cold", NUMBA_CACHE_DIR=str(tmp_path / "cache")))
    assert errors.count(MESSAGE) == 1
    errors = finish(start(movie, tmp_path / "warm", NUMBA_CACHE_DIR=str(tmp_path / "cache")))
    assert MESSAGE not in errors
    np.testing.assert_array_equal(pixels(tmp_path / "cold"), pixels(tmp_path / "warm"))


@pytest.mark.slow
def test_a_cold_start_needs_no_second_process(movie, tmp_path):
    code = "import sys; sys.executable = '/bin/false'\n" + CORRECT.format(names=NOT_NEEDED)
    finish(start(movie, tmp_path / "alone", code=code, NUMBA_CACHE_DIR=str(tmp_path / "cache")))
    finish(start(movie, tmp_path / "warm"))
    np.testing.assert_array_equal(pixels(tmp_path / "alone"), pixels(tmp_path / "warm"))


@pytest.mark.slow
def test_cold_starts_at_once_share_a_cache_without_harm(movie, tmp_path):
    cache = str(tmp_path / "cache")
    outputs = [tmp_path / f"out-{n}" for n in range(4)]
    processes = []
    for output in outputs:
        processes.append(start(movie, output, NUMBA_CACHE_DIR=cache))
        time.sleep(0.3)  # some find an index that another has just begun
    for process in processes:
        finish(process)
    # What they left behind is whole: a later process loads it.
    errors = finish(start(movie, tmp_path / "later", NUMBA_CACHE_DIR=cache))
    assert MESSAGE not in errors
    expected = pixels(tmp_path / "later")
    for output in outputs:
        np.testing.assert_array_equal(pixels(output), expected)
