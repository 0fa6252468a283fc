"""The private cluster of a run: closed to other machines and to other users."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import psutil

from scopeflow.engine.executor import local_cluster


def test_nobody_else_gets_in(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = psutil.Process()
    before = {one.laddr for one in own.net_connections("inet")}
    with local_cluster(1) as client:
        processes = [own, *own.children(recursive=True)]
        listening = [
            connection.laddr
            for process in processes
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN and connection.laddr not in before
        ]
        assert len(listening) >= 2  # scheduler and worker, at least
        assert {address.ip for address in listening} == {"127.0.0.1"}
        (worker,) = client.scheduler_info()["workers"].values()
        assert Path(worker["local_directory"]).is_relative_to(tmp_path)
        (scratch,) = tmp_path.iterdir()
        assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []
