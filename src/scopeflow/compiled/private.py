"""Folders that nobody but the user can put anything into: made, and checked before they are used.

What is loaded from such a folder is run. Others must be able neither to write there nor to put
another folder in its place.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

__all__ = ["NotPrivateError", "make_private", "private_folder", "tighten"]

_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


class NotPrivateError(Exception):
    """Who could change what is in a folder."""


def private_folder(path: Path) -> Path:
    """Make a folder, or check one that exists with all that it holds; its path without links.

    Raises NotPrivateError: what stands in the way.
    Raises OSError: it cannot be made or read.
    """
    make_private(path)
    # A link may be changed later; what it leads to now is checked, and used.
    folder = path.resolve(strict=True)
    if not hasattr(os, "geteuid"):  # Windows: folders of a user are closed to others
        return folder
    user = os.geteuid()
    for place in [folder, *_inside(folder)]:
        _check_own(place, user)
    for above in folder.parents:
        _check_above(above, user)
    return folder


def make_private(path: Path) -> None:
    """Make a folder and those above it; what is new is for the user alone."""
    missing = [place for place in (path, *path.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)


def tighten(place: Path) -> None:
    """Take the right to write from all but the user, if file or folder belongs to the user."""
    if not hasattr(os, "geteuid"):
        return
    with contextlib.suppress(FileNotFoundError):  # another process of ours gave it its name
        found = place.stat()
        if found.st_uid == os.geteuid() and found.st_mode & _WRITABLE:
            place.chmod(stat.S_IMODE(found.st_mode) & ~_WRITABLE)


def _inside(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from _inside(Path(entry.path))


def _check_own(place: Path, user: int) -> None:
    try:
        found = place.lstat()
    except FileNotFoundError:
        return  # a file that another process of ours has just put under its name
    if stat.S_ISLNK(found.st_mode):
        raise NotPrivateError(f"{place} is a link")
    if found.st_uid != user:
        raise NotPrivateError(f"{place} belongs to the user {found.st_uid}, not to {user}")
    if found.st_mode & _WRITABLE:
        raise NotPrivateError(f"{place} can be written by others (mode {found.st_mode & 0o7777:o})")


def _check_above(place: Path, user: int) -> None:
    found = place.stat()
    # The owner of the root is the administrator: user 0, or another number within a container.
    if found.st_uid not in (0, user, Path(place.anchor).stat().st_uid):
        raise NotPrivateError(f"{place} above it belongs to the user {found.st_uid}")
    # With the sticky bit, others can make entries there but not replace those of this user.
    if found.st_mode & _WRITABLE and not found.st_mode & stat.S_ISVTX:
        raise NotPrivateError(
            f"others can replace what is in {place} above it (mode {found.st_mode & 0o7777:o})"
        )
