"""Session files, configurations, options and words that were made to harm: one short message."""

from __future__ import annotations

import os

import pytest
from typer.testing import CliRunner

from scopeflow.cli.app import app
from tests.strict.test_text import BAD

# Names of options as each file has them, with values that are too much.
VALUES = {kind: [name for name, (k, _) in BAD.items() if k == kind] for kind in ("yaml", "toml")}


def run(*words) -> str:
    """Run a command that fails by itself; its message."""
    done = CliRunner(env={"COLUMNS": "300"}).invoke(app, list(map(str, words)))
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (1, 2), done.output
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert len(done.stderr) < 4000
    return " ".join(done.stderr.split())


@pytest.mark.parametrize("name", [*VALUES["yaml"], *VALUES["toml"]])
def test_session_files(tmp_path, name):
    kind, text = BAD[name]
    file = tmp_path / f"session.{kind}"
    file.write_text(text)
    assert f"cannot be read as {kind.upper()}" in run("session", "status", "--config", file)


@pytest.mark.parametrize("name", VALUES["yaml"])
def test_configurations_and_samples_of_cells(tmp_path, name):
    (tmp_path / "bad.yaml").write_text(BAD[name][1])
    out = tmp_path / "out"
    words = ("cells", "run", tmp_path / "x.nd2", out, "--config", tmp_path / "bad.yaml")
    assert "cannot be read as YAML" in run(*words)
    words = ("cells", "merge", out, "--samples", tmp_path / "bad.yaml")
    assert "cannot be read as YAML" in run(*words)


@pytest.mark.parametrize(
    "text",
    [
        "samples: [{name: a, fovs: null}]",
        "samples: [{name: a, fovs: {b: 1}}]",
        "samples: [{name: a, fovs: 0-9999999999999}]",
        "samples: [{name: a, fovs: 0-999999999}]",
        f"samples: [{{name: a, fovs: {'7' * 250}}}]",
        f"samples: [{{name: {'x' * 100_000}, fovs: '0'}}]",
        f"samples: [{'y' * 100_000}]",
        f"samples: {{{'z' * 100_000}: 1}}",
        "samples: [[[[1]]]]",
        "[]",
    ],
)
def test_samples_of_other_shapes(tmp_path, text):
    out = tmp_path / "out"
    (out / "fov_000").mkdir(parents=True)
    (out / "fov_000" / "a_traces.csv").write_text("fov,cell,frame,good\n0,1,0,True\n")
    (out / "processing_config.yaml").write_text("channels: {pc: 0}\n")
    (tmp_path / "samples.yaml").write_text(text)
    run("cells", "merge", out, "--samples", tmp_path / "samples.yaml")
    assert not (out / "merged").exists()


@pytest.mark.parametrize(
    "text",
    [
        f"params: {{min_frames: [{', '.join(['1'] * 50_000)}]}}",
        f"params: {{{'q' * 100_000}: 1}}",
        f"params: {{tracking_method: {'q' * 100_000}}}",
        f"channels: {{pc: {'q' * 100_000}}}",
        f"channels: {{pc: [0, [{'q' * 100_000}]]}}",
    ],
)
def test_values_of_a_configuration_are_cut_in_messages(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    run("cells", "run", tmp_path / "x.nd2", tmp_path / "out", "--config", tmp_path / "bad.yaml")


@pytest.mark.parametrize("name", [name for name, (kind, _) in BAD.items() if kind == "yaml"])
def test_words_of_set(movie, tmp_path, name):
    text = BAD[name][1]
    assert "cannot be read" in run("correct", movie, tmp_path / "o", "--set", f"alpha={text}")


# An option file may be large: it may hold an image.
@pytest.mark.parametrize(
    "name", [name for name, (kind, _) in BAD.items() if kind == "json" and name != "json large"]
)
def test_option_files(movie, tmp_path, name):
    text = BAD[name][1]
    file = tmp_path / "options.json"
    file.write_bytes(b'{\n"alpha":' + (text if isinstance(text, bytes) else text.encode()) + b"}")
    assert str(file) in run("correct", movie, tmp_path / "o", "--options", file)


def test_pipes_and_devices_are_not_read(movie, tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for words in (
        ("session", "status", "--config", tmp_path / "pipe.yaml"),
        ("cells", "run", movie, tmp_path / "o", "--config", tmp_path / "pipe.yaml"),
        ("cells", "merge", tmp_path, "--samples", "/dev/zero"),
        ("correct", movie, tmp_path / "o", "--options", tmp_path / "pipe.yaml"),
    ):
        run(*words)


@pytest.mark.parametrize("given", ["0:99999999999", "0:" + "9" * 5000, "5:3"])
def test_references_that_no_recording_has(movie, tmp_path, given):
    assert "--reference" in run("correct", movie, tmp_path / "o", "--reference", given)


def test_a_reference_of_objects(movie, tmp_path):
    import numpy as np

    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    words = ("correct", movie, tmp_path / "o", "--reference", tmp_path / "objects.npy")
    assert "objects.npy: holds Python objects" in run(*words)
