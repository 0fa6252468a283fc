"""Module paths and names of other programs, whether a file is behind them or a row of a table."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from scopeflow.compat._names import NAMES

ROOT = "scopeflow.compat.pyflowreg"


def public_names():
    lines = Path(__file__).with_name("public_names.txt").read_text(encoding="utf-8").splitlines()
    parts = (line.partition(":") for line in lines if not line.startswith("#"))
    return {module: names.split() for module, _, names in parts}


def fresh(*arguments):
    """Run Python in a process that has imported nothing; return what it prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", public_names())
def test_every_path_has_its_names(module):
    found = importlib.import_module(module)
    names = public_names()[module]
    assert set(names) <= set(dir(found))
    for name in names:
        # A function, not the module of the same name that is imported beside it.
        assert not inspect.ismodule(getattr(found, name)) or name == "workflow"
    assert found.__doc__


def test_every_path_can_be_imported_first():
    # One process for each would cost minutes; those of the table forget what they have imported.
    paths = [path for path in public_names() if path.startswith("scopeflow.compat.")]
    fresh(
        "-c",
        "import importlib, sys\n"
        f"for path in {paths}:\n"
        "    for name in [n for n in sys.modules if n.startswith('scopeflow.compat')]:\n"
        "        del sys.modules[name]\n"
        "    importlib.import_module(path)\n",
    )


def test_a_new_process_unpickles_a_class_of_a_path_without_a_file():
    pickles = [
        f"c{ROOT}.{path}\n.".encode()
        for path in (
            "util.io.hdf5\nHDF5FileReader",
            "session.config\nSessionConfig",
            "motion_correction.parallelization.threading\nThreadingExecutor",
            "session.stage1_compensate\nrun_stage1",
        )
    ]
    for data in pickles:
        out = fresh("-c", f"import pickle; print(pickle.loads({data!r}).__name__)")
        assert out.split()[-1].encode() in data


def test_submodules_are_attributes_of_their_packages():
    fresh(
        "-c",
        f"import {ROOT} as p\n"
        "assert callable(p.session.stage1_compensate.run_stage1)\n"
        "assert callable(p.core.warping.align_sequence)\n"
        "assert p.util.io.tiff.TIFFFileReader\n"
        "assert p.motion_correction.parallelization.base.BaseExecutor\n"
        "assert p._runtime.RuntimeContext\n"
        "assert not hasattr(p, 'nothing') and not hasattr(p.session, 'stage4')\n",
    )


def test_functions_stay_when_the_module_of_their_name_is_imported():
    fresh(
        "-c",
        f"from {ROOT}.motion_correction.compensate_arr import compensate_pair\n"
        f"from {ROOT}.motion_correction import compensate_arr, compensate_recording\n"
        f"import {ROOT}.motion_correction.compensate_arr\n"
        f"import {ROOT}.motion_correction as m\n"
        "assert m.compensate_arr is compensate_arr is not None and callable(compensate_arr)\n"
        "assert callable(compensate_recording)\n",
    )


def test_modules_are_listed_and_can_be_loaded_again():
    # In a process of its own: classes that are made again are others than those of the tests.
    out = fresh(
        "-c",
        "import importlib, pkgutil, sys, scopeflow.compat as c\n"
        "for found in pkgutil.walk_packages(c.__path__, c.__name__ + '.'):\n"
        "    again = importlib.reload(importlib.import_module(found.name))\n"
        "    print(found.name, int(found.ispkg == hasattr(again, '__path__')))\n",
    )
    listed = dict(line.split() for line in out.splitlines())
    wanted = {module for module in public_names() if module.startswith("scopeflow.compat.")}
    assert wanted <= {*listed}
    assert {*listed.values()} == {"1"}


def test_a_module_without_a_file_runs_as_a_script_and_shows_its_text():
    fresh("-m", f"{ROOT}.session.stage1_compensate")
    assert "names only" in fresh("-m", "pydoc", f"{ROOT}.core.optical_flow")
    module = importlib.import_module(f"{ROOT}.core.optical_flow")
    assert "share(globals())" in module.__loader__.get_source(module.__name__)


def test_names_come_from_below():
    above = ("scopeflow.cli", "scopeflow.testing", "scopeflow.warm_up", "scopeflow.compat")
    for program, modules in NAMES.items():
        for sources in modules.values():
            for source in sources:
                assert source.startswith(".") or not source.startswith(above), (program, source)


def test_nothing_of_compat_is_imported_with_the_package():
    out = fresh("-c", "import scopeflow, sys; scopeflow.OFOptions; print(*sys.modules)")
    assert not [name for name in out.split() if name.startswith("scopeflow.compat")]


def test_no_file_hides_a_row_of_the_table():
    for program, modules in NAMES.items():
        for path in modules:
            module = importlib.import_module(program + path)
            assert "share(globals())" in module.__loader__.get_source(module.__name__), path
