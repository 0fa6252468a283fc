"""Hand results to user callbacks, in the order of time, while a run goes on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scopeflow.engine.pieces import Outcome
from scopeflow.errors import CallbackWarning
from scopeflow.images.resize import upsample_flow
from scopeflow.motion.grid import Block, Grid
from scopeflow.motion.store.layout import MOTION, REGISTERED, ResultStore

logger = logging.getLogger(__name__)

ProgressCallback = Callable[[int, int], None]
"""``f(finished_frames, total_frames)``."""

BatchCallback = Callable[[NDArray[Any], int, int], None]
"""``f(batch, start, end)``: frames ``(n, H, W, C)`` or displacements ``(n, H, W, 2)``; end excl."""


class FinishedFrames(Protocol):
    """Reads finished frames back for callbacks and exports."""

    def registered(self, start: int, stop: int) -> NDArray[Any]:
        """Return registered frames, ``(n, H, W, C)``."""

    def flow(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return full-resolution displacements, ``(n, H, W, 2)``."""


@dataclass(frozen=True)
class StoredFrames:
    """Finished frames of a result store."""

    store: ResultStore

    def registered(self, start: int, stop: int) -> NDArray[Any]:
        """Return registered frames, ``(n, H, W, C)``."""
        return self.store.read(REGISTERED, start, stop)

    def flow(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return full-resolution displacements, ``(n, H, W, 2)``."""
        motion = self.store.read(MOTION, start, stop)
        shape = self.store.layout.shape[1:3]
        return np.stack([upsample_flow(frame, shape) for frame in motion])


@dataclass(frozen=True, eq=False)
class FramesInMemory:
    """Finished frames in arrays of this process.

    `registered_array`: ``(T, H, W, C)``, corrected frames.
    `flow_array`: ``(T, H, W, 2)`` float32, displacements.
    """

    registered_array: NDArray[Any]
    flow_array: NDArray[np.float32]

    def registered(self, start: int, stop: int) -> NDArray[Any]:
        """Return registered frames, ``(n, H, W, C)``."""
        return self.registered_array[start:stop]

    def flow(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return full-resolution displacements, ``(n, H, W, 2)``."""
        return self.flow_array[start:stop]


@dataclass
class Callbacks:
    """Functions that a user wants called.

    `progress`: ``f(finished_frames, total_frames)`` as frames finish.
    `displacement`, `registered`: ``f(batch, start, end)`` after each batch of ``buffer_size``
        frames, in the order of time.
    """

    progress: list[ProgressCallback] = field(default_factory=list)
    displacement: list[BatchCallback] = field(default_factory=list)
    registered: list[BatchCallback] = field(default_factory=list)

    @property
    def want_batches(self) -> bool:
        """Whether anyone wants frames or displacements."""
        return bool(self.displacement or self.registered)


def _call(what: str, callback: Callable[..., None], *arguments: Any) -> None:
    # A failing display must not cost hours of computing.
    try:
        callback(*arguments)
    except Exception as error:
        warnings.warn(f"{what} callback error: {error}", CallbackWarning, stacklevel=3)
        logger.debug("%s callback failed", what, exc_info=True)


class Delivery:
    """Counts finished frames and calls the user's functions."""

    def __init__(self, callbacks: Callbacks, grid: Grid, frames: FinishedFrames) -> None:
        self._callbacks = callbacks
        self._grid = grid
        self._frames = frames
        self._done = 0

    def count(self, block: Block) -> None:
        """Tell the progress callbacks of a finished block, one call for each frame."""
        for _ in range(block.length):
            self._done += 1
            for callback in self._callbacks.progress:
                _call("Progress", callback, self._done, self._grid.n_frames)

    def block(self, block: Block, _: Outcome) -> None:
        """Take note of a block, in the order of time; deliver its batch if it is the last of it."""
        start, stop = self._grid.batch_range(block.batch)
        if block.stop != stop or not self._callbacks.want_batches:
            return
        if self._callbacks.registered:
            registered = self._frames.registered(start, stop)
            for callback in self._callbacks.registered:
                _call("Registered frames", callback, registered, start, stop)
        if self._callbacks.displacement:
            flow = self._frames.flow(start, stop)
            for callback in self._callbacks.displacement:
                _call("Displacement field", callback, flow, start, stop)
