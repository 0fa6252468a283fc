"""The registry of displacement methods."""

from __future__ import annotations

import pytest

from scopeflow.kernels import backends
from scopeflow.kernels.flow import get_displacement


def test_the_builtin_method_is_registered_and_takes_no_parameters():
    assert backends.list_backends() == ["flowreg"]
    assert backends.get_backend("flowreg")(anything=1) is get_displacement
    executors = backends.get_backend_executors("flowreg")
    executors.clear()
    assert "threading" in backends.get_backend_executors("flowreg")


def test_methods_can_be_added(monkeypatch):
    monkeypatch.setattr(backends, "_factories", dict(backends._factories))
    backends.register_backend("mine", lambda scale: lambda f, m: scale, ["sequential"])
    assert backends.is_backend_available("mine")
    assert backends.get_backend("mine")(scale=3)(None, None) == 3
    assert backends.get_backend_executors("mine") == {"sequential"}


def test_unknown_methods_are_named_with_those_that_exist():
    with pytest.raises(
        ValueError, match=r"Unknown flow backend: 'flowregg'.*\['flowreg'\].*Did you mean"
    ):
        backends.get_backend("flowregg")
