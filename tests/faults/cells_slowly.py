"""Run the cell workflow in a process of its own that kills itself at a chosen record."""

from __future__ import annotations

import os
import signal
import sys

from scopeflow.cells.workflow import run_workflow
from scopeflow.engine.ledger import Ledger
from tests.cell_movies import cell_config

if __name__ == "__main__":
    source, output, prefix, workers = sys.argv[1:5]
    complete = Ledger.complete

    def complete_or_die(self, name, *args, **kwargs):
        # The work is on the disk, its record is not.
        if prefix and name.startswith(prefix):
            os.kill(os.getpid(), signal.SIGKILL)
        complete(self, name, *args, **kwargs)

    Ledger.complete = complete_or_die
    sys.exit(0 if run_workflow(source, output, cell_config(n_workers=int(workers))) else 1)
