"""How a motion correction runs: workers, resume, memory; nothing here changes a result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scopeflow.errors import OptionsError, nearest_name
from scopeflow.strict.values import is_integer, shortened

PARALLELIZATIONS = ("sequential", "threading", "multiprocessing", "dask")
"""Names that `RegistrationConfig` accepts for ``parallelization``."""


@dataclass(frozen=True)
class RegistrationConfig:
    """How a recording is corrected; the result does not depend on it.

    Parameters
    ----------
    n_jobs : int
        Workers; -1 uses every processor this process may use.
    verbose : bool
        More log messages.
    parallelization : {"sequential", "threading", "multiprocessing", "dask"}, optional
        Where blocks are computed: in turn, in threads, in local processes, or on a dask cluster.
        None uses the active dask client, else threads.
    client : distributed.Client, optional
        Cluster to use.
    scheduler_address : str, optional
        Address of a running dask scheduler, such as ``tcp://host:8786``.
    resume : bool
        Keep blocks that an earlier run with equal settings has finished.
    wait : bool
        Wait for another run that writes to the same output, instead of refusing.
    block_length : int, optional
        Frames computed and written together; chosen from the memory when None.
    memory_limit_bytes : int, optional
        Memory one worker may use, bytes; its own limit when None.
    progress : bool, optional
        Show progress; decided by the terminal when None.

    Raises
    ------
    OptionsError
        For an unknown name, a number out of range, or settings that contradict each other.

    Examples
    --------
    >>> RegistrationConfig(n_jobs=4, parallelization="threading").n_jobs
    4
    """

    n_jobs: int = -1
    verbose: bool = False
    parallelization: str | None = None
    client: Any = field(default=None, kw_only=True, compare=False)
    scheduler_address: str | None = field(default=None, kw_only=True)
    resume: bool = field(default=True, kw_only=True)
    wait: bool = field(default=False, kw_only=True)
    block_length: int | None = field(default=None, kw_only=True)
    memory_limit_bytes: int | None = field(default=None, kw_only=True)
    progress: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not is_integer(self.n_jobs) or self.n_jobs == 0 or self.n_jobs < -1:
            raise OptionsError(
                f"n_jobs is {shortened(self.n_jobs)}; it must be a positive whole number, "
                "or -1 for every "
                "available processor"
            )
        name = self.parallelization
        if name is not None and name not in PARALLELIZATIONS:
            hint = nearest_name(str(name), PARALLELIZATIONS)
            raise OptionsError(
                f"parallelization is {shortened(name)}; it must be one of "
                f"{', '.join(PARALLELIZATIONS)}, or "
                f"None to choose automatically.{hint}"
            )
        for option in ("block_length", "memory_limit_bytes"):
            value = getattr(self, option)
            if value is not None and (not is_integer(value) or value < 1):
                raise OptionsError(
                    f"{option} is {shortened(value)}; it must be a positive whole number, or None"
                )
        for option in ("verbose", "resume", "wait"):
            if not isinstance(getattr(self, option), bool):
                raise OptionsError(
                    f"{option} is {shortened(getattr(self, option))}; it must be a boolean"
                )
        if self.progress is not None and not isinstance(self.progress, bool):
            raise OptionsError(
                f"progress is {shortened(self.progress)}; it must be a boolean or None"
            )
        self._need_one_place()

    def _need_one_place(self) -> None:
        cluster = [
            option
            for option in ("client", "scheduler_address")
            if getattr(self, option) is not None
        ]
        if len(cluster) == 2:
            raise OptionsError("client and scheduler_address are both given; give one of them")
        if cluster and self.parallelization not in (None, "dask"):
            raise OptionsError(
                f"{cluster[0]} is given, but parallelization is '{self.parallelization}'. "
                f"Use parallelization='dask', or leave {cluster[0]} out"
            )
