"""Lazy videos: a source or a dask array, cut into blocks of frames. Knows no file format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scopeflow._shapes import VideoTYXC
from scopeflow.io.read.gaps import frames_text
from scopeflow.io.read.protocol import Source
from scopeflow.io.read.states import (
    changed_since_opened,
    file_states,
    input_changed,
    state_digest,
    state_of,
)
from scopeflow.io.read.views import FrameSelection

if TYPE_CHECKING:
    import dask.array as da


INPUT = "input"
"""Name of what records keep of the files that their frames were read from."""


@dataclass(frozen=True)
class FrameRange:
    """Frames of a source that a task reads by itself: the reader travels, not the pixels."""

    source: Source
    start: int
    stop: int

    def load(self) -> VideoTYXC:
        """Read the frames."""
        return self.load_with_state()[0]

    def load_with_state(self) -> tuple[VideoTYXC, str]:
        """Read the frames; also return a digest of what their files looked like before.

        Raises InputError: the files changed since the recording was opened, or are changing.
        """
        return _read_unchanged(self.source, self.start, self.stop)


def frames_in_recording(source: Any, start: int, stop: int) -> list[tuple[int, int]]:
    """Return ranges of frames in the numbers of the recording that some were selected from."""
    if isinstance(source, FrameSelection):
        return [(frame, frame + 1) for frame in source.frames[start:stop]]
    return [(start, stop)]


def _read_unchanged(source: Any, start: int, stop: int) -> tuple[NDArray[Any], str]:
    state = state_of(source, start, stop)
    changed = changed_since_opened(source, state)
    if not changed:
        frames = source.read(start, stop)
        # Remote objects are replaced whole, and each look is a request: the end of a run has one.
        looks = [path for path in state if "://" not in path]
        after = file_states(looks)
        changed = [path for path in looks if after[path] != state[path]]
    if changed:
        raise input_changed(changed, frames_text(*frames_in_recording(source, start, stop)))
    return frames, state_digest(state)


@dataclass(frozen=True)
class SourceVideo:
    """A video that every task reads by itself."""

    source: Source

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(T, H, W, C)``."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return np.dtype(self.source.dtype)

    def frames(self, start: int, stop: int) -> Any:
        """Return what a task needs to get the frames ``[start, stop)``."""
        return FrameRange(self.source, start, stop)

    def select(self, frames: tuple[int, ...]) -> SourceVideo:
        """Return the video of some frames, in the given order."""
        return SourceVideo(FrameSelection(self.source, frames))


@dataclass(frozen=True, eq=False)
class ArrayVideo:
    """A video ``(T, H, W, C)`` in memory, or a dask array of any chunking."""

    array: Any

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(T, H, W, C)``."""
        frames, height, width, channels = self.array.shape
        return frames, height, width, channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return np.dtype(self.array.dtype)

    def frames(self, start: int, stop: int) -> Any:
        """Return what a task needs to get the frames ``[start, stop)``."""
        return self.array[start:stop]

    def select(self, frames: tuple[int, ...]) -> ArrayVideo:
        """Return the video of some frames, in the given order."""
        return ArrayVideo(self.array[list(frames)])


LazyVideo = SourceVideo | ArrayVideo
"""Either kind of video; both have ``shape``, ``dtype``, ``frames`` and ``select``."""


def load_with_state(frames: Any) -> tuple[VideoTYXC, dict[str, Any]]:
    """Return the pixels, and what a record keeps of the files that they were read from."""
    if isinstance(frames, FrameRange):
        pixels, digest = frames.load_with_state()
        return pixels, {INPUT: {"frames": [frames.start, frames.stop], "state": digest}}
    return np.asarray(frames), {}


def load_frames(frames: Any) -> VideoTYXC:
    """Return the pixels of what :meth:`SourceVideo.frames` gave; runs inside a task."""
    if isinstance(frames, FrameRange):
        return frames.load()
    return np.asarray(frames)


class FrameReader(Protocol):
    """What can be read by frames, four axes with time first: a source, or stored displacements."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all frames."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        ...

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return some frames."""
        ...


class _ArrayView:
    """A source as something that dask can slice: only the frames asked for are read."""

    ndim = 4

    def __init__(self, source: FrameReader) -> None:
        self.source = source
        self.shape = source.shape
        self.dtype = np.dtype(source.dtype)

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        frames, *rest = index
        start, stop, step = frames.indices(self.shape[0])
        return _read_unchanged(self.source, start, stop)[0][(slice(None, None, step), *rest)]


def lazy_array(source: FrameReader, frames_per_chunk: int, name: str | None = None) -> da.Array:
    """Return a source as a dask array whose chunks are blocks of whole frames; nothing is read.

    The same data should get the same ``name`` in the graph.
    """
    # Imported here: corrections of files need no dask array, and its import takes half a second.
    import dask.array as da

    chunks = (frames_per_chunk, *source.shape[1:])
    return da.from_array(
        _ArrayView(source), chunks=chunks, name=name or False, asarray=False, inline_array=True
    )
