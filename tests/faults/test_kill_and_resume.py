from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from scopeflow.engine.place import RegistrationConfig
from scopeflow.io.recording import open_video
from scopeflow.motion.correct import BatchMotionCorrector
from tests.clusters import two_workers
from tests.conftest import same_bits
from tests.faults.correct_slowly import options as slow_options

SCRIPT = Path(__file__).with_name("correct_slowly.py")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def source(small_recording, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "raw.zarr"
    zarr.create_array(path, data=small_recording.video, chunks=(4, 40, 52, 2))
    return path


def command(source: Path, folder: Path, output_format="ZARR", parallelization="threading"):
    return [sys.executable, str(SCRIPT), str(source), str(folder), output_format, parallelization]


def environment(pause: float) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *sys.path])
    return {**os.environ, "SECONDS_PER_FRAME": str(pause), "PYTHONPATH": path}


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    subprocess.run(command(source, folder), env=environment(0), check=True)
    return contents(folder), log_lines(folder)


def contents(folder: Path) -> dict[str, np.ndarray]:
    group = zarr.open_group(folder / "compensated.zarr", mode="r")
    names = ("registered", "motion", "valid", "stats/max_disp", "reference/raw")
    return {name: group[name][:] for name in names}


def log_lines(folder: Path) -> list[str]:
    log = folder.with_suffix(".log")
    return log.read_text().split() if log.exists() else []


def records(folder: Path) -> dict[Path, tuple[int, bytes]]:
    found = (folder / ".scopeflow" / "compensated.zarr" / "ledger").glob("*.json")
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def kill_when(condition, arguments, pause=0.05):
    process = subprocess.Popen(arguments, env=environment(pause), start_new_session=True)
    try:
        wait_for(lambda: condition() or process.poll() is not None)
        assert process.poll() is None, "finished before it could be killed"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(
    ("parallelization", "n_records"),
    [("threading", 1), ("threading", 4), ("threading", 14), ("multiprocessing", 9)],
)
def test_a_killed_process_resumes_and_no_finished_block_is_done_twice(
    source, undisturbed, tmp_path, parallelization, n_records
):
    folder = tmp_path / "out"
    arguments = command(source, folder, parallelization=parallelization)
    kill_when(lambda: len(records(folder)) >= n_records, arguments)
    finished = records(folder)
    subprocess.run(command(source, folder), env=environment(0), check=True)
    expected, expected_log = undisturbed
    for name, values in contents(folder).items():
        assert same_bits(values, expected[name]), name
    # A record that was redone would have been written anew.
    after = records(folder)
    assert {path: after[path] for path in finished} == finished
    # At most the blocks in flight (two at a time, four frames each) were begun twice.
    assert len(expected_log) <= len(log_lines(folder)) <= len(expected_log) + 2 * 4
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize(
    ("output_format", "names"),
    [
        ("HDF5", ["compensated.hdf5"]),
        pytest.param(
            "CAIMAN_HDF5",
            ["compensated_ch1.hdf5", "compensated_ch2.hdf5"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_process_killed_while_it_exports_leaves_no_half_file(
    source, undisturbed, tmp_path, output_format, names
):
    folder = tmp_path / "out"
    arguments = command(source, folder, output_format=output_format)
    kill_when(lambda: list(folder.glob("*.partial")), arguments, pause=0)
    assert not list(folder.glob("*.hdf5"))
    subprocess.run(arguments, env=environment(0), check=True)
    video = np.moveaxis(undisturbed[0]["registered"], 1, -1)
    assert sorted(path.name for path in folder.glob("compensated*")) == names
    assert same_bits(open_video(folder).values, video)


@pytest.mark.parametrize("n_kills", [1, 2])
def test_killed_workers_cost_only_what_they_had_in_hand(source, undisturbed, tmp_path, n_kills):
    os.environ["SECONDS_PER_FRAME"] = "0.05"
    folder = tmp_path / "out"
    seen: dict[Path, tuple[int, bytes]] = {}
    with two_workers(silence_logs=60) as client:
        corrector = BatchMotionCorrector(
            slow_options(str(source), str(folder), reference_frames=list(range(12))),
            RegistrationConfig(client=client, block_length=4, progress=False),
        )

        def kill():
            for kill_number in range(n_kills):
                wait_for(lambda needed=4 + 6 * kill_number: len(records(folder)) >= needed)
                seen.update(records(folder))
                worker = next(iter(client.cluster.workers.values()))
                os.kill(worker.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        corrector.run()
        killer.join()
    for name, values in contents(folder).items():
        assert same_bits(values, undisturbed[0][name]), name
    after = records(folder)
    assert seen
    assert {path: after[path] for path in seen} == seen
    assert len(log_lines(folder)) <= len(undisturbed[1]) + n_kills * 4
