"""Files that appear under their name only when complete; knows bytes and errors, no video.

Places may be remote: such a file is written to the temporary folder of this machine and stored
whole, which object stores do in one step.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import ArrayLike

from scopeflow.errors import OutputError, UnreadableFileError
from scopeflow.io.durable import make_folders, sync_file, sync_folder
from scopeflow.io.locations import (
    Location,
    RemotePath,
    is_access_error,
    location,
    reason_and_remedy,
)

PARTIAL_SUFFIX = ".partial"
"""Ending of a file that is still being written."""

_RANDOM_BYTES = 8
_LONGEST_NAME = 220

_CAUSES = {
    errno.ENOSPC: ("no space is left", "Free space there"),
    errno.EDQUOT: ("the disk quota is used up", "Free space there"),
    errno.EFBIG: ("it exceeds the largest file allowed here", "Raise the limit, split the export"),
    errno.EACCES: ("permission is denied", "Get write permission"),
    errno.EPERM: ("permission is denied", "Get write permission"),
    errno.EROFS: ("the file system is read-only", "Mount it writable"),
    errno.ENOTDIR: ("a part of its path is a file", "Correct the path"),
    errno.EEXIST: ("a part of its path is a file", "Correct the path"),
    errno.EISDIR: ("a folder of this name exists", "Remove the folder"),
    errno.ENAMETOOLONG: ("the name is too long", "Shorten the name"),
}


def partial_path(path: Location) -> Path:
    """Name of the file that holds the data until they are complete: beside a local target.

    A name of its own for every call, which nobody can foresee: neither another run nor a link that
    somebody has put there can stand in its place.

    Examples
    --------
    >>> name = partial_path(Path("out/compensated.HDF5")).name
    >>> name.startswith("compensated.HDF5."), name.endswith(".partial")
    (True, True)
    """
    folder = Path(tempfile.gettempdir()) if isinstance(path, RemotePath) else path.parent
    return folder / f"{_start_of(path.name)}{secrets.token_hex(_RANDOM_BYTES)}{PARTIAL_SUFFIX}"


def _start_of(name: str) -> str:
    """Return what partial names of a file begin with: names have 255 bytes at most."""
    encoded = os.fsencode(name)
    return f"{name if len(encoded) <= _LONGEST_NAME else os.fsdecode(encoded[:_LONGEST_NAME])}."


def sweep_partials(path: Location) -> None:
    """Remove partial files and folders that killed runs have left of a target.

    Only whoever holds the lock of the target may do so: those of a living run look the same.
    """
    if isinstance(path, RemotePath):
        return
    known = re.compile(
        re.escape(_start_of(path.name)) + rf"[0-9a-f]{{{2 * _RANDOM_BYTES}}}{PARTIAL_SUFFIX}"
    )
    if path.parent.is_dir():
        for name in os.listdir(path.parent):
            if known.fullmatch(name):
                remove_tree(path.parent / name)


def sweep_below(folder: Path) -> None:
    """Remove partial files that killed runs have left anywhere in a folder, as the only writer."""
    for above, _, names in os.walk(folder):
        for name in names:
            if name.endswith(PARTIAL_SUFFIX):
                Path(above, name).unlink(missing_ok=True)


def create_partial(partial: Path) -> None:
    """Create a partial file that nothing stands in the place of, not even a link."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(partial, flags, 0o666))


def output_error(error: Exception, path: str | Location) -> OutputError:
    """Return an error with the target, the cause and the remedy of one of the system or of HDF5.

    HDF5 hides the system's error number in its text; ``errno`` is kept.
    """
    if isinstance(location(path), RemotePath):
        cause = error.__cause__ if isinstance(error, UnreadableFileError) else None
        reason, remedy = reason_and_remedy(cause or error)
        return OutputError(f"Cannot write {path}: {reason}. {remedy}")
    number = getattr(error, "errno", None)
    hidden = re.search(r"errno = (\d+)", str(error))
    if hidden is not None:
        number = int(hidden.group(1))
    reason = getattr(error, "strerror", None) or str(error)
    cause, remedy = _CAUSES.get(number or 0, (reason, "Check the folder"))
    converted = OutputError(
        f"Cannot write {path}: {cause}. {remedy}, or choose another output_path"
    )
    converted.errno = number
    return converted


@contextmanager
def writing(path: str | Location) -> Iterator[None]:
    """Report failures inside the block as `OutputError` about this target."""
    try:
        yield
    except OutputError:
        raise
    except Exception as error:
        if not is_access_error(error):
            raise
        raise output_error(error, path) from error


def prepare_target(path: Location, expected_bytes: int, *, durable: bool = True) -> None:
    """Make the folder and refuse a target that cannot be written, before anything is.

    Raises OutputError: when it is a folder, when its folder cannot be made or written, or lacks
        space.
    """
    if isinstance(path, RemotePath):
        _check_temporary_space(path, expected_bytes)
        return
    with writing(path):
        if durable:
            make_folders(path.parent)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        free = shutil.disk_usage(path.parent).free
    if expected_bytes > free:
        raise OutputError(
            f"Cannot write {path}: it needs {expected_bytes / 1e9:.2f} GB, {free / 1e9:.2f} GB "
            f"are free in {path.parent}. Free space there, or choose another output_path"
        )


def _check_temporary_space(path: RemotePath, expected_bytes: int) -> None:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if expected_bytes > free:
        raise OutputError(
            f"Cannot write {path}: it is made in the temporary folder {folder} first, needs "
            f"{expected_bytes / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free. Free space there, "
            "or name another folder with the environment variable TMPDIR"
        )


def publish(partial: Path, path: Location, *, durable: bool = True) -> None:
    """Give a complete file its final name, after its bytes have reached the disk."""
    if isinstance(path, RemotePath):
        path.upload(partial)
        partial.unlink()
        return
    if not durable:
        partial.replace(path)
        return
    sync_file(partial)
    partial.replace(path)
    sync_folder(path.parent)


def atomic_save_npy(path: str | Location, array: ArrayLike) -> None:
    """Write an array as NumPy file that appears complete or not at all.

    Parameters
    ----------
    path : path
        The target; an older file is replaced.
    array : array_like
        Any shape; no objects.

    Raises
    ------
    OutputError
        When it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     atomic_save_npy(Path(folder) / "a.npy", [1, 2])
    ...     np.load(Path(folder) / "a.npy").tolist()
    [1, 2]
    """
    values = np.asarray(array)
    with atomic_path(path, values.nbytes) as partial, partial.open("wb") as file:
        np.save(file, values, allow_pickle=False)


def atomic_save_npz(path: str | Location, **arrays: ArrayLike) -> None:
    """Write named arrays as one NumPy archive that appears complete or not at all.

    Parameters
    ----------
    path : path
        The target; an older file is replaced.
    **arrays : array_like
        Any shapes; no objects.

    Raises
    ------
    OutputError
        When it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     atomic_save_npz(Path(folder) / "a.npz", mean_disp=[0.5])
    ...     with np.load(Path(folder) / "a.npz") as stored:
    ...         print(stored["mean_disp"])
    [0.5]
    """
    values: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    size = sum(array.nbytes for array in values.values())
    with atomic_path(path, size) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **values)


@contextmanager
def atomic_path(
    path: str | Location, expected_bytes: int = 0, *, durable: bool = True
) -> Iterator[Path]:
    """Give a temporary path whose file takes the final name only if the block succeeds.

    The temporary path is on this machine. ``expected_bytes`` is refused where there is less space;
    ``durable`` waits until the bytes are on the disk; without it, whoever records the file has to
    (see :meth:`scopeflow.engine.ledger.Ledger.complete`).

    Raises OutputError: when the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_path(target) as partial:
    ...     _ = partial.write_text("done")
    >>> target.read_text()
    'done'
    """
    target = location(path)
    prepare_target(target, expected_bytes, durable=durable)
    partial = partial_path(target)
    with writing(target):
        create_partial(partial)
        try:
            yield partial
            publish(partial, target, durable=durable)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def save_json(path: str | Location, value: Any) -> None:
    """Write JSON under its final name only when it is complete."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n")


def remove_tree(path: str | Location) -> None:
    """Remove a folder with all that it holds, or a file; nothing there is no error."""
    place = location(path)
    if isinstance(place, RemotePath):
        place.remove_tree()
    elif place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def file_proof(path: str | Location) -> tuple[int, str]:
    """Return the size of a file in bytes, and a text that other bytes would change.

    For files of this machine the text is :func:`file_digest`; for objects of a remote store it is
    what the store gives each content, such as the ETag, and nothing is fetched. `OSError` if there
    is no such file.
    """
    place = location(path)
    if isinstance(place, RemotePath):
        return place.stamp()
    return place.stat().st_size, file_digest(place)


def file_digest(path: str | Path | int) -> str:
    """Return a digest of the bytes of a file, read in pieces; a descriptor is closed then.

    XXH3 finds damage as surely as a cryptographic digest does, at more than ten times the speed;
    it is no defence against a forger.
    """
    digest = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        piece = memoryview(bytearray(min(2**20, max(1, size))))
        while size := stream.readinto(piece):
            digest.update(piece[:size])
    return digest.hexdigest()
