from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

SOURCES = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture(scope="session")
def frames():
    """24 frames of a smooth texture that moves by whole pixels."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:40, 0:48]
    image = sum(np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0.1, 0.9, (12, 3)))
    shifts = rng.integers(-2, 3, (24, 2))
    video = np.stack([np.roll(image, tuple(shift), (0, 1)) for shift in shifts])
    return np.clip(np.rint(2000 + 200 * video), 0, 65535).astype(np.uint16)


@pytest.fixture
def movie(frames, tmp_path) -> Path:
    path = tmp_path / "raw" / "movie.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, frames, imagej=True, metadata={"axes": "TYX"})
    return path


def start_command(*words, **options) -> subprocess.Popen:
    """Start the real command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "COLUMNS": "200"}
    code = "from scopeflow.cli.app import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run_command(*words) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the real command."""
    process = start_command(*words)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def plain(text: str) -> str:
    """Text without colours, frames and line breaks."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return " ".join(re.sub(r"[│╭╮╰╯─┃]", " ", text).split())
