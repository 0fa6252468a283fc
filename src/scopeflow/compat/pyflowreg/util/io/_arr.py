"""Arrays as readers and writers, and a writer that keeps nothing, under the names of PyFlowReg."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compat.pyflowreg.util.io._base import VideoReader, VideoWriter, _as_batch

__all__ = ["ArrayReader", "ArrayWriter", "NullVideoWriter"]


class ArrayReader(VideoReader):
    """Reads an array ``(T, H, W, C)`` or ``(T, H, W)``, or one frame.

    Parameters
    ----------
    array : ndarray
        With up to four values along the last of three axes it is one frame ``(H, W, C)``.
    buffer_size, bin_size
        As for :class:`VideoReader`.
    inplace : bool
        Accepted for old scripts; the array is never changed.
    """

    def __init__(
        self, array: NDArray[Any], buffer_size: int = 100, bin_size: int = 1, inplace: bool = False
    ) -> None:
        self.inplace = inplace
        super().__init__(_as_batch(np.asarray(array)), buffer_size, bin_size)


class ArrayWriter(VideoWriter):
    """Keeps frames in memory."""

    def __init__(self, array: NDArray[Any] | None = None) -> None:
        super().__init__()
        self._parts: list[NDArray[Any]] = []
        if array is not None:
            self.write_frames(array)

    def _take(self, batch: NDArray[Any]) -> None:
        self._parts.append(batch)

    def get_array(self) -> NDArray[Any] | None:
        """Return all frames ``(T, H, W, C)``; None if there are none."""
        return np.concatenate(self._parts) if self._parts else None


class NullVideoWriter(VideoWriter):
    """Counts frames and batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches_written = 0

    def _take(self, batch: NDArray[Any]) -> None:  # noqa: ARG002 - nothing is kept
        self.batches_written += 1

    def __repr__(self) -> str:
        return (
            f"NullVideoWriter(frames_written={self.frames_written}, batches={self.batches_written})"
        )
