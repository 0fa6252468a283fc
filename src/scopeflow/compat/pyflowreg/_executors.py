"""Executors of one batch of frames in memory: this thread, threads, or processes, all by dask."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Self

import numpy as np
from dask.delayed import delayed
from numpy.typing import NDArray

from scopeflow.compat.pyflowreg._context import RuntimeContext
from scopeflow.engine.executor import ClusterExecutor, Executor, LocalExecutor, local_cluster
from scopeflow.errors import InputError, OptionsError
from scopeflow.images.warp import cast_frames, warp
from scopeflow.images.xcorr import rigid_shift
from scopeflow.io.shared import SharedArray, shared_folder

_BLOCK = 4  # frames of one task
_WRITTEN = ("registered", "flow")

_Arrays = Mapping[str, NDArray[Any] | SharedArray]
"""``batch``, ``processed`` and ``registered`` (T, H, W, C); ``reference_raw`` and
``reference_processed`` (H, W, C); ``start`` (H, W, 2) and ``flow`` (T, H, W, 2), pixels."""


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
        inputs = _normalized(batch, batch_proc, reference_raw, reference_proc, w_init)
        functions = (get_displacement_func, imregister_func, interpolation_method)
        parameters = kwargs.get("flow_params", {})
        frames = range(len(inputs["batch"]))
        blocks = [frames[start : start + _BLOCK] for start in frames[::_BLOCK]]

        def on_result(position: int, _: Any) -> None:
            if progress_callback is not None:
                for count in self._counts(len(blocks[position])):
                    progress_callback(count)

        self.setup()
        assert self._place is not None
        with self._arrays(inputs) as arrays:
            run = delayed(_register_frames, pure=False)
            tasks = [run(arrays, block, *functions, parameters) for block in blocks]
            self._place.run(tasks, on_result)
            registered, flow = (self._result(arrays[name]) for name in _WRITTEN)
            return registered, flow

    def _start(self, opened: contextlib.ExitStack) -> Executor:
        raise NotImplementedError

    def _counts(self, frames: int) -> list[int]:
        return [1] * frames

    @contextlib.contextmanager
    def _arrays(self, inputs: dict[str, NDArray[Any]]) -> Iterator[_Arrays]:
        yield inputs | {
            name: np.empty(shape, dtype) for name, (shape, dtype) in _outputs(inputs).items()
        }

    def _result(self, array: Any) -> NDArray[Any]:
        return np.asarray(array)


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
    def _arrays(self, inputs: dict[str, NDArray[Any]]) -> Iterator[_Arrays]:
        outputs = _outputs(inputs)
        size = sum(array.nbytes for array in inputs.values())
        size += sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in outputs.values())
        with shared_folder(size) as folder:
            yield {name: folder.put(name, array) for name, array in inputs.items()} | {
                name: folder.empty(name, *what) for name, what in outputs.items()
            }

    def _result(self, array: Any) -> NDArray[Any]:
        result: NDArray[Any] = array.open().copy()  # the folder goes away
        return result


def _normalized(
    batch: NDArray[Any],
    processed: NDArray[Any],
    reference_raw: NDArray[Any],
    reference_processed: NDArray[Any],
    start: NDArray[Any],
) -> dict[str, NDArray[Any]]:
    """Return the inputs, channel-last and float32 except the batch; InputError for a misfit."""
    batch = np.ascontiguousarray(batch)
    inputs = {
        "batch": batch[..., None] if batch.ndim == 3 else batch,
        "processed": _with_channels(processed, 4),
        "reference_raw": _with_channels(reference_raw, 3),
        "reference_processed": _with_channels(reference_processed, 3),
        "start": np.ascontiguousarray(start, np.float32),
    }
    shape = inputs["batch"].shape
    if len(shape) != 4:
        raise InputError(f"batch has shape {batch.shape}; needed is (T, H, W, C) or (T, H, W)")
    needed = {
        "processed": shape,
        "reference_raw": shape[1:],
        "reference_processed": shape[1:],
        "start": (*shape[1:3], 2),
    }
    for name, expected in needed.items():
        if inputs[name].shape != expected:
            raise InputError(
                f"{name} has shape {inputs[name].shape}; with a batch of shape {shape} it must be "
                f"{expected}"
            )
    return inputs


def _with_channels(array: NDArray[Any], ndim: int) -> NDArray[np.float32]:
    array = np.ascontiguousarray(array, np.float32)
    return array[..., None] if array.ndim == ndim - 1 else array


def _outputs(inputs: Mapping[str, NDArray[Any]]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    batch = inputs["batch"]
    flow = (*batch.shape[:3], 2), np.dtype(np.float32)
    return {"registered": (batch.shape, batch.dtype), "flow": flow}


def _register_frames(
    shared: _Arrays,
    frames: range,
    get_displacement: Callable[..., NDArray[Any]],
    imregister: Callable[..., NDArray[Any]],
    interpolation: str,
    flow_params: Mapping[str, Any],
) -> None:
    """Solve and register some frames of a batch, writing into its output arrays.

    `flow_params` are arguments of `get_displacement`, and ``cc_initialization`` (begin with a rigid
    shift), ``cc_hw`` (size, pixels, that images are reduced to for it) and ``cc_up`` (upsampling).
    """
    arrays = {
        name: array.open("r+" if name in _WRITTEN else "r")
        if isinstance(array, SharedArray)
        else array
        for name, array in shared.items()
    }
    parameters = dict(flow_params)
    rigid = bool(parameters.pop("cc_initialization", False))
    size = parameters.pop("cc_hw", 256)
    upsampling = int(parameters.pop("cc_up", 1))
    target = (size, size) if isinstance(size, int) else tuple(size)
    reference = arrays["reference_processed"]
    for t in frames:
        moving, begin, known = arrays["processed"][t], arrays["start"], None
        if rigid:
            partly = warp(moving, begin, reference, "linear")
            weights = parameters.get("weight")
            shift = rigid_shift(reference, partly, target, upsampling, weights=weights)
            known = begin + np.asarray(shift, np.float32)
            moving = warp(moving, known, reference, "linear")
            begin = np.zeros_like(begin)
        found = get_displacement(reference, moving, uv=begin.copy(), **parameters)
        found = np.asarray(found, np.float32)
        flow = arrays["flow"][t]
        flow[...] = found if known is None else found + known
        u, v, fill = flow[..., 0], flow[..., 1], arrays["reference_raw"]
        moved = imregister(arrays["batch"][t], u, v, fill, interpolation_method=interpolation)
        moved = np.asarray(moved)
        moved = moved[..., None] if moved.ndim == 2 else moved
        arrays["registered"][t] = cast_frames(moved, arrays["registered"].dtype)[0]
