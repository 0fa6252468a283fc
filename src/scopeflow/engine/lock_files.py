"""The numbered files of a lock: created exclusively, read, touched, removed; here or remote."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from scopeflow.io.durable import make_folders
from scopeflow.io.locations import Location, RemotePath

__all__ = ["LockFiles", "lock_files"]

_FOLDER = ".scopeflow"
_ENDING = ".json"
_LONGEST = 4096
_LONGEST_NAME = 200
_LONG_S = 3600.0


class LockFiles(ABC):
    """The files of one lock, by their numbers.

    `look_s`: seconds between two looks at a lock of somebody else.
    """

    look_s: ClassVar[float]

    @abstractmethod
    def numbers(self) -> list[int]:
        """Return the numbers of the files that stand there."""

    @abstractmethod
    def create(self, number: int, content: bytes) -> bool:
        """Create a file, whole; return whether it was not there."""

    @abstractmethod
    def read(self, number: int) -> bytes | None:
        """Return the content of a file; None if it is not there."""

    @abstractmethod
    def age(self, number: int) -> float:
        """Return the seconds since a file was created or touched."""

    @abstractmethod
    def touch(self, number: int, content: bytes) -> None:
        """Set the time of a file to now; `content` is what it holds."""

    @abstractmethod
    def remove(self, number: int) -> None:
        """Remove a file; none is no error."""

    @abstractmethod
    def tidy(self) -> None:
        """Remove folders that are empty now."""


def lock_files(target: Location) -> LockFiles:
    """Return the lock files of an output, which stand in the folder of our state beside it."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        # Names have 255 bytes at most; two outputs that share a lock only wait for each other.
        name = os.fsdecode(os.fsencode(name)[:_LONGEST_NAME])
    folder = target.parent / _FOLDER / f"{name}.lock"
    return _LocalFiles(folder) if isinstance(folder, Path) else _RemoteFiles(folder)


def _number(name: str) -> int | None:
    stem = name.removesuffix(_ENDING)
    return int(stem) if stem != name and stem.isdecimal() and len(stem) == 9 else None


@dataclass(frozen=True)
class _LocalFiles(LockFiles):
    """Files of this machine. `made`: folders that stand there for the lock alone, so far."""

    folder: Path
    made: list[Path] = field(default_factory=list)

    look_s = 0.1

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:09d}{_ENDING}"

    def numbers(self) -> list[int]:
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return [number for name in names if (number := _number(name)) is not None]

    def create(self, number: int, content: bytes) -> bool:
        file = self._file(number)
        with self._new_file(content) as new:
            try:
                os.link(new, file)
            except (FileExistsError, FileNotFoundError):
                # Taken; or the folder went with the last lock, and the next attempt makes it anew.
                return False
            except OSError:
                pass  # this file system has no links
            else:
                return True
        try:
            descriptor = _create(file)
        except (FileExistsError, FileNotFoundError):
            return False
        _fill(descriptor, content)
        return True

    @contextmanager
    def _new_file(self, content: bytes) -> Iterator[Path]:
        """Give a file of its own, for as long as the block takes."""
        missing = self.folder
        while not missing.exists():
            self.made.append(missing)
            missing = missing.parent
        make_folders(self.folder)
        path = self.folder / f"{secrets.token_hex(8)}.new"
        try:
            _fill(_create(path), content)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def read(self, number: int) -> bytes | None:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            descriptor = os.open(self._file(number), flags)
        except FileNotFoundError:
            return None
        except OSError:
            return b""  # something is there, but no file that anybody can read
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return b""
            return os.read(descriptor, _LONGEST)
        finally:
            os.close(descriptor)

    def age(self, number: int) -> float:
        # By the clock of the file system, which may be that of a server.
        with self._new_file(b"") as new:
            now = new.stat().st_mtime
        try:
            return now - os.lstat(self._file(number)).st_mtime
        except FileNotFoundError:
            return float("inf")

    def touch(self, number: int, content: bytes) -> None:  # noqa: ARG002
        os.utime(self._file(number))

    def remove(self, number: int) -> None:
        # A folder of this name is no lock, and the next number is free.
        with contextlib.suppress(IsADirectoryError, PermissionError):
            self._file(number).unlink(missing_ok=True)

    def tidy(self) -> None:
        with contextlib.suppress(OSError):
            for path in self.folder.glob("*.new"):  # of runs that were killed at this moment
                if time.time() - path.lstat().st_mtime > _LONG_S:
                    path.unlink()
        # A run that was refused leaves no folder behind.
        for folder in dict.fromkeys([self.folder, self.folder.parent, *self.made]):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _create(path: Path) -> int:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, flags, 0o666)


def _fill(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        if content:
            # After a power cut it still has to say who is dead.
            stream.flush()
            os.fsync(descriptor)


@dataclass(frozen=True)
class _RemoteFiles(LockFiles):
    """Objects of a store. Its clock and that of this machine have to agree to within the lease."""

    folder: RemotePath

    look_s = 5.0

    def _file(self, number: int) -> RemotePath:
        return self.folder / f"{number:09d}{_ENDING}"

    def numbers(self) -> list[int]:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        return [number for name in names if (number := _number(name)) is not None]

    def create(self, number: int, content: bytes) -> bool:
        file = self._file(number)
        try:
            file.create(content)
        except FileExistsError:
            return False
        except Exception:
            # Stores say in many ways that a condition does not hold.
            there = self.read(number)
            if there is None:
                raise
            return there == content
        return True

    def read(self, number: int) -> bytes | None:
        try:
            return self._file(number).read_range(0, _LONGEST)
        except FileNotFoundError:
            return None

    def age(self, number: int) -> float:
        try:
            return time.time() - self._file(number).modified()
        except FileNotFoundError:
            return float("inf")

    def touch(self, number: int, content: bytes) -> None:
        self._file(number).write_bytes(content)

    def remove(self, number: int) -> None:
        self._file(number).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Do nothing: stores have no folders."""
