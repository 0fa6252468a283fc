from __future__ import annotations

import pytest

from tests.clusters import two_workers


@pytest.fixture(scope="session")
def cluster_client():
    """Client of two worker processes with one thread each."""
    with two_workers() as client:
        yield client
