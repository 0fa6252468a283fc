"""How commands end: one message for every failure and signal, and its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

import scopeflow.io.open as opening
from scopeflow.cli.app import TERMINATED, app
from tests.cell_movies import cell_movie
from tests.cli.conftest import plain, run_command, start_command

PLACES = {
    "sequential": (),
    "threads": ("--workers", "2"),
    "processes": ("--workers", "2"),
}


@pytest.fixture(scope="module")
def long_movie(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "long.tif"
    rng = np.random.default_rng(0)
    tifffile.imwrite(path, rng.integers(100, 900, (200, 96, 96)).astype(np.uint16))
    return path


def correct_words(movie, out, place="sequential"):
    return (
        "correct", movie, out, "--reference", "0:1", "--scheduler", place, *PLACES[place],
        "--block-length", "4", "--set", "buffer_size=400",
    )  # fmt: skip


def blocks_of(folder):
    return list(folder.rglob("block*.json"))


def stopped_when(process, done, number, *, group=False):
    """Send a signal as soon as something is done; exit code and standard error."""
    deadline = time.monotonic() + 120
    while not done():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def ends(group: int) -> bool:
    """Wait until no process of a group is left; helpers of Python take a moment."""
    for _ in range(400):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("place", "number", "group"),
    [
        pytest.param("sequential", signal.SIGTERM, False, marks=pytest.mark.slow),
        ("threads", signal.SIGHUP, False),
        ("processes", signal.SIGTERM, False),
        # As batch systems do: workers get the signal too.
        pytest.param("processes", signal.SIGTERM, True, marks=pytest.mark.slow),
    ],
)
def test_a_terminated_run_says_so_and_is_resumed(long_movie, tmp_path, place, number, group):
    words = correct_words(long_movie, tmp_path / "out", place)
    # Whoever runs the tests may ignore it, as nohup does, and children inherit that.
    heard = {"preexec_fn": lambda: signal.signal(number, signal.SIG_DFL)}
    process = start_command(*words, start_new_session=True, **heard)
    code, err = stopped_when(process, lambda: blocks_of(tmp_path), number, group=group)
    assert code == 128 + number, err
    assert err.count(TERMINATED) == 1
    assert "Traceback" not in err
    assert ends(process.pid), "workers are left"
    finished = 4 * len(blocks_of(tmp_path))
    assert 0 < finished < 200
    assert not list(tmp_path.rglob("*.partial"))
    code, out, err = run_command(*correct_words(long_movie, tmp_path / "out"))
    assert code == 0, err
    assert f"reused   {finished} of 200 frames" in out


def test_a_signal_that_is_ignored_stays_so(long_movie, tmp_path):
    """As with nohup."""
    words = correct_words(long_movie, tmp_path / "out")
    process = start_command(*words, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    code, err = stopped_when(process, lambda: blocks_of(tmp_path), signal.SIGHUP)
    assert code == 0, err


def test_a_terminated_session_says_so(long_movie, tmp_path):
    for name in ("a.tif", "b.tif"):
        os.link(long_movie, tmp_path / name)
    (tmp_path / "session.toml").write_text(
        "root = '.'\npattern = '*.tif'\nn_workers = 1\nflow_options = {iterations = 3}\n"
    )
    words = ("session", "run", "--config", tmp_path / "session.toml")
    process = start_command(*words)
    code, err = stopped_when(process, lambda: blocks_of(tmp_path), signal.SIGTERM)
    assert code == 143, err
    assert err.count(TERMINATED) == 1
    assert "Traceback" not in err


def test_a_terminated_cell_workflow_says_so(tmp_path):
    movie = cell_movie(n_frames=40, height=96, width=112, n_cells=3)
    path = tmp_path / "cells.ome.tif"
    data = np.stack([movie.phase, movie.fluorescence], axis=1)
    tifffile.imwrite(path, data.astype(np.uint16), metadata={"axes": "TCYX"})
    words = ("cells", "run", path, tmp_path / "out", "--pc", 0, "--fl", 1)
    process = start_command(*words, "--set", "batch_size=1", "--set", "n_workers=1")
    code, err = stopped_when(process, lambda: list(tmp_path.glob("out/**/*.json")), signal.SIGTERM)
    assert code == 143, err
    assert err.count(TERMINATED) == 1
    assert "Traceback" not in err


def test_no_handler_is_installed_from_python():
    before = signal.getsignal(signal.SIGTERM)
    assert CliRunner().invoke(app, ["--version"]).exit_code == 0
    assert signal.getsignal(signal.SIGTERM) == before == signal.SIG_DFL


# --------------------------------------------------------------------------------------- failures


@pytest.fixture
def broken(monkeypatch):
    """A mistake of ours in the middle of a command."""

    def describe(source):
        return 1 / 0

    monkeypatch.setattr(opening, "describe", describe)


@pytest.mark.usefixtures("broken")
def test_a_mistake_of_ours_is_one_message(movie):
    done = CliRunner().invoke(app, ["inspect", str(movie)])
    assert done.exit_code == 1
    assert "unexpected ZeroDivisionError: division by zero" in plain(done.stderr)
    assert "--debug" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("words", [("--debug", "inspect"), ("inspect", "--debug")])
def test_debug_shows_where_a_mistake_comes_from(movie, words):
    done = CliRunner().invoke(app, [*words, str(movie)])
    assert done.exit_code == 1
    assert "Traceback" in done.stderr
    assert "return 1 / 0" in done.stderr
    assert done.stderr.count("Traceback") == 1


def test_debug_is_an_option_of_every_command(tmp_path):
    for words in (("cells", "status"), ("session", "status", "--config"), ("correct", "x")):
        missing = str(tmp_path / "missing.toml")
        for line in ([*words, missing, "--debug"], ["--debug", *words, missing]):
            done = CliRunner().invoke(app, line)
            assert done.exit_code == 1, done.output
            assert "Traceback" in done.stderr
        assert "Traceback" not in CliRunner().invoke(app, [*words, missing]).stderr
    # Behind -- it is a name.
    done = CliRunner().invoke(app, ["inspect", "--", "--debug"])
    assert "--debug" in done.stderr
    assert "Traceback" not in done.stderr


def test_warnings_show_no_code(tmp_path, movie):
    code = (
        "import sys, warnings, threading, logging\n"
        "sys.argv = ['scopeflow', 'inspect', sys.argv[1]]\n"
        "import scopeflow.io.open as opening\n"
        "kept = opening.describe\n"
        "def fail(): raise KeyError('lost')\n"
        "def describe(source):\n"
        "    warnings.simplefilter('always')\n"
        "    warnings.warn('some\\n\\x1b[31mcolour', RuntimeWarning)\n"
        "    thread = threading.Thread(target=fail)\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "    try: 1 / 0\n"
        "    except ZeroDivisionError: logging.getLogger('scopeflow.x').exception('odd')\n"
        "    return kept(source)\n"
        "opening.describe = describe\n"
        "from scopeflow.cli.app import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(movie)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert "warning: some \\x1b[31mcolour" in lines
    assert "warning: a thread ended: KeyError: 'lost'" in lines
    assert "error: odd" in lines
    assert len(lines) == 3


# ------------------------------------------------------------------------- names that do something

NAMES = [
    "red\x1b[31m.tif",
    "line\nend.tif",
    "[bold]x[/red].tif",
    ":smile:\u202egnp.tif",
    "bell\x07\x9b0m.tif",
    "~.tif",
    os.fsdecode(b"latin\xe4.tif"),
]
HARMFUL = "\x1b\x07\x9b\u202e"


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_are_shown_and_not_obeyed(tmp_path, frames, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    try:
        tifffile.imwrite(path, frames, imagej=True, metadata={"axes": "TYX"})
    except OSError:
        pytest.skip("the file system knows no such names")
    shown = repr(name)[1:-1].removesuffix(".tif")
    for words in (
        ("inspect", path),
        ("inspect", tmp_path / ("missing " + name)),
        ("correct", path, tmp_path / "out", "--dry-run"),
        ("correct", path, path),
        ("preview", tmp_path / name, tmp_path / "no" / name),
    ):
        done = CliRunner(env={"COLUMNS": "400"}).invoke(app, list(map(str, words)))
        assert not isinstance(done.exception, (UnicodeError, ValueError)), done.exception
        text = done.stdout + done.stderr
        assert "Traceback" not in text
        assert "unexpected" not in text
        assert not set(HARMFUL) & set(text)
        if words[0] == "inspect" and "\n" not in name:
            assert shown in text


def test_tables_keep_their_rows(tmp_path, frames):
    path = tmp_path / "a\nb\x1b[2Jc.tif"
    tifffile.imwrite(path, frames, imagej=True, metadata={"axes": "TYX"})
    code, out, err = run_command("inspect", path)
    assert (code, err) == (0, "")
    assert r"a\nb\x1b[2Jc.tif" in out
