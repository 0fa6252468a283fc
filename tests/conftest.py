from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from scopeflow.engine.place import RegistrationConfig
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.testing.synthetic import synthetic_recording

# A run in the background of a shell ignores Ctrl-C, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def unchanged_logging():
    """Commands set up logging of their process; tests that run one in theirs leave no trace."""
    names = ("scopeflow", "scopeflow.engine.progress", "scopeflow.compiled.gateway")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recordings beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real recordings (../shared/data) are not present")
    return folder


@pytest.fixture(scope="session")
def small_recording():
    """44 frames of 40 x 52 pixels in two channels, moved by a known flow."""
    return synthetic_recording(44, 40, 52, 2, seed=3, translation_px=2.0, nonrigid_px=0.7)


@pytest.fixture
def quick_options():
    """Make options that need little time: few iterations, batches of 20."""

    def make(**changes) -> OFOptions:
        defaults = {"quality_setting": "fast", "iterations": 10, "buffer_size": 20}
        return OFOptions(**{**defaults, **changes})

    return make


@pytest.fixture
def quiet():
    """Make a configuration without progress output."""

    def make(**changes) -> RegistrationConfig:
        defaults = {"progress": False, "parallelization": "sequential"}
        return RegistrationConfig(**{**defaults, **changes})

    return make


def same_bits(a, b) -> bool:
    """Whether two arrays have the same type, shape and bytes."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture
def locked_folder(tmp_path):
    """A folder that this process may not write to, also where it runs as root."""
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:  # who may write everywhere: become nobody for the time of the test
        for parent in (tmp_path, *tmp_path.parents[:-2]):
            parent.chmod(parent.stat().st_mode | 0o055)
        os.seteuid(65534)
    yield folder
    if is_root:
        os.seteuid(0)
    folder.chmod(0o755)
