"""Recordings that are already numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import (
    AxisLayout,
    check_frame_range,
    check_video,
    default_axes,
    parse_axes,
    resolve_layout,
)

__all__ = ["MemorySource", "open_array"]


@dataclass(frozen=True, eq=False)
class MemorySource:
    """A numpy array, in its own axis order, as a recording.

    The array is not copied and must not change while it is used.
    """

    array: NDArray[Any]
    layout: AxisLayout
    dtype: np.dtype[Any]
    metadata: VideoMetadata

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape ``(T, H, W, C)``."""
        return self.layout.video_shape

    @property
    def frames_per_chunk(self) -> int:
        """One: any number of frames costs the same per frame."""
        return 1

    @property
    def description(self) -> str:
        """Short name for people."""
        return f"array of shape {self.array.shape}"

    @property
    def paths(self) -> tuple[str, ...]:
        """Empty: no file is read."""
        return ()

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return a copy of frames ``start`` to ``stop``, shape ``(n, H, W, C)``."""
        check_frame_range(start, stop, self.shape[0], self.description)
        return self.layout.to_video(self.array[self.layout.index(start, stop)], owned=False)

    @cached_property
    def _digest(self) -> str:
        digest = xxhash.xxh3_128()
        for frame in range(self.shape[0]):
            digest.update(self.read(frame, frame + 1).data)
        return digest.hexdigest()

    def state(self, start: int, stop: int) -> dict[str, str]:  # noqa: ARG002 - as of all sources
        """Return nothing: no file is read."""
        return {}

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change; the content is hashed once."""
        return {
            "kind": "array",
            "shape": list(self.shape),
            "dtype": self.dtype.str,
            "xxh3": self._digest,
        }


def open_array(
    array: NDArray[Any], *, axes: str | None = None, z: int | None = None
) -> MemorySource:
    """Take a numpy array ``(T, H, W[, C])``, one frame, or in the order of ``axes`` as a recording.

    Raises InputError: unsupported type, shape or axes.
    """
    name = f"array of shape {array.shape}"
    letters = (
        parse_axes(axes, array.ndim, name)
        if axes is not None
        else default_axes(array.ndim, array.shape, name)
    )
    layout, _ = resolve_layout(letters, array.shape, name, z=z)
    dtype = check_video(layout.video_shape, array.dtype, name)
    origin = "axes= argument" if axes is not None else f"default for {array.ndim} axes"
    origins = (("axes", f"{letters}, {origin}"), ("shape", "array"), ("dtype", "array"))
    return MemorySource(array, layout, dtype, VideoMetadata(origins=origins))
