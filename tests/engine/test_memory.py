"""The memory this process may use, compared with what dask finds."""

from __future__ import annotations

import subprocess
import sys

from distributed.system import memory_limit as limit_of_dask

from scopeflow.engine.memory import memory_limit


def test_it_is_what_dask_finds():
    assert memory_limit() == limit_of_dask()


def test_the_smallest_limit_of_the_control_group_counts(tmp_path):
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_limit(tmp_path) == memory_limit(tmp_path / "absent")
    (tmp_path / "memory.low").write_text("0\n")
    assert memory_limit(tmp_path) == memory_limit(tmp_path / "absent")
    (tmp_path / "memory.max").write_text("300000000\n")
    (tmp_path / "memory.high").write_text("200000000\n")
    assert memory_limit(tmp_path) == 200_000_000


def test_the_limit_of_the_process_counts(tmp_path):
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_RSS, (10**8, 10**8));"
        "from scopeflow.engine.memory import memory_limit; assert memory_limit() == 10**8"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
