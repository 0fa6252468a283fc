"""Bytes and names that outlive a power cut: what a record calls done is on the disk before it.

A file is safe when its content is synced, and the folder that names it, and those above that are
new. Knows files of this machine only: an object of a remote store is durable once it is stored.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

__all__ = ["make_folders", "sync_file", "sync_files", "sync_folder", "sync_tree"]

_MANY = 64
"""From so many files on, one sync of the whole file system costs less than one of each."""


def make_folders(folder: Path) -> None:
    """Make a folder with all above it that are missing, so that they outlive a power cut."""
    missing = []
    existing = folder
    while not existing.exists():
        missing.append(existing)
        existing = existing.parent
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def sync_files(root: Path, files: Iterable[Path]) -> None:
    """Wait until files are on the disk, with the names of all folders between them and `root`.

    Also of folders that other processes have made: they may not have come to sync them yet.
    """
    known = list(files)
    if not known or (len(known) >= _MANY and _sync_file_system(root)):
        return
    for file in known:
        sync_file(file)
    folders: dict[Path, None] = {}
    for file in known:
        for folder in file.parents:
            if folder in folders:
                break
            folders[folder] = None
            if folder == root:
                break
    for folder in folders:
        sync_folder(folder)


def sync_tree(folder: Path) -> None:
    """Wait until a folder is on the disk with all that it holds, and with its own name."""
    for above, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(above, name))
        sync_folder(Path(above))
    sync_folder(folder.parent)


def sync_file(file: Path) -> None:
    """Wait until the content of a file is on the disk."""
    # Some systems sync only what is open for writing.
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, or are gone from it."""
    # Some systems and network file systems cannot open or sync folders; the rename stands anyway.
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


@lru_cache(maxsize=1)
def _syncfs() -> ctypes._FuncPointer | None:
    # Python has no name for it; nor have systems other than Linux.
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


def _sync_file_system(folder: Path) -> bool:
    """Sync all of the file system of a folder; return whether this system can."""
    sync = _syncfs()
    if sync is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if sync(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
    return True
