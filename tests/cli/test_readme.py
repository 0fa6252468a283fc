from __future__ import annotations

import re
import shlex
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

from scopeflow.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "deploy").rglob("*.md"))
    if not path.name.startswith(".")
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    video = np.random.default_rng(0).integers(100, 900, (24, 20, 24)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "movie.tif", video, imagej=True, metadata={"axes": "TYX"})
    (tmp_path / "recordings").mkdir()
    for name in ("monday.tif", "tuesday.tif"):
        tifffile.imwrite(tmp_path / "recordings" / name, video[:4], photometric="minisblack")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_examples_run(folder, number):
    names: dict = {}
    exec(compile(blocks("python")[number], f"README example {number}", "exec"), names)
    if "corrected" in names:
        assert names["corrected"].shape == (24, 20, 24, 1)
        assert (folder / "results" / "w.h5").is_file()
    elif "motion" in names:
        assert names["look"].shape == (4, 20, 24, 1)
        assert (folder / "results" / "motion.zarr").is_dir()
    else:
        assert names["registered"].shape == names["video"].shape
        assert names["u"].shape == (24, 20, 24)


def test_commands_are_accepted(folder):
    zarr.create_array(folder / "movie.zarr", data=np.ones((24, 20, 24), np.uint16))
    archive = fsspec.filesystem("memory")
    archive.put(str(folder / "movie.zarr"), "/lab/raw/movie.zarr", recursive=True)
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("scopeflow")]
    assert {words[1] for words in commands} == {"inspect", "correct", "preview", "session", "cells"}
    for _, *words in commands:
        # The archive of the README is in memory here; tests/cluster runs against an S3 server.
        words = [word.replace("s3://lab", "memory://lab") for word in words]
        words = [word.replace("100:200", "10:20") for word in words]
        if words[0] == "cells":  # run for real in tests/cells; here the commands have to exist
            words = [*words[:2], "--help"]
        if words[0] == "preview":  # run for real in tests/io/test_read_video.py
            words = ["preview", "--help"]
        if words[0] == "correct" and "--dry-run" not in words:
            words.append("--dry-run")
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (words, result.stderr)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    for target in targets:
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
