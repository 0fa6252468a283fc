"""Arrays that processes of one machine share: each maps the same file, memory holds it once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.io.files import writing
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import check_frame_range

_IN_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class SharedArray:
    """An array in a NumPy file; small and picklable, the pixels never travel."""

    path: str

    def open(self, mode: str = "r") -> NDArray[Any]:
        """Map the array, for writing too with ``"r+"``; it stays mapped as long as the view lives.

        Pages that several processes look at are in memory once.
        """
        mapped = np.load(self.path, mmap_mode="r+" if mode == "r+" else "r", allow_pickle=False)
        return np.asarray(mapped)


@dataclass(frozen=True)
class SharedFolder:
    """Where shared arrays are; a folder that is removed at the end."""

    path: str

    def put(self, name: str, array: NDArray[Any]) -> SharedArray:
        """Copy an array into the folder, once for all processes."""
        shared = self.empty(name, array.shape, array.dtype)
        shared.open("r+")[...] = array
        return shared

    def empty(self, name: str, shape: tuple[int, ...], dtype: Any) -> SharedArray:
        """Make an array of zeros that processes can write into."""
        target = Path(self.path) / f"{name}.npy"
        with writing(target):
            mapped = np.lib.format.open_memmap(
                target, mode="w+", dtype=np.dtype(dtype), shape=tuple(int(n) for n in shape)
            )
            del mapped
        return SharedArray(str(target))


@contextmanager
def shared_folder(bytes_needed: int) -> Iterator[SharedFolder]:
    """Make a folder for shared arrays and remove it afterwards.

    It is in memory where that has room for ``bytes_needed`` (containers often allow very little),
    else on the disk of temporary files.

    Examples
    --------
    >>> with shared_folder(1000) as folder:
    ...     shared = folder.put("numbers", np.arange(3))
    ...     shared.open().tolist()
    [0, 1, 2]
    """
    where = None
    if _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > 2 * bytes_needed:
        where = str(_IN_MEMORY)
    with writing(where or tempfile.gettempdir()):
        path = tempfile.mkdtemp(prefix="scopeflow-", dir=where)
    try:
        yield SharedFolder(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


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

    def identity(self) -> dict[str, object]:
        """Return where the array is."""
        return {"kind": "shared", "path": self.array.path}
