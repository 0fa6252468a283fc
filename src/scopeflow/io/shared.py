"""Arrays that processes of one machine share: each maps the same file, memory holds it once.

On Linux the file has no name in any folder. It is reached through the process that made it, and is
gone with the last process that holds it, however these end.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.io.files import writing
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import check_frame_range

_IN_MEMORY = Path("/dev/shm")
_DESCRIPTORS = Path("/proc/self/fd")


@dataclass(frozen=True)
class SharedArray:
    """An array in a file; small and picklable, the pixels never travel.

    ``file`` is device and number of the file. ``token`` is of this array alone: the numbers of a
    file and of a process come again.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    file: tuple[int, int]
    token: str

    def open(self, mode: str = "r") -> NDArray[Any]:
        """Map the array, for writing too with ``"r+"``; it stays mapped as long as the view lives.

        Pages that several processes look at are in memory once.

        Raises FileNotFoundError: the process that made the array has put it away.
        """
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        with open(self.path, "r+b" if mode == "r+" else "rb") as file:
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino) != self.file:
                raise FileNotFoundError(f"{self.path}: the shared array was put away")
            mapped = np.memmap(file, self.dtype, "r+" if mode == "r+" else "r", shape=self.shape)
        return np.asarray(mapped)


class SharedFolder:
    """Where shared arrays are; all are put away at the end."""

    def __init__(self, folder: str, in_memory: bool, opened: ExitStack) -> None:
        self._folder, self._in_memory, self._opened = folder, in_memory, opened

    def put(self, name: str, array: NDArray[Any]) -> SharedArray:
        """Copy an array into the folder, once for all processes."""
        shared = self.empty(name, array.shape, array.dtype)
        shared.open("r+")[...] = array
        return shared

    def empty(self, name: str, shape: tuple[int, ...], dtype: Any) -> SharedArray:
        """Make an array of zeros that processes can write into."""
        shape, dtype = tuple(int(n) for n in shape), np.dtype(dtype)
        size = max(1, math.prod(shape) * dtype.itemsize)
        with writing(self._folder):
            path, descriptor = self._file(name)
            if self._in_memory or not hasattr(os, "posix_fallocate"):
                os.truncate(descriptor, size)
            else:
                # A full disk is an error here; at the first write to a page it would be a crash.
                os.posix_fallocate(descriptor, 0, size)
        found = os.fstat(descriptor)
        return SharedArray(path, shape, dtype, (found.st_dev, found.st_ino), secrets.token_hex(8))

    def _file(self, name: str) -> tuple[str, int]:
        """Make an empty file; the path for other processes, and the open file of this one."""
        if self._in_memory and hasattr(os, "memfd_create"):
            descriptor = os.memfd_create(f"scopeflow-{name}.npy")
            self._opened.callback(os.close, descriptor)
        elif _DESCRIPTORS.is_dir():
            # Without a name from the beginning, where the file system can.
            file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            descriptor = self._opened.enter_context(file).fileno()
        else:
            descriptor, path = tempfile.mkstemp(f"-{name}.npy", dir=self._folder)
            self._opened.callback(os.close, descriptor)
            return path, descriptor
        return f"/proc/{os.getpid()}/fd/{descriptor}", descriptor


@contextmanager
def shared_folder(bytes_needed: int) -> Iterator[SharedFolder]:
    """Let arrays be shared, and put them away afterwards.

    They are in memory where that has room for ``bytes_needed`` (containers often allow very
    little), else on the disk of temporary files.

    Examples
    --------
    >>> with shared_folder(1000) as folder:
    ...     shared = folder.put("numbers", np.arange(3))
    ...     shared.open().tolist()
    [0, 1, 2]
    """
    has_room = _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > 2 * bytes_needed
    with ExitStack() as opened:
        folder = str(_IN_MEMORY) if has_room else tempfile.gettempdir()
        if not _DESCRIPTORS.is_dir():
            # Files have names here, that have to be removed.
            with writing(folder):
                folder = tempfile.mkdtemp(prefix="scopeflow-", dir=folder)
            opened.callback(shutil.rmtree, folder, ignore_errors=True)
        yield SharedFolder(folder, has_room, opened)


@dataclass(frozen=True)
class SharedSource:
    """A shared array ``(T, H, W, C)`` as a recording."""

    array: SharedArray
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]

    @property
    def metadata(self) -> VideoMetadata:
        """Nothing is known."""
        return VideoMetadata()

    @property
    def frames_per_chunk(self) -> int:
        """One: any number of frames costs the same per frame."""
        return 1

    @property
    def description(self) -> str:
        """Short name for people."""
        return f"shared array of shape {self.shape}"

    @property
    def paths(self) -> tuple[str, ...]:
        """The mapped file."""
        return (self.array.path,)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames ``start`` to ``stop``, a view of the mapped file."""
        check_frame_range(start, stop, self.shape[0], self.description)
        return self.array.open()[start:stop]

    def state(self, start: int, stop: int) -> dict[str, str]:  # noqa: ARG002 - as of all sources
        """Return nothing: no file is read."""
        return {}

    def identity(self) -> dict[str, object]:
        """Return where the array is."""
        return {"kind": "shared", "path": self.array.path}
