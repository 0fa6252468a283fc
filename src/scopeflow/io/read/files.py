"""Files as the sources see them: what exists, what identifies it, and its open handles."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from scopeflow.errors import InputError, InputNotFoundError, UnreadableFileError
from scopeflow.io.locations import RemotePath, location

__all__ = [
    "FileStamp",
    "Handle",
    "HandleCache",
    "collection_paused",
    "list_folder",
    "not_found",
    "refuse_remote",
    "stamp_file",
    "stamp_folder",
]

T = TypeVar("T")

_MOST_LINKS = 8  # in each other; links in a circle have no end


@dataclass(frozen=True)
class FileStamp:
    """What tells whether a file, or a folder of chunks, is still the one that was opened.

    ``path`` is absolute, or an address. Of a folder, ``size`` is the sum of its files, ``mtime_ns``
    that of the newest. Objects of a remote store have no time; they are told apart by ``tag``: what
    the store gives each content, such as its ETag, or of a folder a digest of those of all.
    """

    path: str
    size: int
    mtime_ns: int
    files: int = 1
    tag: str = ""

    def facts(self) -> dict[str, object]:
        """Return the stamp as JSON-able facts."""
        return {
            "path": self.path,
            "size": self.size,
            "mtime_ns": self.mtime_ns,
            "files": self.files,
            **({"tag": self.tag} if self.tag else {}),
        }

    def check_unchanged(self) -> None:
        """Refuse a file that was replaced or changed since it was opened.

        `InputNotFoundError` where it is gone, `InputError` where size, time or tag differ.
        """
        now = stamp_file(self.path)
        if (now.size, now.mtime_ns, now.tag) != (self.size, self.mtime_ns, self.tag):
            raise InputError(
                f"{self.path}: the file changed since it was opened ({self.size} bytes then, "
                f"{now.size} now). Let whatever writes it finish, then open it again."
            )


def not_found(path: Path | RemotePath) -> InputNotFoundError:
    """Return the error about a recording that does not exist."""
    folder = path.parent
    if isinstance(path, RemotePath):
        hint = " Check the address, and the permission to read it."
    else:
        hint = "" if folder.is_dir() else f" Its folder {folder} does not exist either."
        hint += " Check the path."
    return InputNotFoundError(f"{path}: there is no such file or folder.{hint}")


def refuse_remote(path: str | Path | RemotePath, kind: str) -> Path:
    """Return the path of a file of this machine; `InputError` for a remote one.

    ``kind`` is its format, for the message: it is read from files of this machine only.
    """
    place = location(path)
    if isinstance(place, RemotePath):
        raise InputError(
            f"{path}: {kind} files are not read from remote addresses. Copy the file to this "
            "machine, or convert it to OME-Zarr there"
        )
    return place


def stamp_file(path: str | Path | RemotePath) -> FileStamp:
    """Return the stamp of an existing, non-empty file.

    Raises InputNotFoundError: it does not exist.
    Raises UnreadableFileError: it is empty or may not be read.
    """
    path = location(path)
    tag, modified = "", 0
    try:
        if isinstance(path, RemotePath):
            size, tag = path.stamp()
        else:
            stat = path.stat()
            size, modified = stat.st_size, stat.st_mtime_ns
    except UnreadableFileError:
        raise
    except FileNotFoundError:
        raise not_found(path) from None
    except OSError as error:
        raise UnreadableFileError(f"{path}: cannot be accessed ({error}).") from error
    if size == 0:
        raise UnreadableFileError(
            f"{path}: the file is empty (0 bytes). Check that it was copied or saved completely."
        )
    if isinstance(path, RemotePath):
        return FileStamp(str(path), size, 0, tag=tag)
    if not os.access(path, os.R_OK):
        raise UnreadableFileError(f"{path}: no permission to read it. Change its permissions.")
    return FileStamp(os.path.abspath(path), size, modified)


def stamp_folder(path: str | Path | RemotePath) -> FileStamp:
    """Return the stamp of all files below a folder, such as the chunks of a zarr array."""
    return list_folder(path)[0]


def list_folder(path: str | Path | RemotePath) -> tuple[FileStamp, dict[str, int] | None]:
    """Return the stamp of all files below a folder, and the bytes of each by its name from there.

    Names have slashes on every system; None in their place where the store cannot list.
    """
    path = location(path)
    if isinstance(path, RemotePath):
        return _list_objects(path)
    newest = 0
    sizes: dict[str, int] = {}
    pending = [(os.path.abspath(path), "", 0)]
    while pending:
        folder, prefix, links = pending.pop()
        if links > _MOST_LINKS:
            raise UnreadableFileError(
                f"{path}: a folder in it is a link to one that holds it. Remove the link {folder}."
            )
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    below = links + entry.is_symlink()
                    pending.append((entry.path, f"{prefix}{entry.name}/", below))
                else:
                    stat = entry.stat()
                    sizes[prefix + entry.name] = stat.st_size
                    newest = max(newest, stat.st_mtime_ns)
    stamp = FileStamp(os.path.abspath(path), sum(sizes.values()), newest, len(sizes))
    return stamp, sizes


def _list_objects(folder: RemotePath) -> tuple[FileStamp, dict[str, int] | None]:
    # Servers of web pages cannot list: there the metadata of the array stand for all of it.
    names = ("zarr.json", ".zarray")
    objects = (
        folder.stamps()
        if folder.has_folders
        else {str(f): f.stamp() for name in names if (f := folder / name).is_file()}
    )
    digest = hashlib.blake2b(digest_size=16)
    for address in sorted(objects):
        size, tag = objects[address]
        digest.update(f"{address.removeprefix(str(folder))}\0{size}\0{tag}\0".encode())
    total = sum(size for size, _ in objects.values())
    stamp = FileStamp(str(folder), total, 0, len(objects), digest.hexdigest())
    if not folder.has_folders:
        return stamp, None
    # File systems differ in the slashes that addresses begin with.
    base = folder.address.partition("://")[2].strip("/") + "/"
    return stamp, {
        address.partition("://")[2].strip("/").removeprefix(base): size
        for address, (size, _) in objects.items()
    }


_pauses = threading.Lock()
_paused = 0
_was_enabled = False


@contextmanager
def collection_paused() -> Iterator[None]:
    """Keep the garbage collector from running in any thread; calls may nest and overlap.

    HDF5 reads a remote file while it holds the lock of h5py, and waits for the thread that fetches
    the bytes. A collection in that thread that finds an object of h5py would wait for the lock,
    and both for ever (h5py, "Python file-like objects", and h5py issue 2019).
    """
    global _paused, _was_enabled
    with _pauses:
        if _paused == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _paused += 1
    try:
        yield
    finally:
        with _pauses:
            _paused -= 1
            if _paused == 0 and _was_enabled:
                gc.enable()


class _PausingLock:
    """A lock that also keeps the garbage collector from running while it is held."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        self._lock.acquire()
        pause = collection_paused()
        pause.__enter__()
        self._held.append(pause)

    def __exit__(self, *error: object) -> None:
        self._held.pop().__exit__(None, None, None)
        self._lock.release()


class Handle(Generic[T]):
    """An open file of this process and the lock under which it is read.

    The file is closed when nobody refers to the handle any more, or the process ends. A remote one
    is read while another thread fetches its bytes, see :func:`collection_paused`.
    """

    def __init__(self, value: T, is_remote: bool = False) -> None:
        self.value = value
        self.lock: Any = _PausingLock() if is_remote else threading.RLock()
        close = getattr(value, "close", None)
        if close is not None:
            # Closed when the last reader lets go of the handle, or when the process ends.
            weakref.finalize(self, close)


class HandleCache(Generic[T]):
    """The open files of one format in this process, the least used ones are dropped.

    Sources travel between processes, handles never do: each process opens a file when it first
    reads from it.
    """

    def __init__(self, opener: Callable[[str], T], size: int = 16) -> None:
        def open_checked(stamp: FileStamp) -> Handle[T]:
            stamp.check_unchanged()
            is_remote = isinstance(location(stamp.path), RemotePath)
            return Handle(opener(stamp.path), is_remote)

        self._opening = threading.Lock()
        self._cached = lru_cache(maxsize=size)(open_checked)

    def get(self, stamp: FileStamp) -> Handle[T]:
        """Return the handle of a file, opened now if this process has not yet."""
        with self._opening:
            return self._cached(stamp)

    def clear(self) -> None:
        """Forget all handles; they close when nobody reads from them any more."""
        self._cached.cache_clear()
