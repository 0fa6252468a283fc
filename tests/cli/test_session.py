from __future__ import annotations

import re

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from scopeflow.cli.app import app

OPTIONS = ["--of-params", "quality_setting=fast", "iterations=5", "reference_frames=[0]"]


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("SLURM_ARRAY_TASK_ID", "SGE_TASK_ID", "PBS_ARRAY_INDEX"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(frames, tmp_path):
    for n in range(3):
        moved = np.roll(frames[:8], 2 * n, axis=2)
        tifffile.imwrite(tmp_path / f"rec_{n}.tif", moved, photometric="minisblack")
    return tmp_path


def scopeflow(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_from_a_folder_to_a_finished_session(folder):
    began = scopeflow("session", "init", folder)
    assert began.exit_code == 0, began.stderr
    text = (folder / "session.toml").read_text()
    assert "#   rec_1.tif: 8 × 40 × 48 × 1, uint16" in text
    config = folder / "session.toml"

    before = files(folder)
    planned = scopeflow("session", "run", "-c", config, "--dry-run", *OPTIONS)
    assert planned.exit_code == 0, planned.stderr
    assert "Nothing was written" in planned.stdout
    assert "rec_1.tif (center)" in planned.stdout
    assert files(folder) == before
    empty = scopeflow("session", "status", "--config", config)
    assert empty.exit_code == 0
    assert empty.stdout.count("missing") == 9

    done = scopeflow("session", "run", "--config", config, *OPTIONS)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("done") == 9
    assert (folder / "final_results" / "final_valid_idx.mat").is_file()
    assert scopeflow("session", "status", "-c", config, "--verify").stdout.count("done") == 9


def test_init_overwrites_nothing(folder):
    (folder / "session.toml").write_text("mine")
    refused = scopeflow("session", "init", folder)
    assert refused.exit_code == 1
    assert "exists" in refused.stderr
    assert (folder / "session.toml").read_text() == "mine"
    elsewhere = folder / "elsewhere" / "s.toml"
    assert scopeflow("session", "init", folder, "--output", elsewhere).exit_code == 0
    assert scopeflow("session", "status", "-c", elsewhere).exit_code == 0
    (folder / "empty").mkdir()
    assert "holds no recording" in scopeflow("session", "init", folder / "empty").stderr


def test_single_stages_and_their_order(folder):
    scopeflow("session", "init", folder)
    config = folder / "session.toml"
    early = scopeflow("session", "run", "-c", config, "--stage", 2)
    assert early.exit_code == 1
    assert "Run Stage 1 first" in early.stderr
    for stage, options in ((1, OPTIONS), (2, []), (3, [])):
        result = scopeflow("session", "run", "-c", config, "--stage", stage, *options)
        assert result.exit_code == 0, result.stderr
        assert result.stdout.count("done") == 3 * (3 if stage == 3 else stage)


def test_a_failed_recording_gives_a_table_with_the_reason_and_exit_code_1(folder):
    scopeflow("session", "init", folder)
    config = folder / "session.toml"
    good = (folder / "rec_2.tif").read_bytes()
    (folder / "rec_2.tif").write_bytes(good[:3000])
    planned = scopeflow("session", "run", "-c", config, "--dry-run", *OPTIONS)
    assert planned.exit_code == 1
    assert "rec_2" in planned.stdout
    failed = scopeflow("session", "run", "-c", config, *OPTIONS)
    assert failed.exit_code == 1
    assert re.search(r"rec_2 .*failed .*rec_2\.tif", failed.stdout)
    assert re.search(r"rec_0 .*done ", failed.stdout)
    assert "stage 1 failed for 1 of 3 recordings" in failed.stderr
    assert scopeflow("session", "status", "-c", config).exit_code == 1
    (folder / "rec_2.tif").write_bytes(good)
    assert scopeflow("session", "run", "-c", config, *OPTIONS).exit_code == 0
    assert scopeflow("session", "status", "-c", config).exit_code == 0


def test_array_mode(folder, monkeypatch):
    scopeflow("session", "init", folder)
    config = folder / "session.toml"
    alone = scopeflow("session", "run", "-c", config, "--array", *OPTIONS)
    assert alone.exit_code == 1
    assert "No array task ID found in environment" in alone.stderr
    monkeypatch.setenv("PBS_ARRAY_INDEX", "2")
    task = scopeflow("session", "run", "-c", config, "--array", *OPTIONS)
    assert task.exit_code == 0, task.stderr
    assert "--stage 2" in task.stdout
    assert [p.name for p in (folder / "compensated_outputs").iterdir()] == ["rec_1"]
    monkeypatch.setenv("PBS_ARRAY_INDEX", "4")
    beyond = scopeflow("session", "run", "-c", config, "--array", *OPTIONS)
    assert beyond.exit_code == 1
    assert "out of range" in beyond.stderr
    # The session file may say so too; single recordings can be chosen by hand.
    config.write_text(config.read_text().replace('scheduler = "local"', 'scheduler = "array"'))
    monkeypatch.setenv("PBS_ARRAY_INDEX", "3")
    assert scopeflow("session", "run", "-c", config, *OPTIONS).exit_code == 0
    assert scopeflow("session", "run", "-c", config, "--index", 0, *OPTIONS).exit_code == 0
    for stage in (2, 3):
        result = scopeflow("session", "run", "-c", config, "--stage", stage)
        assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stage", "4"], "less than or equal to 3"),
        (["--stage", "2", "--array"], "does not support array mode"),
        (["--stage", "2", *OPTIONS], "options of stage 1"),
        (["--index", "1", "--stage", "2"], "--index"),
        (["--of-params", "qualty_setting=fast"], "Did you mean 'quality_setting'"),
        (["--of-params", "alpha"], "write KEY=VALUE"),
        (["alpha=4"], "follow --of-params"),
        (["--scheduler", "thread"], "Did you mean 'threads'"),
    ],
)
def test_bad_usage(folder, words, message):
    scopeflow("session", "init", folder)
    result = scopeflow("session", "run", "-c", folder / "session.toml", *words)
    assert result.exit_code == 2
    assert message in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())
    assert not (folder / "compensated_outputs").exists()


def test_mistakes_in_the_session_file(folder):
    config = folder / "session.toml"
    config.write_text('root = "."\ncentre = "rec_1.tif"\n')
    result = scopeflow("session", "run", "-c", config)
    assert result.exit_code == 1
    assert "unknown option 'centre'. Did you mean 'center'" in result.stderr
    missing = scopeflow("session", "run", "-c", folder / "none.toml")
    assert missing.exit_code == 1
    assert "Configuration file not found" in missing.stderr
    config.write_text('root = "."\nscheduler = "dask"\n')
    cluster = scopeflow("session", "run", "-c", config)
    assert cluster.exit_code == 2
    assert "--scheduler ADDRESS" in " ".join(re.sub(r"[│╭╮╰╯─]", " ", cluster.stderr).split())
