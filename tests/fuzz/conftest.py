from __future__ import annotations

import os

import pytest

from tests.fuzz.campaign import prepare
from tests.fuzz.server import ForkServer

if not hasattr(os, "fork"):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz").resolve()


@pytest.fixture(scope="session")
def seeds(scratch, server):
    return prepare(scratch, server)


@pytest.fixture(scope="session")
def server(scratch):
    with ForkServer(scratch) as running:
        yield running
