"""The registry of displacement methods."""

from __future__ import annotations

import pytest

import scopeflow
from scopeflow.flow.backends import registry as backends
from scopeflow.flow.flow import get_displacement


@pytest.fixture
def registry(monkeypatch):
    """A copy of the registry that the test may change."""
    monkeypatch.setattr(backends, "_factories", dict(backends._factories))
    monkeypatch.setattr(backends, "_delivered", dict(backends._delivered))
    return backends


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
    registry._delivered["far"] = backends._Delivered(
        "no_such_package", "far", "scopeflow.warm_up.methods.far", backends.ALL_EXECUTORS
    )
    assert not registry.is_backend_available("far")
    with pytest.raises(ValueError, match=r"needs the package no_such_package.*scopeflow\[far\]"):
        registry.get_backend("far")
    with pytest.raises(ValueError, match=r"'flowreg_cuda' is not part.*'flowreg_torch'"):
        registry.get_backend("flowreg_cuda")
