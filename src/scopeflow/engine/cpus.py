"""How many CPUs this process may use: affinity, control groups and the batch system's grant."""

from __future__ import annotations

import os

from dask.system import CPU_COUNT

_GRANTS = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "PBS_NCPUS", "NSLOTS", "LSB_DJOB_NUMPROC")


def available_cpus() -> int:
    """Return the number of CPUs that this process may use.

    The smallest of: CPUs of the machine, the process's affinity, the control-group quota, and the
    number that a batch system (SLURM, PBS, SGE, LSF) granted through its environment variable.

    Examples
    --------
    >>> available_cpus() >= 1
    True
    """
    counts = [int(CPU_COUNT)]
    for name in _GRANTS:
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            counts.append(int(value))
            break
    return max(1, min(counts))


def worker_count(n_jobs: int) -> int:
    """Return the number of workers for a request; -1 means all CPUs that may be used."""
    return available_cpus() if n_jobs == -1 else n_jobs
