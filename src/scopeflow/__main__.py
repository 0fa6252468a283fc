"""``python -m scopeflow``: the same as the command ``scopeflow``."""

from __future__ import annotations

from scopeflow.cli.app import main

if __name__ == "__main__":
    main()
