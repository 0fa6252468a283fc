"""`scopeflow correct` with other flow backends: from file to file, and what users are told."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest
import zarr

from scopeflow.engine.place import RegistrationConfig
from scopeflow.motion.arrays import compensate_arr
from scopeflow.motion.options.of_options import OFOptions
from tests.cli.conftest import everything_below, plain, run_command
from tests.cli.test_correct import QUICK, invoke

has_torch = importlib.util.find_spec("torch") is not None


def options_of(backend, parameters):
    return OFOptions(
        quality_setting="fast",
        iterations=5,
        output_typename="uint16",
        flow_backend=backend,
        backend_params=parameters,
    )


@pytest.mark.parametrize(
    ("backend", "words", "parameters"),
    [
        ("diso", "{preset: fast, finest_scale: 0}", {"preset": "fast", "finest_scale": 0}),
        pytest.param(
            "flowreg_torch",
            "{device: cpu, frames_at_once: 5}",
            {"device": "cpu"},
            marks=pytest.mark.skipif(not has_torch, reason="needs torch (extra 'torch')"),
        ),
    ],
)
def test_a_backend_corrects_a_file(movie, frames, tmp_path, backend, words, parameters):
    reference = frames[2:3].astype(float).mean(axis=0)
    np.save(tmp_path / "reference.npy", reference)
    result = invoke(
        "correct", movie, tmp_path / "out", *QUICK, "--reference", tmp_path / "reference.npy",
        "--set", f"flow_backend={backend}", "--set", f"backend_params={words}",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    found = zarr.open_group(tmp_path / "out" / "compensated.zarr", mode="r")["registered"][:, 0]
    expected, _ = compensate_arr(
        frames,
        reference,
        options_of(backend, parameters),
        registration_config=RegistrationConfig(parallelization="sequential", progress=False),
    )
    np.testing.assert_array_equal(found, expected)
    inside = np.s_[:, 6:-6, 6:-6]
    before = np.abs(frames - reference)[inside].mean()
    assert np.abs(found - reference)[inside].mean() < 0.5 * before


@pytest.mark.parametrize(
    ("assignments", "needed"),
    [
        (["flow_backend=disso"], "Unknown flow backend: 'disso'.*Did you mean 'diso'"),
        (["flow_backend=flowreg_cuda"], "flow_backend='flowreg_torch' with backend_params="),
        (
            ["flow_backend=diso", "backend_params={patch_sise: 4}"],
            "no parameter 'patch_sise'.*Did you mean 'patch_size'",
        ),
        (["flow_backend=diso", "constancy_assumption=cs"], "does not support constancy_assumption"),
    ],
)
def test_what_cannot_run_is_named_before_anything_is_written(movie, tmp_path, assignments, needed):
    words = [word for assignment in assignments for word in ("--set", assignment)]
    result = invoke("correct", movie, tmp_path / "out", *QUICK, *words)
    assert result.exit_code == 1
    message = plain(result.stderr)
    assert re.search(needed, message), message
    assert "Traceback" not in message
    assert not everything_below(tmp_path / "out")


@pytest.mark.skipif(not has_torch, reason="needs torch (extra 'torch')")
def test_a_missing_device_and_executor_are_replaced_with_a_warning(movie, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    code, _, errors = run_command(
        "correct", movie, tmp_path / "out", "--quality", "fast", "--set", "iterations=2",
        "--scheduler", "threads", "--set", "flow_backend=flowreg_torch",
        "--set", "backend_params={device: cuda}",
    )  # fmt: skip
    assert code == 0, errors
    message = plain(errors)
    assert "device 'cuda' was asked for, torch sees none: using the CPU." in message
    assert "'flowreg_torch' does not support 'threading' executor" in message
    assert "Falling back to 'sequential'" in message
    assert "warnings.warn" not in message  # the line of code is no concern of users
