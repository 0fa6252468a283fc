"""The registry of displacement methods."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import scopeflow
from scopeflow.backends import ENTRY_POINTS, Backend
from scopeflow.flow.backends import registry as backends
from scopeflow.flow.flow import get_displacement


@pytest.fixture
def registry(monkeypatch):
    """A copy of the registry that the test may change."""
    monkeypatch.setattr(backends, "_backends", dict(backends._backends))
    return backends


@pytest.fixture
def offer(monkeypatch, tmp_path):
    """Install a package, as files on the path, that offers backends by entry points."""

    def install(package, entries, source=None):
        site = tmp_path / package
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINTS}]", *lines, ""]))
        if source is not None:
            (site / f"{package}.py").write_text(source)
        monkeypatch.syspath_prepend(site)
        forget()

    def forget():
        backends._offered.cache_clear()
        backends._discovered.cache_clear()

    yield install
    monkeypatch.undo()
    forget()


def test_the_builtin_method_is_registered_and_takes_no_parameters():
    assert {"flowreg", "diso"} <= set(scopeflow.list_backends())
    assert backends.get_backend("flowreg")(anything=1) is get_displacement
    executors = backends.get_backend_executors("flowreg")
    executors.clear()
    assert "threading" in backends.get_backend_executors("flowreg")
    if backends.is_backend_available("flowreg_torch"):
        assert backends.get_backend_executors("flowreg_torch") == {"sequential"}


def test_methods_can_be_added(registry):
    scopeflow.register_backend("mine", lambda scale: lambda f, m: scale, ["sequential"])
    assert scopeflow.is_backend_available("mine")
    assert scopeflow.get_backend("mine")(scale=3)(None, None) == 3
    assert registry.get_backend_executors("mine") == {"sequential"}


def test_unknown_methods_are_named_with_those_that_exist():
    with pytest.raises(
        ValueError, match=r"Unknown flow backend: 'flowregg'.*\[.*'flowreg'.*\].*Did you mean"
    ):
        backends.get_backend("flowregg")


def test_a_missing_package_is_named_with_the_way_to_get_it(registry):
    registry._backends["far"] = Backend(
        "scopeflow.far:make", package="no_such_package", install="scopeflow[far]"
    )
    assert not registry.is_backend_available("far")
    with pytest.raises(ValueError, match=r"needs the package no_such_package.*scopeflow\[far\]"):
        registry.get_backend("far")
    with pytest.raises(ValueError, match=r"'flowreg_cuda' is not part.*'flowreg_torch'"):
        registry.get_backend("flowreg_cuda")


def test_installed_packages_offer_backends_which_are_imported_when_asked_for(offer):
    offer(
        "acme_flow",
        {"acme": "acme_flow:make", "acme_far": "acme_flow:FAR", "acme_slow": "acme_flow:SLOW"},
        """
from scopeflow.backends import Backend

def make(scale=1):
    return lambda fixed, moving, **options: scale

FAR = Backend("acme_flow_device:make", package="no_such_package", install="acme-flow[far]")
SLOW = Backend("acme_flow_device:make", executors=frozenset({"sequential"}))
""",
    )
    assert "acme_flow" not in sys.modules
    assert {"acme", "acme_slow"} <= set(scopeflow.list_backends())
    assert scopeflow.get_backend("acme")(scale=3)(None, None) == 3
    assert backends.get_backend_executors("acme") == backends.ALL_EXECUTORS
    assert backends.get_backend_executors("acme_slow") == {"sequential"}
    assert not scopeflow.is_backend_available("acme_far")
    with pytest.raises(ValueError, match=r"needs the package no_such_package.*'acme-flow\[far\]'"):
        scopeflow.get_backend("acme_far")
    with pytest.raises(ValueError, match="Did you mean 'acme_slow'"):
        scopeflow.get_backend("acme_slaw")
    with pytest.raises(ValueError, match="acme_flow_device:make cannot be imported: "):
        scopeflow.get_backend("acme_slow")()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("broken_flow:make", "ZeroDivisionError: division by zero"),
        ("no_such_module:make", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("json:no_such_name", "AttributeError: .*no_such_name"),
        ("json:__name__", "json:__name__ is a str; a scopeflow.backends.Backend or a factory"),
    ],
)
def test_a_broken_entry_point_is_named_with_package_and_reason(offer, caplog, value, reason):
    offer("broken_flow", {"broken": value}, "1 / 0")
    with pytest.raises(
        ValueError, match=rf"'broken' of the package broken_flow 1.0 cannot be loaded: {reason}"
    ):
        scopeflow.get_backend("broken")
    assert not scopeflow.is_backend_available("broken")
    assert "broken_flow 1.0" in caplog.text
    assert scopeflow.is_backend_available("flowreg")


def test_a_name_is_offered_once_and_hidden_by_what_is_registered(offer, registry):
    offer("one_flow", {"twice": "json:loads", "diso": "json:loads"})
    offer("two_flow", {"twice": "json:loads"})
    with pytest.raises(ValueError, match=r"several packages: one_flow 1\.0, two_flow 1\.0"):
        scopeflow.get_backend("twice")
    assert scopeflow.get_backend("diso")().get_params()["preset"] == 2
    scopeflow.register_backend("twice", lambda: get_displacement)
    assert scopeflow.get_backend("twice")() is get_displacement


def test_the_torch_part_is_offered_by_our_own_package_and_torch_is_not_imported(offer):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    offer("scopeflow", project["entry-points"][ENTRY_POINTS])
    program = f"""
import sys
sys.path[:] = {sys.path!r}
import importlib.util, scopeflow
from scopeflow.backends import OptionsError, get_backend_executors
has_torch = importlib.util.find_spec("torch") is not None
assert scopeflow.is_backend_available("flowreg_torch") is has_torch
if has_torch:
    assert get_backend_executors("flowreg_torch") == {{"sequential"}}
    assert "torch" not in sys.modules
    assert scopeflow.get_backend("flowreg_torch")(device="cpu").device == "cpu"
else:
    try:
        scopeflow.get_backend("flowreg_torch")
    except OptionsError as error:
        assert "needs the package torch, which is not installed" in str(error), error
        assert "pip install 'scopeflow[torch]'" in str(error), error
    else:
        raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
