"""A reader with a position, and a writer without a known length, around those of scopeflow."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from scopeflow.engine.lock import one_writer
from scopeflow.errors import InputError
from scopeflow.io.formats import OutputFormat
from scopeflow.io.locations import location
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.open import open_source
from scopeflow.io.read.protocol import Source, absent_frames
from scopeflow.io.read.states import state_of
from scopeflow.io.read.views import BinnedSource
from scopeflow.io.write.exports import open_writer


class VideoReader:
    """Reads a recording in batches of ``buffer_size`` frames, or by index, in binned frames.

    Parameters
    ----------
    source : path, list of paths, ndarray or Source
        The recording, see :func:`scopeflow.open_video`.
    buffer_size : int
        Frames of a batch.
    bin_size : int
        Frames that are averaged into one.
    **selection
        ``deinterleave``, ``dataset_names``, ``axes`` and others of scopeflow.

    Attributes
    ----------
    height, width, n_channels, frame_count : int
        Size, and number of frames before binning.
    dtype : numpy.dtype
        Type of the pixels.
    current_frame : int
        First frame of the next batch.

    Examples
    --------
    >>> reader = VideoReader(np.zeros((5, 16, 20), np.uint8), buffer_size=2)
    >>> [len(batch) for batch in reader], reader[1:3].shape
    ([2, 2, 1], (2, 16, 20, 1))
    """

    def __init__(
        self, source: Any, buffer_size: int = 500, bin_size: int = 1, **selection: Any
    ) -> None:
        names = selection.pop("dataset_names", None)
        if names is not None:
            selection["dataset"] = names
        selection.pop("use_memmap", None)  # files are mapped wherever they can be
        self._raw: Source = open_source(source, **selection)
        self.buffer_size = buffer_size
        self.bin_size = bin_size
        self.current_frame = 0

    @property
    def video(self) -> Source:
        """The recording as scopeflow reads it, binned."""
        return BinnedSource(self._raw, self.bin_size) if self.bin_size > 1 else self._raw

    @property
    def frame_count(self) -> int:
        """Frames before binning."""
        return self._raw.shape[0]

    @property
    def height(self) -> int:
        """Rows."""
        return self._raw.shape[1]

    @property
    def width(self) -> int:
        """Columns."""
        return self._raw.shape[2]

    @property
    def n_channels(self) -> int:
        """Channels."""
        return self._raw.shape[3]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self._raw.dtype

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(T, H, W, C)`` after binning."""
        return self.video.shape

    @property
    def unbinned_shape(self) -> tuple[int, int, int, int]:
        """``(T, H, W, C)`` of the file."""
        return self._raw.shape

    def __len__(self) -> int:
        return self.shape[0]

    def has_batch(self) -> bool:
        """Tell whether a batch is left."""
        return self.current_frame < len(self)

    def read_batch(self) -> NDArray[Any] | None:
        """Return the next ``buffer_size`` frames ``(n, H, W, C)``; None at the end."""
        if not self.has_batch():
            return None
        stop = min(self.current_frame + self.buffer_size, len(self))
        batch = self.video.read(self.current_frame, stop)
        self.current_frame = stop
        return batch

    def reset(self) -> None:
        """Go back to the first frame."""
        self.current_frame = 0

    def __iter__(self) -> Iterator[NDArray[Any]]:
        self.reset()
        while (batch := self.read_batch()) is not None:
            yield batch

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if isinstance(key, tuple):
            first, *rest = key
            frames = self[first]
            # A single frame keeps its axis.
            return (frames[None] if frames.ndim == 3 else frames)[(slice(None), *rest)]
        if isinstance(key, int | np.integer):
            index = int(key) + (len(self) if key < 0 else 0)
            if not 0 <= index < len(self):
                raise IndexError(f"Index {int(key)} out of range for {len(self)} binned frames")
            return self.video.read(index, index + 1)[0]
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self.video.read(start, max(start, stop))
            chosen = np.arange(start, stop, step)
        else:
            chosen = np.asarray(key)
            if chosen.dtype == bool:
                chosen = np.flatnonzero(chosen)
        if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
            raise TypeError(f"Invalid index type: {type(key).__name__}")
        if not len(chosen):
            return np.empty((0, *self.shape[1:]), self.dtype)
        return np.stack([self[int(index)] for index in chosen])

    @staticmethod
    def to_pytorch(frames: NDArray[Any]) -> NDArray[Any]:
        """Return ``(T, H, W, C)`` as ``(T, C, H, W)``."""
        return np.moveaxis(frames, -1, 1)

    # What scopeflow asks of a recording, so that a reader can be given as `input_file`.

    @property
    def metadata(self) -> VideoMetadata:
        """Pixel size, times and channel names, where known."""
        return self.video.metadata

    @property
    def frames_per_chunk(self) -> int:
        """Frames that are stored together."""
        return self.video.frames_per_chunk

    @property
    def description(self) -> str:
        """Short name for people."""
        return self.video.description

    @property
    def paths(self) -> tuple[str, ...]:
        """Files that are read."""
        return self.video.paths

    @property
    def absent(self) -> tuple[int, ...]:
        """Frames that lack pixels in the file; none unless ``missing="mask"``."""
        return absent_frames(self.video)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames ``start`` to ``stop``; the position stays."""
        return self.video.read(start, stop)

    def state(self, start: int, stop: int) -> dict[str, str]:
        """Return what the files that hold some frames look like now."""
        return state_of(self.video, start, stop)

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        return self.video.identity()

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class VideoWriter:
    """Takes frames until it is closed; the file appears then.

    Parameters
    ----------
    path : path
        The file.
    output_format : OutputFormat or str
        A streamed export, see :func:`scopeflow.io.write.exports.open_writer`.

    Attributes
    ----------
    initialized : bool
        Whether frames were written, which decide the following.
    height, width, n_channels : int
        Size.
    dtype : numpy.dtype
        Type of the pixels.
    """

    def __init__(self, path: str | Path | None = None, output_format: Any = None) -> None:
        self.path = path
        self.output_format = output_format
        self.initialized = False
        self.frames_written = 0
        self.height = self.width = self.n_channels = 0
        self.dtype: np.dtype[Any] = np.dtype(np.float64)
        # The length is known at the end only, and the formats need it first: frames wait on disk.
        self._waiting: Any = None

    def write_frames(self, frames: NDArray[Any]) -> None:
        """Append frames ``(T, H, W, C)``, or one frame ``(H, W)`` or ``(H, W, C)``.

        Raises
        ------
        InputError
            For another size or dtype than before.
        """
        batch = _as_batch(np.asarray(frames))
        if not self.initialized:
            self.height, self.width, self.n_channels = batch.shape[1:]
            self.dtype = batch.dtype
            self.initialized = True
        elif (*batch.shape[1:], batch.dtype) != (
            self.height, self.width, self.n_channels, self.dtype,
        ):  # fmt: skip
            raise InputError(
                f"frames of shape {batch.shape[1:]} and type {batch.dtype} were given after frames "
                f"of shape {(self.height, self.width, self.n_channels)} and type {self.dtype}"
            )
        self._take(batch)
        self.frames_written += len(batch)

    def _take(self, batch: NDArray[Any]) -> None:
        if self._waiting is None:
            self._waiting = tempfile.TemporaryFile()  # noqa: SIM115 - open until close()
        self._waiting.write(np.ascontiguousarray(batch).tobytes())

    def close(self) -> None:
        """Write the file."""
        if self._waiting is None:
            return
        shape = (self.frames_written, self.height, self.width, self.n_channels)
        frame = int(np.prod(shape[1:]))
        assert self.path is not None
        with (
            self._waiting as waiting,
            one_writer(location(self.path)),
            open_writer(self.path, self.output_format, shape=shape, dtype=self.dtype) as writer,
        ):
            waiting.seek(0)
            together = max(1, 2**24 // (frame * self.dtype.itemsize))
            for start in range(0, shape[0], together):
                count = min(together, shape[0] - start)
                data = waiting.read(count * frame * self.dtype.itemsize)
                writer.write(np.frombuffer(data, self.dtype).reshape(count, *shape[1:]))
        self._waiting = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        elif self._waiting is not None:
            self._waiting.close()


def _as_batch(frames: NDArray[Any]) -> NDArray[Any]:
    if frames.ndim == 2:
        return frames[None, ..., None]
    if frames.ndim == 3:
        # As PyFlowReg decides it: up to four values at the end are channels of one frame.
        return frames[None] if frames.shape[-1] <= 4 else frames[..., None]
    if frames.ndim != 4:
        raise InputError(f"Expected 2D, 3D or 4D frames, got an array of shape {frames.shape}")
    return frames


STREAMED = frozenset(OutputFormat) - {
    OutputFormat.ARRAY, OutputFormat.NULL, OutputFormat.BEGONIA, OutputFormat.ZARR,
}  # fmt: skip
"""Formats of files that frames can be appended to."""
