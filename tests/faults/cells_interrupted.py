"""Run ``scopeflow cells run`` and send this process a signal when a chosen piece of work is done.

Usage: ``python cells_interrupted.py SIGNAL RECORD ARGUMENTS…``. RECORD is the beginning of the name
of the record of the piece, which is on the disk by then; its record is not.
"""

from __future__ import annotations

import os
import sys
import time

from scopeflow.cli.app import main
from scopeflow.engine.ledger import Ledger

if __name__ == "__main__":
    number, record = int(sys.argv[1]), sys.argv[2]
    complete = Ledger.complete
    sent = []

    def complete_after_signal(self, name, *args, **kwargs):
        if number and not sent and name.startswith(record):
            sent.append(name)
            os.kill(os.getpid(), number)
            time.sleep(0.3)  # until the main thread has noticed
        complete(self, name, *args, **kwargs)

    Ledger.complete = complete_after_signal
    sys.argv = ["scopeflow", "cells", "run", *sys.argv[3:]]
    main()
