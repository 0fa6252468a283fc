"""Which modules are not looked into for examples: those whose optional package is missing."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = []
if importlib.util.find_spec("torch") is None:
    collect_ignore_glob.append("src/scopeflow_torch/[!_]*.py")
