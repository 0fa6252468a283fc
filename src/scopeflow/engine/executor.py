"""Run the tasks of a graph somewhere and hand over each result as soon as it is there.

One graph, four places: this thread, dask threads, a private cluster of processes, or a cluster that
the user gives. The results do not depend on the place. `distributed` takes long to import, so only
the places that need it do.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import cloudpickle
import dask
from dask.delayed import Delayed
from dask.local import get_sync
from dask.threaded import get as get_threaded

from scopeflow.compiled.gateway import compile_all
from scopeflow.engine.cpus import worker_count
from scopeflow.engine.memory import memory_limit
from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import OptionsError

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

OnResult = Callable[[int, Any], None]

_CLUSTER_SETTINGS = {
    # Tasks are idempotent, so losing workers often is no reason to give up.
    "distributed.scheduler.allowed-failures": 10,
    # One numba thread for each task; dask threads are the parallelism.
    "distributed.nanny.pre-spawn-environ.NUMBA_NUM_THREADS": "1",
    "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": "1",
    # Lost workers are dealt with, errors of tasks come back; tracebacks of workers help nobody.
    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
}


@dataclass(frozen=True)
class Executor(ABC):
    """A place where tasks run.

    `name`: ``sequential``, ``threading``, ``multiprocessing`` or ``dask``.
    """

    name: str
    n_workers: int

    shares_memory: ClassVar[bool]
    """Whether tasks can write into arrays of this process."""

    @property
    def shares_files(self) -> bool:
        """Whether tasks run in processes of this machine, that can map the same files."""
        return self.name == "multiprocessing"

    @abstractmethod
    def memory_per_worker(self) -> tuple[int, int] | None:
        """Return (bytes, threads) of the tightest worker, or None where there is no limit."""

    @abstractmethod
    def check_functions(self, functions: Mapping[str, Any]) -> None:
        """Refuse functions of the user, by the name of their option, that cannot travel to workers.

        Raises OptionsError: names the option and what cannot be pickled.
        """

    def run(self, tasks: Sequence[Delayed], on_result: OnResult) -> None:
        """Compute tasks; call ``on_result(position, value)`` in this thread as each finishes.

        Raises the first exception of a task or of `on_result`; unfinished tasks are cancelled.
        """
        if tasks:
            self._run(tasks, on_result)

    def compute(self, task: Any) -> Any:
        """Compute one task and return its value."""
        values: list[Any] = []
        self.run([task], lambda _, value: values.append(value))
        return values[0]

    @abstractmethod
    def _run(self, tasks: Sequence[Delayed], on_result: OnResult) -> None:
        """Compute at least one task."""


@dataclass(frozen=True)
class LocalExecutor(Executor):
    """One process: one thread, or the threads of `pool`, which all calls of :meth:`run` share."""

    pool: ThreadPoolExecutor | None = None

    shares_memory = True

    def memory_per_worker(self) -> tuple[int, int] | None:
        """Return the memory that this process may use."""
        return memory_limit(), self.n_workers

    def check_functions(self, functions: Mapping[str, Any]) -> None:
        """Accept all: nothing travels."""

    def _run(self, tasks: Sequence[Delayed], on_result: OnResult) -> None:
        positions: dict[Any, list[int]] = {}
        for position, task in enumerate(tasks):
            positions.setdefault(task.key, []).append(position)

        def after_task(key: Any, value: Any, *_: Any) -> None:
            for position in positions.get(key, ()):
                on_result(position, value)

        # As functions: dask imports `distributed` to look a scheduler up by its name.
        scheduler = get_sync if self.n_workers == 1 else get_threaded
        # Callbacks of this call only: those of `dask.callbacks` are shared by all threads, and the
        # recordings of a session are computed from several.
        dask.compute(
            *tasks,
            scheduler=scheduler,
            num_workers=self.n_workers,
            pool=self.pool,
            callbacks=[(None, None, None, after_task, None)],
        )


@dataclass(frozen=True)
class ClusterExecutor(Executor):
    """A dask cluster, of this machine or of many."""

    client: Client

    shares_memory = False

    def memory_per_worker(self) -> tuple[int, int] | None:
        """Return (bytes, threads) of the tightest worker, or None where there is no limit."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        limits = [
            (info["memory_limit"], info["nthreads"]) for info in workers if info["memory_limit"]
        ]
        return min(limits, key=lambda pair: pair[0] / pair[1]) if limits else None

    def check_functions(self, functions: Mapping[str, Any]) -> None:
        """Refuse functions that cannot be pickled."""
        for name, function in functions.items():
            try:
                cloudpickle.dumps(function)
            except Exception as error:  # whatever the user's objects raise
                raise OptionsError(
                    f"{name} cannot be sent to workers in other processes: {error}. Make what it "
                    "needs (files, locks, devices) inside the function, or give "
                    "get_displacement_factory; or use parallelization='threading'"
                ) from error

    def _run(self, tasks: Sequence[Delayed], on_result: OnResult) -> None:
        from distributed import as_completed

        # Fusing tasks would drop the priorities of the spine.
        with dask.config.set({"optimization.fuse.active": False}):
            futures: list[Future] = self.client.compute(list(tasks), retries=2)
        positions = {future.key: position for position, future in enumerate(futures)}
        try:
            for future, value in as_completed(futures, loop=self.client.loop, with_results=True):
                on_result(positions[future.key], value)
                future.release()
        except BaseException:
            self.client.cancel(futures, force=True)
            raise


def active_client() -> Client | None:
    """Return the client that is active here; None inside of a task and where there is none."""
    if "distributed" not in sys.modules:
        return None  # nobody here can have made a client
    from distributed import get_client
    from distributed.worker import thread_state

    # Inside a task, waiting for other tasks would need to secede; such callers use threads.
    if getattr(thread_state, "execution_state", None) is not None:
        return None
    try:
        return get_client()
    except ValueError:
        return None


def runs_here(config: RegistrationConfig) -> bool:
    """Return whether tasks run on this machine, as far as a configuration tells."""
    if config.client is not None or config.scheduler_address is not None:
        return False
    wanted = config.parallelization
    return wanted != "dask" and not (wanted is None and active_client() is not None)


@contextlib.contextmanager
def open_executor(config: RegistrationConfig) -> Iterator[Executor]:
    """Open the place that a configuration names; close what was opened here.

    `config`: ``client`` or ``scheduler_address`` if given, else ``parallelization``; None takes the
        active client if there is one, else dask threads.
    Raises OptionsError: if a cluster is asked for and none is there.
    """
    wanted = config.parallelization
    client = config.client
    if client is None and config.scheduler_address is not None:
        with _connected(config.scheduler_address) as given:
            yield _on(given)
        return
    if client is None and wanted in (None, "dask"):
        client = active_client()
        if client is None and wanted == "dask":
            raise OptionsError(
                "parallelization='dask' needs a cluster and there is no active client; create a "
                "distributed.Client first, pass client=..., or give scheduler_address='tcp://...'"
            )
    if client is not None and wanted in (None, "dask"):
        yield _on(client)
    elif wanted == "multiprocessing":
        with local_cluster(worker_count(config.n_jobs)) as private:
            yield ClusterExecutor("multiprocessing", worker_count(config.n_jobs), private)
    elif wanted == "sequential":
        yield LocalExecutor("sequential", 1)
    else:
        if wanted is None:
            logger.info("No dask client is active: using threads of this process.")
        n_workers = worker_count(config.n_jobs)
        with ThreadPoolExecutor(n_workers, thread_name_prefix="scopeflow") as pool:
            yield LocalExecutor("threading", n_workers, pool)


def _connected(address: str) -> Client:
    from distributed import Client

    try:
        return Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OptionsError(
            f"no dask scheduler answers at {address} ({error}). Check that it runs, that the "
            "address is complete (tcp://host:8786), and that this machine can reach it"
        ) from error


def _on(client: Client) -> ClusterExecutor:
    threads = sum(client.nthreads().values())
    if client.dashboard_link:
        logger.info("Dask dashboard: %s", client.dashboard_link)
    return ClusterExecutor("dask", max(1, threads), client)


@contextlib.contextmanager
def _hidden_main_module() -> Iterator[None]:
    """Keep starting workers from running the user's script again.

    New processes import the main script first, so a script without an ``if __name__ ==
    "__main__"`` guard would start clusters without end. Nothing of it is needed there: functions
    defined in a script travel by value.
    """
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {
        name: main.__dict__[name] for name in ("__file__", "__spec__") if name in vars(main)
    }
    main.__dict__.pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(hidden)


@contextlib.contextmanager
def local_cluster(n_workers: int) -> Iterator[Client]:
    """Start a private cluster of processes on this machine and stop it afterwards.

    `n_workers`: tasks that run at the same time. Up to 8 processes have one thread each; beyond
        that, processes of 4 threads share one reference and one page cache.
    """
    from distributed import Client, LocalCluster

    threads = 1 if n_workers <= 8 else 4
    # Compiled here once, the kernels come from the cache in every worker.
    compile_all()
    with (
        # What workers put aside is read as code; dask's own folder has a name that others know.
        tempfile.TemporaryDirectory(
            prefix="scopeflow-workers-", ignore_cleanup_errors=True
        ) as scratch,
        dask.config.set({**_CLUSTER_SETTINGS, "temporary-directory": scratch}),
        _hidden_main_module(),
        LocalCluster(
            n_workers=-(-n_workers // threads),
            threads_per_worker=threads,
            processes=True,
            # Whoever reaches it can run code as the user.
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
