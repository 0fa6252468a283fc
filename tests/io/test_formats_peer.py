"""Files that PyFlowReg and scopeflow read of each other; runs where the peer is named.

SCOPEFLOW_PEER_PYTHON and SCOPEFLOW_PEER_SOURCE name it, see benchmarks/peers/README.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scopeflow import open_video
from scopeflow.io.write.exports import open_writer, video_paths

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("SCOPEFLOW_PEER_PYTHON"), reason="SCOPEFLOW_PEER_PYTHON names no peer"
    ),
]

OURS = {
    "TIFF": "tiff",
    "SUITE2P_TIFF": "tif",
    "OME_TIFF": "ome.tiff",
    "HDF5": "hdf5",
    "MAT": "mat",
    "MULTIFILE_TIFF": "tiff",
    "MULTIFILE_HDF5": "hdf5",
    "MULTIFILE_MAT": "mat",
    "CAIMAN_HDF5": "hdf5",
}
# Written by its writers, then what its readers give for our files, each in one process.
WRITE = """
import sys
from pathlib import Path
import numpy as np
from pyflowreg.util.io.factory import get_video_file_writer
folder = Path(sys.argv[1])
for case in ("one", "two"):
    video = np.load(folder / f"{case}.npy")
    for name in sys.argv[2].split(","):
        target = folder / case / name
        target.mkdir(parents=True)
        writer = get_video_file_writer(str(target / f"compensated.{name}"), name)
        writer.write_frames(video[:4])
        writer.write_frames(video[4:])
        writer.close()
"""
READ = """
import json, sys
from pathlib import Path
import numpy as np
from pyflowreg.util.io.factory import get_video_file_reader
jobs = json.loads(sys.argv[1])
for target, given, keywords in jobs:
    try:
        reader = get_video_file_reader(given, **keywords)
        len(reader)
        np.save(target, np.asarray(reader[:]))
    except Exception as error:
        Path(target).with_suffix(".txt").write_text(repr(error))
"""


def peer(code: str, folder: Path, *arguments: str) -> None:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from peers.client import peer_command
    finally:
        sys.path.remove(str(BENCHMARKS))
    script = folder / "job.py"
    script.write_text(code)
    command, environment = peer_command(script, *arguments)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def recording(channels: int) -> np.ndarray:
    shape = (7, 20, 24, channels)
    return np.random.default_rng(channels).integers(0, 60000, shape).astype(np.uint16)


@pytest.fixture(scope="module")
def written_by_the_peer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    np.save(folder / "one.npy", recording(1))
    np.save(folder / "two.npy", recording(2))
    peer(WRITE, folder, str(folder), ",".join(name for name in OURS if name != "OME_TIFF"))
    return folder


@pytest.mark.parametrize("case", ["one", "two"])
@pytest.mark.parametrize("name", [name for name in OURS if name != "OME_TIFF"])
def test_we_read_what_the_peer_wrote(written_by_the_peer, case, name):
    folder = written_by_the_peer / case / name
    files = sorted(folder.iterdir())
    given = folder if name.startswith(("MULTI", "CAIMAN")) else files[0]
    choices = {"deinterleave": 2} if (name, case) == ("SUITE2P_TIFF", "two") else {}
    found = open_video(given, **choices).to_numpy()
    expected = recording(1 if case == "one" else 2)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def read_by_the_peer(tmp_path_factory) -> Path:
    import json

    folder = tmp_path_factory.mktemp("ours")
    jobs = []
    for channels in (1, 2):
        video = recording(channels)
        for name, suffix in OURS.items():
            target = folder / f"{name}_{channels}"
            target.mkdir()
            path = target / f"compensated.{suffix}"
            with open_writer(path, name, shape=video.shape, dtype=video.dtype) as writer:
                writer.write(video)
            files = [str(each) for each in video_paths(path, name, channels)]
            keywords = {"deinterleave": 2} if channels == 2 and "TIFF" in name else {}
            given = files if name.startswith(("MULTI", "CAIMAN")) else files[0]
            if isinstance(given, list):
                keywords = {}
            jobs.append([f"{target}.npy", given, keywords])
    peer(READ, folder, json.dumps(jobs))
    return folder


# It reads MATLAB 7.3 files, also its own, with the axes mixed up, and of hyperstacks of several
# channels, as Fiji has them, the wrong pages.
READABLE = [(name, n) for name in OURS for n in (1, 2) if "MAT" not in name]
READABLE = [pair for pair in READABLE if pair not in (("TIFF", 2), ("OME_TIFF", 2))]


@pytest.mark.parametrize(("name", "channels"), READABLE)
def test_the_peer_reads_what_we_wrote(read_by_the_peer, name, channels):
    answer = read_by_the_peer / f"{name}_{channels}.npy"
    assert answer.exists(), answer.with_suffix(".txt").read_text()
    found = np.load(answer)
    expected = recording(channels)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)
