"""Files as the sources see them: what exists, what identifies it, and its open handles."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

from scopeflow.errors import InputError, InputNotFoundError, UnreadableFileError

__all__ = ["FileStamp", "Handle", "HandleCache", "stamp_file", "stamp_folder"]

T = TypeVar("T")


@dataclass(frozen=True)
class FileStamp:
    """What tells whether a file, or a folder of chunks, is still the one that was opened.

    Attributes
    ----------
    path : str
        Absolute path.
    size : int
        Bytes; of a folder, the bytes of all its files.
    mtime_ns : int
        Time of the last change in nanoseconds; of a folder, of its newest file.
    files : int
        Number of files.
    """

    path: str
    size: int
    mtime_ns: int
    files: int = 1

    def facts(self) -> dict[str, object]:
        """Return the stamp as JSON-able facts."""
        return {
            "path": self.path,
            "size": self.size,
            "mtime_ns": self.mtime_ns,
            "files": self.files,
        }

    def check_unchanged(self) -> None:
        """Refuse a file that was replaced or changed since it was opened.

        Raises
        ------
        InputNotFoundError
            The file is gone.
        InputError
            Its size or time of change differ.
        """
        now = stamp_file(self.path)
        if (now.size, now.mtime_ns) != (self.size, self.mtime_ns):
            raise InputError(
                f"{self.path}: the file changed since it was opened ({self.size} bytes then, "
                f"{now.size} now). Let whatever writes it finish, then open it again."
            )


def stamp_file(path: str | Path) -> FileStamp:
    """Return the stamp of an existing, non-empty file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    FileStamp
        Absolute path, size, time.

    Raises
    ------
    InputNotFoundError
        It does not exist.
    UnreadableFileError
        It is empty or may not be read.
    """
    path = Path(path).expanduser()
    try:
        stat = path.stat()
    except FileNotFoundError:
        folder = path.parent
        hint = "" if folder.is_dir() else f" Its folder {folder} does not exist either."
        raise InputNotFoundError(
            f"{path}: there is no such file or folder.{hint} Check the path."
        ) from None
    except OSError as error:
        raise UnreadableFileError(f"{path}: cannot be accessed ({error}).") from error
    if stat.st_size == 0:
        raise UnreadableFileError(
            f"{path}: the file is empty (0 bytes). Check that it was copied or saved completely."
        )
    if not os.access(path, os.R_OK):
        raise UnreadableFileError(f"{path}: no permission to read it. Change its permissions.")
    return FileStamp(os.path.abspath(path), stat.st_size, stat.st_mtime_ns)


def stamp_folder(path: str | Path) -> FileStamp:
    """Return the stamp of all files below a folder, such as the chunks of a zarr array."""
    size = newest = files = 0
    pending = [os.path.abspath(path)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    pending.append(entry.path)
                else:
                    stat = entry.stat()
                    size += stat.st_size
                    newest = max(newest, stat.st_mtime_ns)
                    files += 1
    return FileStamp(os.path.abspath(path), size, newest, files)


class Handle(Generic[T]):
    """An open file of this process and the lock under which it is read.

    The file is closed when nobody refers to the handle any more, or the process ends.
    """

    def __init__(self, value: T) -> None:
        self.value = value
        self.lock = threading.RLock()
        close = getattr(value, "close", None)
        if close is not None:
            # Closed when the last reader lets go of the handle, or when the process ends.
            weakref.finalize(self, close)


class HandleCache(Generic[T]):
    """The open files of one format in this process, the least used ones are dropped.

    Sources travel between processes, handles never do: each process opens a file when it first
    reads from it.

    Parameters
    ----------
    opener : callable
        Opens the file at a path.
    size : int
        Files kept open.
    """

    def __init__(self, opener: Callable[[str], T], size: int = 16) -> None:
        def open_checked(stamp: FileStamp) -> Handle[T]:
            stamp.check_unchanged()
            return Handle(opener(stamp.path))

        self._opening = threading.Lock()
        self._cached = lru_cache(maxsize=size)(open_checked)

    def get(self, stamp: FileStamp) -> Handle[T]:
        """Return the handle of a file, opened now if this process has not yet."""
        with self._opening:
            return self._cached(stamp)

    def clear(self) -> None:
        """Forget all handles; they close when nobody reads from them any more."""
        self._cached.cache_clear()
