"""Displacements between recordings are never those of another backend of the same name."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from scopeflow import get_displacement, register_backend
from scopeflow.flow.backends import registry
from scopeflow.sessions.between import match_mark
from scopeflow.sessions.config import SessionConfig


@pytest.fixture
def mark(tmp_path):
    config = SessionConfig(root=tmp_path, pattern="*.tif", flow_backend="mine")
    return lambda: match_mark(config, np.zeros((4, 5, 1)))


@pytest.fixture(autouse=True)
def registered():
    yield
    registry._backends.pop("mine", None)


def shifted(by):
    return lambda **_: lambda fixed, moving, **_: get_displacement(fixed, moving) + by


def test_a_changed_backend_makes_other_records(mark):
    register_backend("mine", shifted(1))
    first = mark()
    assert mark() == first
    register_backend("mine", shifted(1))
    assert mark() == first
    register_backend("mine", shifted(2))
    assert mark() != first


def test_ours_are_known_by_their_name_as_before(tmp_path, monkeypatch):
    config = SessionConfig(root=tmp_path, pattern="*.tif", flow_backend="diso")
    before = match_mark(config)
    monkeypatch.setattr("scopeflow.sessions.between._PROCESS", "another process")
    assert match_mark(config) == before


def test_what_cannot_be_identified_is_not_kept_by_another_process(mark, monkeypatch):
    lock = threading.Lock()
    register_backend("mine", lambda **_: lambda fixed, moving, **_: lock)
    before = mark()
    assert mark() == before
    monkeypatch.setattr("scopeflow.sessions.between._PROCESS", "another process")
    assert mark() != before
