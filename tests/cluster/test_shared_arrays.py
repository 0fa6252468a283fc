"""Processes of one machine read one copy of an array, and nothing of it passes the client."""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from scopeflow import OFOptions, RegistrationConfig, compensate_arr
from scopeflow.compat.pyflowreg._context import RuntimeContext
from scopeflow.compat.pyflowreg._executors import (
    BaseExecutor,
    MultiprocessingExecutor,
    SequentialExecutor,
    ThreadingExecutor,
)
from scopeflow.engine.executor import ClusterExecutor
from scopeflow.errors import OptionsError
from scopeflow.flow.backends.registry import register_backend
from scopeflow.flow.flow import get_displacement
from scopeflow.images.warp import warp
from scopeflow.motion.correct import BatchMotionCorrector
from scopeflow.motion.graph import run as run_graph
from scopeflow.motion.graph.correct import CorrectionJob, windows
from scopeflow.motion.graph.shared_reference import SharedReference
from scopeflow.motion.place import supported_config
from scopeflow.motion.plan import plan_correction
from tests.conftest import same_bits

linux_only = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")


@pytest.fixture
def processes(cluster_client):
    return ClusterExecutor("multiprocessing", 2, cluster_client)


def open_files(process: int) -> set[str]:
    """Numbers of the files that a process has open."""
    found = set()
    for file in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # sockets, and what was just closed
            found.add(str(file.stat().st_ino))
    return found


class Looks:
    """Passes frames on, and writes down which shared files this process has mapped, and how."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.maker = os.getpid()

    def __call__(self, frame):
        mappings = {}
        there = open_files(self.maker)
        for line in Path("/proc/self/maps").read_text().splitlines():
            _, permissions, _, device, inode, *name = line.split(maxsplit=5)
            found = re.fullmatch(r"/memfd:scopeflow-(\w+\.npy) \(deleted\)", "".join(name))
            if found is not None and inode in there:
                mappings[f"{found[1]}:{device}:{inode}"] = permissions
        (self.folder / f"{os.getpid()}.json").write_text(json.dumps(mappings))
        return frame


@linux_only
def test_an_array_is_in_memory_once_for_all_processes(processes, tmp_path):
    video = np.random.default_rng(0).integers(0, 4000, (24, 96, 120, 1)).astype(np.uint16)
    options = OFOptions(
        input_file=video,
        output_format="ARRAY",
        output_typename=None,
        quality_setting="fast",
        iterations=5,
        buffer_size=12,
        reference_frames=[0, 1],
        preproc_funct=Looks(tmp_path),
    )
    config = RegistrationConfig(progress=False, block_length=2)
    corrector = BatchMotionCorrector(options, config)
    corrector.run_plan(plan_correction(options, config), processes)
    seen = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    assert len(seen) == 2
    for name in ("video.npy", "raw.npy", "processed.npy", "weight.npy"):
        found = [{key for key in process if key.startswith(name)} for process in seen]
        # The same device and inode, so the same pages.
        assert len(found[0]) == 1
        assert found[0] == found[1]
    for process in seen:
        for key, permissions in process.items():
            # A shared mapping, which has no pages of its own; inputs cannot be written.
            assert permissions[3] == "s"
            if not key.startswith(("registered", "flow")):
                assert permissions[:2] == "r-"
    expected, flow = compensate_arr(
        video,
        corrector.reference_raw,
        options,
        registration_config=RegistrationConfig(parallelization="sequential", progress=False),
    )
    assert same_bits(corrector.registered, expected)
    assert same_bits(corrector.w, flow)
    inodes = {key.rpartition(":")[2] for key in seen[0]}
    # The process that made them holds them no longer.
    assert not inodes & open_files(os.getpid())


def test_tasks_for_processes_carry_no_pixels(processes, monkeypatch):
    video = np.random.default_rng(0).integers(0, 4000, (24, 96, 120, 1)).astype(np.uint16)
    options = OFOptions(
        input_file=video,
        output_format="ARRAY",
        output_typename=None,
        quality_setting="fast",
        iterations=2,
        buffer_size=12,
        reference_frames=[0],
    )
    sizes = []

    def weighed(job: CorrectionJob, start=None):
        for window in windows(job, start):
            assert isinstance(job.reference, SharedReference)
            graphs = [dict(task.__dask_graph__()) for task in window.tasks]
            sizes.append(max(len(cloudpickle.dumps(graph)) for graph in graphs))
            yield from [window] if window.next_start is None else []
            assert window.next_start is None

    monkeypatch.setattr(run_graph, "windows", weighed)
    config = RegistrationConfig(progress=False, block_length=4)
    BatchMotionCorrector(options, config).run_plan(plan_correction(options, config), processes)
    # One frame alone has 23 kB; the largest graph holds all tasks of the first batch.
    assert sizes
    assert max(sizes) < video[0].nbytes


def shifted(reference, moving, *, uv, **parameters):
    """Return a displacement that no solver would find."""
    flow = np.zeros((*reference.shape[:2], 2))
    flow[..., 0] = 7 + parameters.get("extra", 0)
    return flow


def resample(moving, u, v, fill, interpolation_method="cubic"):
    return warp(moving, np.stack([u, v], axis=-1), fill, interpolation_method)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 4000, (9, 24, 30, 2)).astype(np.uint16)
    processed = frames.astype(np.float32) / 4000
    return frames, processed, frames[0].astype(np.float32), processed[0], np.zeros((24, 30, 2))


@pytest.fixture(scope="module")
def executors():
    with ThreadingExecutor(3) as threads:
        yield SequentialExecutor(5), threads


@pytest.mark.slow
def test_processes_give_the_same_bits(batch, executors):
    with MultiprocessingExecutor(2) as several:
        same_results(batch, (*executors, several))
        uses_the_given_function(batch, several)


def test_executors_give_the_same_bits(batch, executors):
    same_results(batch, executors)


def same_results(batch, executors):
    results = []
    for executor in executors:
        counts = []
        registered, flow = executor.process_batch(
            *batch,
            get_displacement,
            resample,
            progress_callback=counts.append,
            flow_params={"iterations": 5, "min_level": 2, "weight": np.array([0.7, 0.3])},
        )
        assert sum(counts) == 9
        results.append((registered, flow))
    for registered, flow in results[1:]:
        assert same_bits(registered, results[0][0])
        assert same_bits(flow, results[0][1])
    expected = get_displacement(
        batch[3], batch[1][4], iterations=5, min_level=2, weight=np.array([0.7, 0.3])
    )
    np.testing.assert_allclose(results[0][1][4], expected, atol=1e-6)


def test_every_executor_uses_the_function_that_is_given(batch, executors):
    for executor in executors:
        uses_the_given_function(batch, executor)


def uses_the_given_function(batch, executor):
    registered, flow = executor.process_batch(
        *batch, shifted, resample, "nearest", flow_params={"extra": 1}
    )
    assert (flow[..., 0] == 8).all()
    np.testing.assert_array_equal(registered[:, :, :-8], batch[0][:, :, 8:])
    np.testing.assert_array_equal(registered[3, :, -8:], batch[0][0, :, -8:])


def test_rigid_start_of_a_batch(batch, executors):
    rng = np.random.default_rng(2)
    image = rng.random((40, 56, 1)).astype(np.float32)
    moved = np.roll(image, (3, -5), (0, 1))[None]
    _, flow = executors[0].process_batch(
        moved,
        moved,
        image,
        image,
        np.zeros((40, 56, 2)),
        lambda reference, moving, *, uv: np.zeros((*reference.shape[:2], 2)),
        resample,
        flow_params={"cc_initialization": True, "cc_hw": 256, "cc_up": 1},
    )
    np.testing.assert_allclose(flow[0], np.broadcast_to([-5.0, 3.0], (40, 56, 2)))


def test_executors_describe_themselves(executors):
    one, threads = executors
    several = MultiprocessingExecutor(2)
    assert (one.n_workers, threads.n_workers, several.n_workers) == (1, 3, 2)
    info = several.get_info()
    assert info["features"] == ["zero-copy", "shared-memory", "true-parallelism"]
    assert info["description"] == "Multiprocessing with shared memory, 2 workers"
    assert not one.get_info()["parallel"]
    with pytest.raises(OptionsError):
        ThreadingExecutor(0)


def test_context_knows_what_is_available():
    RuntimeContext.init(force=True)
    available = RuntimeContext.get("available_parallelization", set())
    assert {"sequential", "threading", "multiprocessing"} <= available
    assert RuntimeContext.get_optimal_parallelization("flowreg") == "multiprocessing"
    with RuntimeContext.use(available_parallelization={"sequential", "threading"}, max_workers=3):
        assert RuntimeContext.get_optimal_parallelization("flowreg") == "threading"
        assert ThreadingExecutor().n_workers == 3
    assert RuntimeContext.get("max_workers") != 3 or os.cpu_count() == 3
    assert RuntimeContext.get("no such key", 5) == 5
    for name, kind in (("sequential", SequentialExecutor), ("threading", ThreadingExecutor)):
        assert RuntimeContext.get_parallelization_executor(name) is kind
    assert RuntimeContext.get_parallelization_executor("nothing") is None
    with pytest.raises(OptionsError, match="Did you mean 'threading'"):
        RuntimeContext.require_parallelization("treading")


def test_context_travels_to_other_processes(monkeypatch):
    monkeypatch.delenv("PYFLOWREG_CONTEXT", raising=False)
    assert not RuntimeContext.from_env()
    with RuntimeContext.use(max_workers=17):
        given = RuntimeContext.to_env()
    monkeypatch.setenv(*next(iter(given.items())))
    assert RuntimeContext.from_env()
    assert RuntimeContext.get("max_workers") == 17
    monkeypatch.setenv("PYFLOWREG_CONTEXT", "nonsense")
    with pytest.raises(OptionsError, match="PYFLOWREG_CONTEXT"):
        RuntimeContext.from_env()
    RuntimeContext.init(force=True)


def test_an_executor_can_be_added():
    class Mine(BaseExecutor):
        name = "mine"

    Mine.register()
    assert RuntimeContext.get_parallelization_executor("mine") is Mine
    assert RuntimeContext.is_parallelization_available("mine")


def test_backends_choose_an_executor_that_they_support():
    register_backend("one at a time", lambda **_: get_displacement, {"sequential"})
    with pytest.warns(UserWarning, match="does not support") as caught:
        chosen = supported_config(RegistrationConfig(parallelization="threading"), "one at a time")
    assert str(caught[0].message) == (
        "Backend 'one at a time' does not support 'threading' executor. Supported executors: "
        "['sequential']. Falling back to 'sequential'."
    )
    assert chosen.parallelization == "sequential"
    with pytest.warns(UserWarning, match="does not support 'dask' executor"):
        supported_config(RegistrationConfig(scheduler_address="tcp://x:1"), "one at a time")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            supported_config(RegistrationConfig(), "one at a time").parallelization == "sequential"
        )
        plain = RegistrationConfig()
        assert supported_config(plain, "flowreg") is plain
    with RuntimeContext.use(available_parallelization={"sequential", "threading"}):
        with pytest.warns(UserWarning, match="'multiprocessing' is not available on this system"):
            chosen = supported_config(
                RegistrationConfig(parallelization="multiprocessing"),
                "flowreg",
                RuntimeContext.get_available_parallelization(),
            )
        assert chosen.parallelization == "threading"
    with (
        RuntimeContext.use(available_parallelization=set()),
        pytest.raises(RuntimeError, match="No compatible parallelization executor found"),
    ):
        supported_config(
            RegistrationConfig(), "flowreg", RuntimeContext.get_available_parallelization()
        )


def test_a_run_falls_back_with_a_warning(batch):
    register_backend("one at a time", lambda **_: get_displacement, {"sequential"})
    options = OFOptions(flow_backend="one at a time", quality_setting="fast", iterations=2)
    config = RegistrationConfig(parallelization="multiprocessing", progress=False)
    with pytest.warns(UserWarning, match="Falling back to 'sequential'"):
        compensate_arr(batch[0][:2], batch[0][0], options, registration_config=config)
