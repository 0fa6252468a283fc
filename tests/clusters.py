"""Real clusters of this machine for tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from distributed import Client, LocalCluster


@contextlib.contextmanager
def two_workers(silence_logs: int | bool = False) -> Iterator[Client]:
    """Client of two worker processes with one thread each, which end with the block.

    Silenced logs also silence the handlers that tests listen to.
    """
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=silence_logs,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
