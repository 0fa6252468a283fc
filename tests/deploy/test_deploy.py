from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import tifffile
import yaml
from typer.testing import CliRunner

from scopeflow.cli.app import app
from scopeflow.io.recording import open_video

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SCRIPTS = sorted(DEPLOY.rglob("*.sbatch"))

SRUN = """#!/usr/bin/env bash
# Stands in for srun on a machine without SLURM: drops its options, runs the command once.
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCOPEFLOW = f"""#!/usr/bin/env bash
exec {sys.executable} -c 'from scopeflow.cli.app import main; main()' "$@"
"""
DASK = f"""#!/usr/bin/env bash
exec {sys.executable} -m dask "$@"
"""


@pytest.fixture
def node(tmp_path):
    """Environment of a job on a node where scopeflow, dask and srun are on the path."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {"srun": SRUN, "scopeflow": SCOPEFLOW, "dask": DASK}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "TMPDIR": str(scratch),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "42",
        "SLURM_CPUS_PER_TASK": "1",
    }
    # Kernels that this machine has compiled already save the test half a minute.
    from scopeflow.compiled.gateway import cache_folder

    folder = cache_folder()
    environment["NUMBA_CACHE_DIR"] = str(folder.parents[1] if folder else scratch)
    return environment


@pytest.fixture
def movies(tmp_path):
    rng = np.random.default_rng(2)
    folder = tmp_path / "raw"
    folder.mkdir()
    paths = []
    for number in range(2):
        path = folder / f"day {number}.tif"
        video = rng.integers(100, 900, (12, 24, 28)).astype(np.uint16)
        tifffile.imwrite(path, video, imagej=True, metadata={"axes": "TYX"})
        paths.append(path)
    return paths


def run_script(name, *words, environment, timeout=120):
    return subprocess.run(
        ["bash", str(DEPLOY / "slurm" / name), *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


QUICK = ("--quality", "fast", "--set", "iterations=3")


def test_there_is_something_to_test():
    assert {path.name for path in SCRIPTS} == {
        "recording_array.sbatch",
        "single_allocation.sbatch",
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_correct_bash(script):
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_and_guide_use_options_that_exist(script):
    known = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["correct", "--help"]).stdout
    text = script.read_text() + (DEPLOY / "README.md").read_text()
    calls = re.findall(r"scopeflow correct((?:[^\n`]|\\\n)*)", text)
    calls += re.findall(r"(?:sbatch .*\n#? +.*)(--quality.*)", text)
    options = {option for call in calls for option in re.findall(r"--[a-z][a-z-]*", call)}
    assert options
    for option in options:
        assert re.search(rf"{option}\b", known), f"{option} is not an option of scopeflow correct"


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.yaml")), ids=lambda path: path.name)
def test_settings_are_ones_that_dask_knows(path):
    """A misspelt key would be ignored without a word; dask's own defaults hold every key."""
    import dask_jobqueue.config  # noqa: F401 - registers the defaults
    import distributed  # noqa: F401

    def check(given, known, where):
        for key, value in given.items():
            assert key in known, f"{where}.{key} is no setting of dask"
            if isinstance(value, dict) and key != "pre-spawn-environ":
                check(value, known[key], f"{where}.{key}")

    defaults = dask.config.merge(*dask.config.defaults)
    check(yaml.safe_load(path.read_text()), defaults, path.name)


def test_the_job_script_of_dask_jobqueue(tmp_path):
    """Loaded as a user's settings are, by dask itself in a fresh process."""
    # A copy: dask-jobqueue writes a file of its own into the folder.
    shutil.copy(DEPLOY / "jobqueue" / "slurm.yaml", tmp_path)
    code = (
        "from dask_jobqueue.slurm import SLURMJob\n"
        "print(SLURMJob('tcp://node:8786', name='scopeflow').job_script())"
    )
    script = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "DASK_CONFIG": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = script.splitlines()
    assert "#SBATCH --cpus-per-task=16" in lines
    assert "#SBATCH -t 02:00:00" in lines
    assert "#SBATCH --requeue" in lines
    assert any(line.startswith("#SBATCH --mem=") for line in lines)
    assert "export NUMBA_NUM_THREADS=1" in lines
    worker = next(line for line in lines if "dask_worker" in line)
    assert "--local-directory $SCOPEFLOW_SCRATCH" in worker
    made = next(n for n, line in enumerate(lines) if line.startswith("export SCOPEFLOW_SCRATCH="))
    assert "mktemp -d" in lines[made]
    assert made < lines.index(worker)
    for option in ("--nthreads 4", "--nworkers 4", "--lifetime 110m", "--lifetime-stagger 5m"):
        assert option in worker
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_array_element_corrects_its_own_recording(movies, tmp_path, node):
    listed = tmp_path / "recordings.txt"
    listed.write_text("".join(f"{path}\n" for path in movies))
    node["SLURM_ARRAY_TASK_ID"] = "2"
    words = ("recording_array.sbatch", listed, tmp_path / "results", *QUICK)
    done = run_script(*words, environment=node)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["0002_day 1"]
    out = tmp_path / "results" / "0002_day 1"
    assert open_video(out / "compensated.zarr").shape == (12, 24, 28, 1)
    run = json.loads((out / "run.json").read_text())
    assert run["executor"] == {"name": "threading", "n_workers": 1}
    again = run_script(*words, environment=node)
    assert "reused   12 of 12" in again.stdout
    node["SLURM_ARRAY_TASK_ID"] = "3"
    missing = run_script(*words, environment=node)
    assert missing.returncode == 1
    assert "line 3" in missing.stderr


def test_one_allocation_runs_scheduler_workers_and_correction(movies, tmp_path, node):
    out = tmp_path / "results"
    done = run_script("single_allocation.sbatch", movies[0], out, *QUICK, environment=node)
    assert done.returncode == 0, done.stderr
    assert open_video(out / "compensated.zarr").shape == (12, 24, 28, 1)
    assert json.loads((out / "run.json").read_text())["executor"]["name"] == "dask"
    assert not list(tmp_path.glob("scopeflow-scheduler-*"))
    assert not list(tmp_path.glob("scopeflow-job-*"))
    assert not list((tmp_path / "scratch").iterdir())


SPY = f"""#!{sys.executable}
# Stands in for scopeflow: looks at the cluster that the script has made.
import json, os, ssl, socket, sys
from pathlib import Path
from urllib.parse import urlsplit

file = Path(sys.argv[sys.argv.index("--scheduler") + 1])
address = json.loads(file.read_text())["address"]
parts = urlsplit(address)
facts = {{"address": address, "folder": str(file.parent)}}
mode = lambda path: oct(path.stat().st_mode & 0o777)
facts["modes"] = [mode(file.parent), mode(file.parent / "key.pem")]

from distributed import Client
with Client(address, timeout=30) as client:
    client.wait_for_workers(1, timeout=60)
    (worker,) = client.scheduler_info()["workers"].items()
    facts["worker"] = worker[0]
    scratch = Path(worker[1]["local_directory"])
    scratch = next(path for path in scratch.parents if path.name.startswith("scopeflow-worker-"))
    facts["modes"].append(mode(scratch))
    facts["scratch"] = str(scratch)

# Who has no key: plain text, and TLS with no certificate.
def turned_away(wrap):
    with socket.create_connection((parts.hostname, parts.port), 10) as plain:
        try:
            with wrap(plain) as stream:
                stream.sendall(bytes(64))
                return stream.recv(1) == b""
        except OSError:
            return True

context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
facts["turned away"] = [turned_away(lambda plain: plain), turned_away(context.wrap_socket)]
Path(sys.argv[2]).write_text(json.dumps(facts))
"""


def test_only_the_job_itself_gets_into_its_cluster(tmp_path, node):
    (tmp_path / "bin" / "scopeflow").write_text(SPY)
    node.pop("NUMBA_CACHE_DIR")
    report = tmp_path / "facts.json"
    done = run_script("single_allocation.sbatch", report, report, environment=node)
    assert done.returncode == 0, done.stderr
    facts = json.loads(report.read_text())
    assert facts["address"].startswith("tls://127.0.0.1:")
    assert facts["worker"].startswith("tls://127.0.0.1:")
    assert facts["modes"] == ["0o700", "0o600", "0o700"]
    assert facts["turned away"] == [True, True]
    assert not Path(facts["folder"]).exists()
    assert not Path(facts["scratch"]).exists()


def test_no_folder_has_a_name_that_others_can_guess():
    """What is made in folders that others share is made by mktemp."""
    for path in [*SCRIPTS, *DEPLOY.rglob("*.yaml")]:
        for line in path.read_text().splitlines():
            if ("/tmp" in line or "TMPDIR" in line) and not line.lstrip().startswith("#"):
                assert "mktemp -d" in line, f"{path.name}: {line}"
        assert "NUMBA_CACHE_DIR=" not in path.read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_missing_arguments_are_bad_usage(script, node):
    done = run_script(script.name, environment=node)
    assert done.returncode == 2
    assert "usage" in done.stderr
