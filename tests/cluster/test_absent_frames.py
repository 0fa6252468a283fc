"""Frames without pixels, where processes compute."""

from __future__ import annotations

import numpy as np
import pytest

from scopeflow import OFOptions
from scopeflow.engine.executor import ClusterExecutor, open_executor
from scopeflow.engine.place import RegistrationConfig
from scopeflow.motion.correct import BatchMotionCorrector
from scopeflow.motion.plan import plan_correction
from tests.absent_source import WithGaps, with_gaps
from tests.conftest import same_bits


class InMemory(WithGaps):
    """As a user's own source, which need not name a file."""

    @property
    def paths(self):
        return ()


@pytest.fixture
def processes(cluster_client):
    return ClusterExecutor("multiprocessing", 2, cluster_client)


@pytest.mark.parametrize("where", ["in a file", "in memory"])
def test_processes_give_the_bits_of_one(where, processes, tmp_path):
    video = np.random.default_rng(0).integers(90, 110, (24, 24, 32, 1)).astype(np.uint16)
    source = with_gaps(tmp_path, video, (0, 9, 10, 11, 12))
    if where == "in memory":
        source = InMemory(source.name, source.shape, source.absent)
    options = OFOptions(
        input_file=source,
        output_format="ARRAY",
        quality_setting="fast",
        iterations=5,
        buffer_size=12,
        reference_frames=[0, 1, 2],
    )
    config = RegistrationConfig(progress=False, block_length=4, parallelization="sequential")
    results = []
    with open_executor(config) as here:
        for executor in (here, processes):
            corrector = BatchMotionCorrector(options, config)
            corrector.run_plan(plan_correction(options, config), executor)
            results.append((corrector.registered, corrector.w, np.asarray(corrector.mean_disp)))
    for one, other in zip(*results, strict=True):
        assert same_bits(one, other)
    assert not results[0][0][[0, 9, 10, 11, 12]].any()
    assert results[0][0][1].any()
