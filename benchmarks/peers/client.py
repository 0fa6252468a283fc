"""Our side of the comparison: starts a peer in its own Python and keeps what it answered."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

RUNNER = Path(__file__).with_name("run_pyflowreg.py")


def run_peer(cache: Path, **job: object) -> dict[str, np.ndarray]:
    """Return the peer's answer to a job, from the cache folder when it was asked before.

    The key of the cache is the content of the job and of the runner. The peer's Python is named by
    the environment variable SCOPEFLOW_PEER_PYTHON, its source folder (unless it is installed) by
    SCOPEFLOW_PEER_SOURCE.
    """
    arrays = {name: np.asarray(value) for name, value in job.items()}
    digest = hashlib.sha256(RUNNER.read_bytes())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    folder = cache.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    result_path = folder / f"{digest.hexdigest()[:24]}.npz"
    if not result_path.exists():
        job_path = result_path.with_suffix(".job.npz")
        np.savez(job_path, **arrays)
        _start(job_path, result_path)
        job_path.unlink()
    with np.load(result_path) as result:
        return dict(result)


def run_peer_session(answer_path: Path, stages: str, config: dict[str, object]) -> dict[str, Any]:
    """Run stages of a session by the peer, in its own process; never from a cache.

    `config` are keywords of its session configuration. Returns the seconds of each stage.
    """
    runner = RUNNER.with_name("run_pyflowreg_session.py")
    answer_path.unlink(missing_ok=True)
    _run([str(runner), str(answer_path), stages, json.dumps(config)], answer_path.parent)
    answer: dict[str, Any] = json.loads(answer_path.read_text())
    return answer


def _start(job_path: Path, result_path: Path) -> None:
    # The peer makes folders where it runs, so it runs in the cache folder.
    _run([str(RUNNER), str(job_path), str(result_path)], result_path.parent)


def run_pyama(folder: Path, tasks: str, **job: object) -> dict[str, np.ndarray]:
    """Run steps of PyAMA, such as ``"segment track"``, in its own process; never from a cache.

    SCOPEFLOW_PYAMA_PYTHON names its Python, SCOPEFLOW_PYAMA_SOURCE its source folder.
    """
    runner = RUNNER.with_name("run_pyama.py")
    job_path, result_path = folder / "pyama_job.npz", folder / "pyama_result.npz"
    np.savez(job_path, tasks=tasks, **{name: np.asarray(value) for name, value in job.items()})
    _run([str(runner), str(job_path), str(result_path)], folder, "SCOPEFLOW_PYAMA")
    with np.load(result_path) as result:
        return dict(result)


def peer_command(
    runner: Path, *arguments: object, peer: str = "SCOPEFLOW_PEER"
) -> tuple[list[str], dict[str, str]]:
    """Command and environment that run a file under the peer's Python, one numba thread."""
    python = os.environ.get(f"{peer}_PYTHON")
    if not python or not Path(python).is_file():
        sys.exit(
            f"{peer}_PYTHON={python!r} is no file: set it to the Python of the peer's "
            "environment, see benchmarks/peers/README.md."
        )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["NUMBA_NUM_THREADS"] = "1"
    if source := os.environ.get(f"{peer}_SOURCE"):
        environment["PYTHONPATH"] = str(Path(source).resolve())
    # Not resolved: an environment's Python is often a link, and its place names the environment.
    command = [str(Path(python).absolute()), str(runner.resolve()), *map(str, arguments)]
    return command, environment


def _run(arguments: list[str], folder: Path, peer: str = "SCOPEFLOW_PEER") -> None:
    command, environment = peer_command(Path(arguments[0]), *arguments[1:], peer=peer)
    finished = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        sys.exit(f"The peer failed on {arguments}:\n{finished.stdout}\n{finished.stderr}")
