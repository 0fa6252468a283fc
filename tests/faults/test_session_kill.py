"""A session that is killed in any stage and run again has the bytes of an undisturbed one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.test_kill_and_resume import environment as with_pause
from tests.faults.test_kill_and_resume import kill_when
from tests.sessions.session_data import true_session, write_session

SCRIPT = Path(__file__).with_name("session_slowly.py")
SOURCES = Path(__file__).resolve().parents[2] / "src"


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".scopeflow" not in path.parts and path.name != "run.json"
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("session")
    write_session(true_session(frames=8, height=48, width=64, channels=1, count=3), folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(root) -> dict[str, bytes]:
    subprocess.run([sys.executable, str(SCRIPT), str(root)], env=with_pause(0), check=True)
    found = contents(root)
    assert len(found) == 3 + 3 * 8 + 17
    return found


@pytest.fixture
def fresh(root, undisturbed) -> Path:
    # The bundles hold absolute paths: every run has to be in the same place.
    for name in ("compensated_outputs", "final_results"):
        shutil.rmtree(root / name)
    return root


def found(root: Path, pattern: str) -> int:
    return len(list(root.glob(pattern)))


MOMENTS = {
    "stage 1, some blocks": lambda r: found(r, "compensated_outputs/*/.scopeflow/*/ledger/b*") >= 3,
    "stage 1, a recording done": lambda r: found(r, "compensated_outputs/*/status.json") >= 1,
    "stage 2, the first displacements": lambda r: found(r, "*/*/w_to_reference.npz") >= 2,
    "stage 3, masks": lambda r: found(r, "final_results/*_aligned.png") >= 1,
    "stage 3, half a file": lambda r: found(r, "final_results/aligned_*.partial") >= 1,
    "stage 3, a recording aligned": lambda r: found(r, "final_results/aligned_*.tif") >= 1,
}


QUICK = ("stage 1, some blocks", "stage 2, the first displacements", "stage 3, half a file")


@pytest.mark.parametrize(
    "moment",
    [pytest.param(m, marks=() if m in QUICK else pytest.mark.slow) for m in MOMENTS],
)
def test_killed_and_resumed(fresh, undisturbed, moment):
    command = [sys.executable, str(SCRIPT), str(fresh)]
    kill_when(lambda: MOMENTS[moment](fresh), command, pause=0.03)
    assert contents(fresh) != undisturbed
    finished = {
        path: path.stat().st_mtime_ns
        for path in fresh.glob("compensated_outputs/*/compensated.hdf5")
        if (path.parent / "status.json").exists()
    }
    subprocess.run(command, env=with_pause(0), check=True)
    assert contents(fresh) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert not list(fresh.rglob("*.partial"))


def start_task(config: Path, number: int, variable: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), variable: str(number)}
    code = "from scopeflow.cli.app import main; main()"
    words = ["session", "run", "--config", str(config), "--stage", "1", "--array"]
    return subprocess.Popen(
        [sys.executable, "-c", code, *words, "--workers", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_an_array_of_tasks_gives_the_bytes_of_a_local_run(tmp_path):
    """Six processes in any order, two at once, one of them killed and run again."""
    from scopeflow import RegistrationConfig, SessionConfig, run_session, run_stage2, run_stage3

    root = tmp_path / "session"
    session = true_session(frames=10, height=48, width=64, channels=2, count=6)
    write_session(session, root)
    path = root / "session.toml"
    path.write_text(
        'root = "."\n[flow_options]\nquality_setting = "fast"\nreference_frames = [0]\n'
        "iterations = 30\n"
    )
    config = SessionConfig.from_file(path)
    quiet = RegistrationConfig(progress=False, n_jobs=2, parallelization="threading")
    run_session(config, execution=quiet)
    expected = contents(root)
    for name in ("compensated_outputs", "final_results"):
        shutil.rmtree(root / name)

    victim = start_task(path, 4, "SLURM_ARRAY_TASK_ID")
    records = root / "compensated_outputs" / "rec_3" / ".scopeflow"
    while not list(records.glob("*/settings.json")) and victim.poll() is None:
        pass
    os.killpg(victim.pid, 9)
    victim.communicate()
    assert not (root / "compensated_outputs" / "rec_3" / "status.json").exists()

    order = [(6, "SLURM_ARRAY_TASK_ID"), (2, "SGE_TASK_ID"), (4, "SLURM_ARRAY_TASK_ID"),
             (1, "PBS_ARRAY_INDEX"), (5, "SGE_TASK_ID"), (3, "PBS_ARRAY_INDEX")]  # fmt: skip
    for pair in (order[:2], order[2:4], order[4:]):
        for process in [start_task(path, *task) for task in pair]:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    run_stage2(config, execution=quiet)
    run_stage3(config, execution=quiet)
    assert contents(root) == expected
