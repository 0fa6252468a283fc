"""Shared arrays: one file for all processes, and nothing is left of it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from scopeflow.io import shared as shared_module
from scopeflow.io.shared import shared_folder

linux_only = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")

READER = """
import pickle, sys
from pathlib import Path
array = pickle.loads(bytes.fromhex(sys.argv[1]))
found = array.open("r+")
found += 1
try:
    array.open()[...] = 0
except ValueError:
    print(found.sum())
sys.stdout.flush()
sys.stdin.read()
"""


def reader(array) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", READER, pickle.dumps(array).hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(params=["memory", "disk", "no proc"])
def place(request, tmp_path, monkeypatch):
    """Where arrays are: without room in memory, on the disk; and without /proc, as on macOS."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if request.param != "memory":
        monkeypatch.setattr(shared_module, "_IN_MEMORY", tmp_path / "none")
    if request.param == "no proc":
        monkeypatch.setattr(shared_module, "_DESCRIPTORS", tmp_path / "none")
    return tmp_path


def test_another_process_maps_the_same_array(place):
    with shared_folder(1000) as folder:
        array = folder.put("numbers", np.arange(6, dtype=">i2").reshape(2, 3))
        zeros = folder.empty("zeros", (3,), np.float32)
        assert not zeros.open().any()
        assert folder.empty("nothing", (0, 4), np.uint8).open().shape == (0, 4)
        process = reader(array)
        assert process.communicate("")[0].strip() == str(15 + 6)
        np.testing.assert_array_equal(array.open(), [[1, 2, 3], [4, 5, 6]])
        assert array.open().dtype == np.dtype(">i2")
    assert list(place.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        array.open()


@linux_only
def test_another_file_of_the_same_number_is_not_taken_for_the_array(tmp_path):
    with shared_folder(1000) as folder:
        array = folder.put("numbers", np.zeros(4))
    number = int(Path(array.path).name)
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    try:
        os.truncate(other, 32)
        if other != number:
            os.dup2(other, number)
        with pytest.raises(FileNotFoundError, match="put away"):
            array.open("r+")
    finally:
        os.close(other)
        if other != number:
            os.close(number)


MAKER = """
import pickle, sys, tempfile
import numpy as np
from pathlib import Path
from scopeflow.io import shared
tempfile.tempdir = sys.argv[1]
if sys.argv[2] == "disk":
    shared._IN_MEMORY = Path("/none")
with shared.shared_folder(1000) as folder:
    print(pickle.dumps(folder.put("left", np.arange(4))).hex(), flush=True)
    sys.stdin.read()
"""


@linux_only
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_nothing_is_left_of_a_killed_process(tmp_path, where):
    maker = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(tmp_path), where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    array = pickle.loads(bytes.fromhex(maker.stdout.readline()))
    process = reader(array)
    assert process.stdout.readline().strip() == "10"
    maker.send_signal(signal.SIGKILL)
    maker.communicate()
    # Who maps it keeps it; nobody else can find it, and no folder has it.
    assert process.poll() is None
    with pytest.raises(FileNotFoundError):
        array.open()
    process.communicate("")
    assert list(tmp_path.iterdir()) == []
    assert array.file[1] not in {path.lstat().st_ino for path in Path("/dev/shm").rglob("*")}
