from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

import scopeflow
from scopeflow.cli.app import app
from scopeflow.cli.settings import parse_assignments
from scopeflow.motion.options.of_options import OFOptions
from tests.cli.conftest import SOURCES, everything_below, plain, run_command


def test_help_names_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['scopeflow', '--help']\n"
        "from scopeflow.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code in (0, None)\n"
        "heavy = 'numba dask distributed xarray zarr scipy numpy h5py matplotlib'.split()\n"
        "print('IMPORTED', [name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("correct", "inspect", "demo"):
        assert re.search(rf"\b{command}\b", done.stdout)
    assert "IMPORTED []" in done.stdout


@pytest.mark.parametrize("command", ["correct", "inspect", "demo"])
def test_every_command_has_help(command):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0


def test_version_and_unknown_commands():
    assert run_command("--version")[:2] == (0, f"scopeflow {scopeflow.__version__}\n")
    code, _, err = run_command("corect")
    assert code == 2
    assert "corect" in err


def test_the_installed_command_is_ours():
    scripts = [
        entry for entry in entry_points(group="console_scripts") if entry.name == "scopeflow"
    ]
    if not scripts:
        pytest.skip("scopeflow is not installed here, only on the path")
    assert scripts[0].value == "scopeflow.cli.app:main"


def test_inspect_shows_facts_and_origins(tmp_path):
    path = tmp_path / "cells.ome.tif"
    tifffile.imwrite(
        path,
        np.zeros((3, 2, 16, 24), np.uint16),
        metadata={
            "axes": "TCYX",
            "PhysicalSizeX": 0.5,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": 0.25,
            "PhysicalSizeYUnit": "µm",
            "TimeIncrement": 0.2,
            "TimeIncrementUnit": "s",
            "Channel": {"Name": ["GCaMP", "tdTomato"]},
        },
    )
    before = everything_below(tmp_path)
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["inspect", str(path)])
    assert result.exit_code == 0, result.stderr
    printed = plain(result.stdout)
    for fact in (
        "frames 3",
        "16 × 24 px",
        "channels 2",
        "TCYX",
        "uint16",
        "0.25 × 0.5 µm",
        "0.2 s",
        "GCaMP, tdTomato",
    ):
        assert fact in printed
    assert "OME" in printed
    assert everything_below(tmp_path) == before


def test_inspect_of_nothing_is_one_line():
    code, out, err = run_command("inspect", "nowhere.tif")
    assert code == 1
    assert out == ""
    assert err.startswith("error: nowhere.tif")
    assert err.count("\n") == 1


def test_the_demo_reduces_the_error_and_runs_twice(tmp_path):
    for _ in range(2):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["demo", str(tmp_path / "demo")])
        assert result.exit_code == 0, result.stderr
        before, after = map(
            float,
            re.search(r"error +([\d.]+) px before, ([\d.]+) px after", result.stdout).groups(),
        )
        assert before > 1
        assert after < before / 3
    picture = (tmp_path / "demo" / "before_after.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_values_of_set_have_the_types_of_options():
    values = parse_assignments(
        ["a_data=[0.4, 0.5]", "eta=8e-1", "save_w=false", "cc_hw=64", "weight=[1, 2]"]
    )
    assert values == {
        "a_data": [0.4, 0.5],
        "eta": 0.8,
        "save_w": False,
        "cc_hw": 64,
        "weight": [1, 2],
    }
    assert OFOptions(**values).eta == 0.8


def test_every_public_name_exists_and_is_listed():
    for name in scopeflow.__all__:
        assert getattr(scopeflow, name) is not None
    assert set(scopeflow.__all__) <= set(dir(scopeflow))
    assert {"OFOptions", "__version__"} <= set(scopeflow.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = scopeflow.no_such_name
