"""How much memory this process may use: the machine, control groups and the process's limit.

The same answer as ``distributed.system.MEMORY_LIMIT``, whose import is a fifth of the start of a
command that needs no cluster.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

# Hard and soft limits of control groups, version 1 and 2.
_GROUP_LIMITS = (
    "memory/memory.limit_in_bytes",
    "memory/memory.soft_limit_in_bytes",
    "memory.max",
    "memory.high",
    "memory.low",
)


def memory_limit(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of bytes that this process may use.

    Returns: the smallest of: memory of the machine, limits of its control group, its limit of
        resident memory; bytes.

    Examples
    --------
    >>> memory_limit() > 0
    True
    """
    try:
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, OSError, ValueError):  # Windows
        from distributed.system import MEMORY_LIMIT

        return int(MEMORY_LIMIT)
    for name in _GROUP_LIMITS:
        # Absent, or "max".
        with contextlib.suppress(OSError, ValueError):
            limits.append(int((groups / name).read_text()))
    import resource

    limits.append(resource.getrlimit(resource.RLIMIT_RSS)[1])
    # Zero and negative values stand for no limit.
    return min(limit for limit in limits if limit > 0)
