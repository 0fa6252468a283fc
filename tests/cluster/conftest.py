from __future__ import annotations

import pytest
from distributed import Client, LocalCluster


@pytest.fixture(scope="session")
def cluster_client():
    """Client of two worker processes with one thread each."""
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=False,  # it would silence the handlers that tests listen to
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
