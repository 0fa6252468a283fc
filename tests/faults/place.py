"""Where workloads run: the same inputs and the same folder every time, in forked children."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.faults.workloads import LOG, contents, prepare, write_inputs
from tests.fuzz.server import Ended, ForkServer


class Place:
    """Inputs and the folder of a workload, the same for every run; what an undisturbed one made."""

    def __init__(self, folder: Path, server: ForkServer) -> None:
        self.inputs, self.root = folder / "inputs", folder / "root"
        self._server = server
        self._expected: dict[str, dict[str, str]] = {}
        write_inputs(self.inputs)

    def run(self, name: str, function: str = "tests.faults.workloads:run", *more: Any) -> Ended:
        """Do a workload, under a hook if one is named, and return how it ended."""
        words = (name, str(self.inputs), str(self.root), *more)
        return self._server.call(function, *words, folder=self.root.parent)

    def prepare(self, name: str) -> None:
        """Make the folder as it is before the first run."""
        prepare(name, self.inputs, self.root)

    def expected(self, name: str) -> dict[str, str]:
        """Return what an undisturbed run leaves."""
        if name not in self._expected:
            self.prepare(name)
            ended = self.run(name)
            assert ended.code == 0, ended.err
            self._expected[name] = contents(self.root)
        return self._expected[name]

    def completed(self) -> list[str]:
        """Return the pieces of work that were recorded since this was asked last."""
        log = self.root.parent / LOG
        names = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return names
