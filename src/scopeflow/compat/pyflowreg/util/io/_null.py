"""A writer that counts and keeps nothing."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from scopeflow.compat.pyflowreg.util.io._base import VideoWriter

__all__ = ["NullVideoWriter"]


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
