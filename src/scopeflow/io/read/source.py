"""What the recordings in files have in common; every format adds how its frames are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import ScopeflowError, UnreadableFileError
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import AxisLayout, check_frame_range, check_video, resolve_layout
from scopeflow.io.read.boundary import understood
from scopeflow.io.read.files import FileStamp
from scopeflow.io.read.states import file_states

__all__ = ["DatasetSource", "FileSource", "LayoutSource", "PlaneSource", "dataset_facts"]


@dataclass(frozen=True, kw_only=True)
class FileSource(ABC):
    """A recording in a file; a :class:`~scopeflow.io.read.protocol.Source`.

    Handles are no part of it: each process opens the file when it first reads. ``identity()``
    enters the fingerprints of results on the disk; its keys and values must stay as they are.
    ``absent`` are the frames that lack pixels, in ascending order, where they were asked to be
    masked; they are read as zeros.
    """

    stamp: FileStamp
    shape: tuple[int, int, int, int]  # (T, H, W, C)
    dtype: np.dtype[Any]  # native byte order
    metadata: VideoMetadata
    kind: str
    frames_per_chunk: int = 1
    absent: tuple[int, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file that is read."""
        return (self.stamp.path,)

    @property
    def description(self) -> str:
        """Short name for people."""
        part = self._part()
        return f"{self.kind} {self.stamp.path}" + (f", {part}" if part else "")

    def _part(self) -> str:
        """Name what was chosen in the file, for people."""
        return ""

    def _choices(self) -> dict[str, object]:
        """Return what was chosen in the file, as JSON-able facts."""
        return {}

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        return {
            "kind": self.kind,
            **self.stamp.facts(),
            **self._choices(),
            "shape": list(self.shape),
            "dtype": self.dtype.str,
            **self._absence(),
        }

    def state(self, start: int, stop: int) -> dict[str, str]:  # noqa: ARG002 - one for all frames
        """Return what the files that hold some frames look like now."""
        return file_states(list(self.paths))

    def _absence(self) -> dict[str, object]:
        # Named only where asked for: recordings that are whole keep the identity they had.
        return {"absent": list(self.absent)} if self.absent else {}

    @property
    def _is_mapped(self) -> bool:
        """Whether the file is looked at before each read: a mapped one that shrank ends a process.

        The others are looked at when a process opens them; a look at a remote file is a request.
        """
        return False

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames ``start`` to ``stop``, shape ``(n, H, W, C)``, own memory.

        Raises InputError: a range outside the recording, or a file that changed.
        Raises UnreadableFileError: damaged data, or a store that cannot be reached.
        """
        check_frame_range(start, stop, self.shape[0], self.description)
        if self._is_mapped:
            self.stamp.check_unchanged()
        with understood(self.description, f"frames {start} to {stop - 1}"):
            return self._read_present(start, stop)

    def _read_present(self, start: int, stop: int) -> NDArray[Any]:
        first, last = bisect_left(self.absent, start), bisect_left(self.absent, stop)
        if first == last:
            return self._read(start, stop)
        block = np.zeros((stop - start, *self.shape[1:]), self.dtype)
        begin = start
        for end in (*self.absent[first:last], stop):
            if begin < end:
                block[begin - start : end - start] = self._read(begin, end)
            begin = end + 1
        return block

    @abstractmethod
    def _read(self, start: int, stop: int) -> NDArray[Any]:
        """Read frames of a range that was checked; 0 are possible."""

    @contextmanager
    def _reading(self, what: str, remedy: str = "restore it from the original") -> Iterator[None]:
        """Report what goes wrong inside the block as damage of a part of the file."""
        try:
            yield
        except ScopeflowError:
            raise
        except Exception as error:
            raise self._damaged(what, f"{type(error).__name__}: {error}", remedy) from error

    def _damaged(
        self, what: str, reason: object, remedy: str = "restore it from the original"
    ) -> UnreadableFileError:
        return UnreadableFileError(
            f"{self.stamp.path}: {what} cannot be read ({reason}). The file is damaged; {remedy}."
        )


@dataclass(frozen=True, kw_only=True)
class LayoutSource(FileSource):
    """A recording whose frames are a part of one stored array, or of several of one layout."""

    layout: AxisLayout

    def _choices(self) -> dict[str, object]:
        return {
            "axes": self.layout.axes,
            "fixed": [list(pair) for pair in self.layout.fixed],
        }


@dataclass(frozen=True, kw_only=True)
class DatasetSource(LayoutSource):
    """One dataset of a container, or one for each channel."""

    datasets: tuple[str, ...]

    def _part(self) -> str:
        return ", ".join(self.datasets)

    def _choices(self) -> dict[str, object]:
        return {"datasets": list(self.datasets), **super()._choices()}

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        parts = [
            self.layout.to_video(np.asarray(block).astype(self.dtype, copy=False), owned=True)
            for block in self._read_datasets(start, stop)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=3)

    @abstractmethod
    def _read_datasets(self, start: int, stop: int) -> Sequence[NDArray[Any]]:
        """Return what ``layout`` selects of each dataset; its memory is the caller's."""


@dataclass(frozen=True, kw_only=True)
class PlaneSource(FileSource):
    """One stage position and plane of a file of a microscope.

    ``planes`` counts those of the file. ``missing`` lists what the file lacks, which is read as
    black: frames, or pairs of frame and channel.
    """

    position: int
    z: int
    planes: int = 1
    missing: tuple[Any, ...] = ()

    def _choices(self) -> dict[str, object]:
        return {"position": self.position, "z": self.z}

    @property
    def _is_mapped(self) -> bool:
        return True


def dataset_facts(
    where: str,
    datasets: tuple[str, ...],
    letters: str,
    shape: tuple[int, ...],
    dtypes: Sequence[np.dtype[Any]],
    *,
    z: int | None,
    axes: str,
    reason: str,
    noun: str,
) -> dict[str, Any]:
    """Return the fields of a :class:`DatasetSource` that its datasets tell.

    ``letters`` and ``shape`` are those of each dataset, slowest axis first. For people: ``axes``
    names the axes and tells where their order was read, ``reason`` why these datasets were taken,
    and ``noun`` is what the container calls a dataset.

    Raises InputError: the axes, the size or the type cannot be a video.
    """
    layout, note = resolve_layout(letters, shape, where, z=z)
    frames, height, width, channels = layout.video_shape
    video_shape = (frames, height, width, channels * len(datasets))
    dtype = check_video(video_shape, np.result_type(*dtypes), where)
    origins = (
        ("axes", axes + (f"; {note}" if note else "")),
        ("dataset", f"{', '.join(datasets)} ({reason})"),
        ("shape", f"{noun} {datasets[0]}"),
        ("dtype", f"{noun} {datasets[0]}"),
    )
    names = datasets if len(datasets) > 1 else None
    return {
        "shape": video_shape,
        "dtype": dtype,
        "metadata": VideoMetadata(channel_names=names, origins=origins),
        "layout": layout,
        "datasets": datasets,
    }
