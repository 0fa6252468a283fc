"""Cell workflows that are interrupted or lose a worker, then run again: the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import tifffile
from distributed import Client, LocalCluster

from scopeflow.cells.workflow import run_workflow
from tests.cell_movies import cell_config, cell_movie
from tests.cells.test_run_workflow import contents

SCRIPT = Path(__file__).with_name("cells_interrupted.py")
SOURCES = Path(__file__).resolve().parents[2] / "src"
SETTINGS = {"min_frames": 3, "border_margin": 5, "background_tile_size": 50}
# A record in the middle of each of the seven steps.
RECORDS = {
    "copy": "fl_ch_1-0",
    "segmentation": "seg_labeled_ch_0-0",
    "tracking": "seg_tracked_ch_0-0",
    "background": "fl_background_ch_1-0",
    "cropping": "crops-0",
    "extraction": "measure-0",
    "caching": "display-fl_ch_1",
}
QUICK = ("segmentation",)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Four FOVs of six frames."""
    path = tmp_path_factory.mktemp("raw") / "movie.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for seed in range(4):
            movie = cell_movie(n_frames=6, height=100, width=140, n_cells=2, seed=seed)
            data = np.stack([movie.phase, movie.fluorescence], 1)
            writer.write(data, metadata={"axes": "TCYX"})
    return path


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("done") / "out"
    assert run_workflow(source, output, cell_config(**SETTINGS))
    return contents(output)


def command(number: int, record: str, source: Path, output: Path) -> list[str]:
    words = [sys.executable, str(SCRIPT), str(number), record, str(source), str(output)]
    words += ["--pc", "0", "--fl", "1"]
    for key, value in SETTINGS.items():
        words += ["--set", f"{key}={value}"]
    return words


@pytest.mark.parametrize(
    "step", [pytest.param(s, marks=() if s in QUICK else pytest.mark.slow) for s in RECORDS]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_and_resumed(source, undisturbed, tmp_path, step, number):
    output = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    first = subprocess.run(
        command(number, RECORDS[step], source, output),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    # By Ctrl-C the command ends by itself and says so.
    assert first.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), first.stderr
    assert "Traceback" not in first.stderr
    assert contents(output) != undisturbed
    if number == signal.SIGINT:
        assert not list(output.rglob("*.partial"))
    second = subprocess.run(
        command(0, "", source, output), env=environment, capture_output=True, text=True, check=False
    )
    assert second.returncode == 0, second.stderr
    assert contents(output) == undisturbed


@pytest.mark.slow
def test_a_worker_is_killed_in_every_step(source, undisturbed, tmp_path):
    with (
        # On a busy machine a worker takes longer to come back than a cluster waits by default,
        # which then gives it up for good.
        dask.config.set({"distributed.deploy.lost-worker-timeout": "300s"}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        for step in ("copy", "segmentation", "background_estimation", "cropping", "extraction"):
            killed = []

            def kill_once(report, step=step, killed=killed):
                if report["step"] == step and not killed:
                    client.wait_for_workers(2, timeout=240)
                    killed.append(next(iter(client.run(os.getpid).values())))
                    os.kill(killed[0], signal.SIGKILL)

            output = tmp_path / step
            assert run_workflow(
                source, output, cell_config(**SETTINGS), client=client, progress=kill_once
            )
            assert killed
            assert contents(output) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2, 4])  # 1 is synchronous, more are threads
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_same_bytes_for_all_workers_and_batches(
    source, undisturbed, tmp_path, n_workers, batch_size
):
    config = cell_config(**SETTINGS, n_workers=n_workers, batch_size=batch_size)
    assert run_workflow(source, tmp_path / "out", config)
    assert contents(tmp_path / "out") == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "threads"), [(1, 1), (4, 1), (1, 3)])
def test_same_bytes_on_clusters(source, undisturbed, tmp_path, processes, threads):
    with (
        LocalCluster(processes, threads_per_worker=threads, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        config = cell_config(**SETTINGS, batch_size=4)
        assert run_workflow(source, tmp_path / "out", config, client=client)
    assert contents(tmp_path / "out") == undisturbed
