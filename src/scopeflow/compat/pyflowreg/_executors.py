"""Executors of one batch of frames in memory: this thread, threads, or processes, all by dask."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
from dask.delayed import delayed
from numpy.typing import NDArray

from scopeflow.compat.pyflowreg._batch import BatchArrays, register_batch_frames
from scopeflow.compat.pyflowreg._context import RuntimeContext
from scopeflow.engine.executor import ClusterExecutor, Executor, LocalExecutor, local_cluster
from scopeflow.errors import InputError, OptionsError
from scopeflow.io.shared import SharedArray, shared_folder

_BLOCK = 4


@dataclass(frozen=True)
class _SharedBatch:
    """The arrays of a batch in shared memory: what travels to workers is their names."""

    batch: SharedArray
    processed: SharedArray
    reference_raw: SharedArray
    reference_processed: SharedArray
    start: SharedArray
    registered: SharedArray
    flow: SharedArray

    def open(self) -> BatchArrays:
        written = ("registered", "flow")
        return BatchArrays(
            **{
                part.name: getattr(self, part.name).open("r+" if part.name in written else "r")
                for part in fields(self)
            }
        )


_Prepared = tuple[
    BatchArrays | _SharedBatch, Callable[[], tuple[NDArray[Any], NDArray[np.float32]]]
]
"""What tasks get, and what returns the results after them."""


def _run_block(arrays: BatchArrays | _SharedBatch, *arguments: Any) -> None:
    opened = arrays.open() if isinstance(arrays, _SharedBatch) else arrays
    register_batch_frames(opened, *arguments)


class BaseExecutor:
    """Registers the frames of a batch; a context manager.

    Parameters
    ----------
    n_workers : int, optional
        Frames at the same time; ``RuntimeContext.get("max_workers")`` when None.

    Attributes
    ----------
    name : str
        Name in :class:`RuntimeContext`.
    n_workers : int
        Frames at the same time.
    """

    name: ClassVar[str] = "base"
    description: ClassVar[str] = ""
    features: ClassVar[tuple[str, ...]] = ()

    def __init__(self, n_workers: int | None = None) -> None:
        if n_workers is None:
            n_workers = int(RuntimeContext.get("max_workers"))
        if n_workers < 1:
            raise OptionsError(f"n_workers is {n_workers}; it must be 1 or more")
        self.n_workers = n_workers
        self._place: Executor | None = None
        self._open = contextlib.ExitStack()

    @classmethod
    def register(cls) -> None:
        """Make the executor known to :class:`RuntimeContext`."""
        RuntimeContext.register_parallelization_executor(cls.name, cls)

    def setup(self) -> None:
        """Start the workers; the first batch does it, too."""
        if self._place is None:
            self._place = self._start(self._open)

    def cleanup(self) -> None:
        """Stop the workers; a later batch starts them again."""
        self._open.close()
        self._place = None

    def __enter__(self) -> Self:
        self.setup()
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    def _start(self, opened: contextlib.ExitStack) -> Executor:
        raise NotImplementedError

    def get_info(self) -> dict[str, Any]:
        """Return name, type, number of workers and a description."""
        info = {
            "name": self.name,
            "type": type(self).__name__,
            "n_workers": self.n_workers,
            "parallel": self.name != "sequential",
            "description": self.description.format(self.n_workers),
        }
        return {**info, "features": list(self.features)} if self.features else info

    def process_batch(
        self,
        batch: NDArray[Any],
        batch_proc: NDArray[Any],
        reference_raw: NDArray[Any],
        reference_proc: NDArray[Any],
        w_init: NDArray[Any],
        get_displacement_func: Callable[..., NDArray[Any]],
        imregister_func: Callable[..., NDArray[Any]],
        interpolation_method: str = "cubic",
        progress_callback: Callable[[int], None] | None = None,
        **kwargs: Any,
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Solve and register all frames of a batch.

        Parameters
        ----------
        batch, batch_proc : ndarray, shape (T, H, W, C) or (T, H, W)
            Raw frames, and the same as the solver sees them.
        reference_raw, reference_proc : ndarray, shape (H, W, C) or (H, W)
            The reference, likewise.
        w_init : ndarray, shape (H, W, 2)
            Initial displacement, pixels.
        get_displacement_func : callable
            ``f(reference, moving, *, uv, **flow_params) -> (H, W, 2)``; every executor uses it.
        imregister_func : callable
            ``f(moving, u, v, fill, interpolation_method=...)``.
        interpolation_method : str, optional
            How frames are resampled.
        progress_callback : callable, optional
            ``f(n)`` after n more frames.
        **kwargs
            ``flow_params``, a dict of arguments for `get_displacement_func`.

        Returns
        -------
        registered : ndarray, shape (T, H, W, C)
            In the dtype of `batch`, rounded half to even and clipped.
        flow : ndarray of float32, shape (T, H, W, 2)
            Displacements, pixels.

        Raises
        ------
        InputError
            If the shapes do not fit together.
        """
        parts = _normalized(batch, batch_proc, reference_raw, reference_proc, w_init)
        self.setup()
        assert self._place is not None
        with self._arrays(parts) as (arrays, finish):
            ranges = [
                (start, min(start + _BLOCK, len(parts["batch"])))
                for start in range(0, len(parts["batch"]), _BLOCK)
            ]
            tasks = [
                delayed(_run_block, pure=False)(
                    arrays,
                    *frames,
                    get_displacement_func,
                    imregister_func,
                    interpolation_method,
                    kwargs.get("flow_params", {}),
                )
                for frames in ranges
            ]

            def on_result(position: int, _: Any) -> None:
                start, stop = ranges[position]
                if progress_callback is not None:
                    for count in self._counts(stop - start):
                        progress_callback(count)

            self._place.run(tasks, on_result)
            return finish()

    def _counts(self, frames: int) -> list[int]:
        return [1] * frames

    @contextlib.contextmanager
    def _arrays(self, parts: dict[str, NDArray[Any]]) -> Iterator[_Prepared]:
        frames, height, width, _ = parts["batch"].shape
        registered = np.empty_like(parts["batch"])
        flow = np.empty((frames, height, width, 2), np.float32)
        arrays = BatchArrays(**parts, registered=registered, flow=flow)
        yield arrays, lambda: (registered, flow)


class SequentialExecutor(BaseExecutor):
    """One frame after the other, in this thread; `n_workers` is always 1."""

    name = "sequential"
    description = "Sequential, one frame after the other"

    def __init__(self, n_workers: int | None = None) -> None:  # noqa: ARG002 - ignored on purpose
        super().__init__(1)

    def _start(self, opened: contextlib.ExitStack) -> Executor:  # noqa: ARG002
        return LocalExecutor(self.name, 1)


class ThreadingExecutor(BaseExecutor):
    """Threads of this process; the solver does not hold the interpreter lock."""

    name = "threading"
    description = "Threads of one process, {} workers"
    features = ("zero-copy", "true-parallelism")

    def _start(self, opened: contextlib.ExitStack) -> Executor:
        pool = opened.enter_context(ThreadPoolExecutor(self.n_workers))
        return LocalExecutor(self.name, self.n_workers, pool)


class MultiprocessingExecutor(BaseExecutor):
    """Processes of this machine, a private dask cluster; arrays are in shared memory.

    The cluster is started once for all batches. Inputs are mapped by every process, so that memory
    holds them once, and processes write results where this one reads them.
    """

    name = "multiprocessing"
    description = "Multiprocessing with shared memory, {} workers"
    features = ("zero-copy", "shared-memory", "true-parallelism")

    def _start(self, opened: contextlib.ExitStack) -> Executor:
        client = opened.enter_context(local_cluster(self.n_workers))
        return ClusterExecutor(self.name, self.n_workers, client)

    def _counts(self, frames: int) -> list[int]:
        return [frames]

    @contextlib.contextmanager
    def _arrays(self, parts: dict[str, NDArray[Any]]) -> Iterator[_Prepared]:
        frames, height, width, _ = parts["batch"].shape
        size = sum(array.nbytes for array in parts.values()) + parts["batch"].nbytes
        with shared_folder(size + 8 * frames * height * width) as folder:
            shared = {name: folder.put(name, array) for name, array in parts.items()}
            outputs = {
                "registered": folder.empty(
                    "registered", parts["batch"].shape, parts["batch"].dtype
                ),
                "flow": folder.empty("flow", (frames, height, width, 2), np.float32),
            }

            def finish() -> tuple[NDArray[Any], NDArray[np.float32]]:
                # Copied: the folder goes away.
                return outputs["registered"].open().copy(), outputs["flow"].open().copy()

            yield _SharedBatch(**shared, **outputs), finish


def _normalized(
    batch: NDArray[Any],
    processed: NDArray[Any],
    reference_raw: NDArray[Any],
    reference_processed: NDArray[Any],
    start: NDArray[Any],
) -> dict[str, NDArray[Any]]:
    batch = np.ascontiguousarray(batch)
    parts = {
        "batch": batch[..., None] if batch.ndim == 3 else batch,
        "processed": _with_channels(processed, 4),
        "reference_raw": _with_channels(reference_raw, 3),
        "reference_processed": _with_channels(reference_processed, 3),
        "start": np.ascontiguousarray(start, np.float32),
    }
    shape = parts["batch"].shape
    if len(shape) != 4:
        raise InputError(f"batch has shape {batch.shape}; needed is (T, H, W, C) or (T, H, W)")
    needed = {
        "processed": shape,
        "reference_raw": shape[1:],
        "reference_processed": shape[1:],
        "start": (*shape[1:3], 2),
    }
    for name, expected in needed.items():
        if parts[name].shape != expected:
            raise InputError(
                f"{name} has shape {parts[name].shape}; with a batch of shape {shape} it must be "
                f"{expected}"
            )
    return parts


def _with_channels(array: NDArray[Any], ndim: int) -> NDArray[np.float32]:
    array = np.ascontiguousarray(array, np.float32)
    return array[..., None] if array.ndim == ndim - 1 else array
