"""Whether the files of a recording are still those that were opened; knows no format.

Sizes and times, never a digest of the bytes: one look at each file costs nothing beside reading it.
A clock too coarse to tell two writes apart cannot be helped: a file that is rewritten with the same
size within one tick of its file system (some milliseconds; 2 s on FAT) looks the same. Inodes and
change times are left out: backups, hard links and network file systems change them while the bytes
stay.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import xxhash

from scopeflow.errors import InputError
from scopeflow.io.locations import Location, RemotePath, location
from scopeflow.io.read.files import FileStamp, stamp_folder

__all__ = [
    "changed_since_opened",
    "file_states",
    "input_changed",
    "looked_at_once",
    "state_digest",
    "state_of",
]

GONE = "not there"
_REQUESTS_AT_ONCE = 16
_seen: ContextVar[dict[str, str] | None] = ContextVar("states of files seen", default=None)


def _look(place: Location) -> str:
    try:
        if isinstance(place, RemotePath):
            size, tag = place.stamp()
            return f"{size} {tag}"
        found = place.stat()
    except OSError:
        return GONE
    return f"{found.st_size} {found.st_mtime_ns}"


def file_states(paths: list[str]) -> dict[str, str]:
    """Return what each file looks like now: size and time, or size and tag of a remote object."""
    seen = _seen.get()
    known = {} if seen is None else seen
    places = {path: location(path) for path in paths if path not in known}
    if any(isinstance(place, RemotePath) for place in places.values()):
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            found = dict(zip(places, pool.map(_look, places.values()), strict=True))
    else:
        found = {path: _look(place) for path, place in places.items()}
    if seen is not None:
        seen.update(found)
    return {path: found[path] if path in found else known[path] for path in paths}


@contextmanager
def looked_at_once() -> Iterator[None]:
    """Look at each file at most once inside the block, however many frames it holds."""
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


def state_of(source: Any, start: int, stop: int) -> dict[str, str]:
    """Return :meth:`Source.state`; without one, the state of all files."""
    own = getattr(source, "state", None)
    if own is None:
        return file_states(list(getattr(source, "paths", ())))
    return dict(own(start, stop))


def state_digest(state: Mapping[str, str]) -> str:
    """Return a short text that differs when a state does.

    Names of folders do not count: a result stays its own where the recording is mounted elsewhere.

    Examples
    --------
    >>> state_digest({"a/movie.tif": "10 1"}) == state_digest({"a/movie.tif": "10 2"})
    False
    """
    lines = (f"{Path(path).name}\0{state[path]}\0" for path in sorted(state))
    return xxhash.xxh3_64_hexdigest("".join(lines).encode())


def _stamps(value: Any) -> Iterator[FileStamp]:
    """Yield the stamps with which a recording, and all that it is made of, was opened."""
    if isinstance(value, FileStamp):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            if dataclasses.is_dataclass(one):
                yield from _stamps(one)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for entry in dataclasses.fields(value):
            yield from _stamps(getattr(value, entry.name))


def changed_since_opened(source: Any, state: Mapping[str, str] | None = None) -> list[str]:
    """Return the files that are not as they were when the recording was opened.

    `state`: of some files, as :func:`state_of` gives it, whose looks are enough; a changed chunk is
        told by being newer than all were. None looks at all files again, each folder once.
    """
    changed: list[str] = []
    for stamp in dict.fromkeys(_stamps(source)):
        opened = f"{stamp.size} {stamp.tag or stamp.mtime_ns}"
        if state is None:
            place = location(stamp.path)
            if _is_folder(stamp, place):
                changed += [] if _walk(place) == stamp else [stamp.path]
            elif file_states([stamp.path])[stamp.path] != opened:
                changed.append(stamp.path)
        elif stamp.path in state:
            changed += [] if state[stamp.path] == opened else [stamp.path]
        elif stamp.mtime_ns:
            inside = (path for path in state if path.startswith(stamp.path.rstrip("/") + "/"))
            changed += [path for path in inside if _time(state[path]) > stamp.mtime_ns]
    return changed


def _walk(place: Location) -> FileStamp | None:
    """Stamp a folder again; its files are not looked at a second time inside `looked_at_once`."""
    seen = _seen.get()
    if isinstance(place, RemotePath):
        if seen is not None and place.has_folders:
            seen.update({path: f"{size} {tag}" for path, (size, tag) in place.stamps().items()})
        return stamp_folder(place)
    if not place.is_dir():
        return None
    found = [
        (os.path.join(folder, name), os.stat(os.path.join(folder, name)))
        for folder, _, names in os.walk(place)
        for name in names
    ]
    if seen is not None:
        seen.update({path: f"{stat.st_size} {stat.st_mtime_ns}" for path, stat in found})
    newest = max((stat.st_mtime_ns for _, stat in found), default=0)
    size = sum(stat.st_size for _, stat in found)
    return FileStamp(os.path.abspath(place), size, newest, len(found))


def _is_folder(stamp: FileStamp, place: Location) -> bool:
    if isinstance(place, RemotePath):
        # The digest of a folder is that of its objects.
        return stamp.files != 1 or (place / "zarr.json").is_file() or (place / ".zarray").is_file()
    return stamp.files != 1 or place.is_dir()


def _time(text: str) -> int:
    return 0 if text == GONE else int(text.partition(" ")[2])


def input_changed(paths: list[str], frames: str, done: str = "") -> InputError:
    """Return the error about a recording that changed while its frames were read."""
    first = list(dict.fromkeys(paths))
    named = ", ".join(first[:3]) + (f" and {len(first) - 3} more" if len(first) > 3 else "")
    return InputError(
        f"{named}: the recording changed while it was read; {done or 'this concerns'} {frames}. "
        "Let whatever writes it finish, then run again: results of the changed recording are made "
        "anew (resume=False, --no-resume), or those of this one go on once it is restored"
    )
