"""Files that appear under their name only when complete; knows bytes and errors, no video."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from scopeflow.errors import OutputError

PARTIAL_SUFFIX = ".partial"
"""Ending of a file that is still being written."""

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


def partial_path(path: Path) -> Path:
    """File beside the target that holds the data until they are complete.

    Examples
    --------
    >>> partial_path(Path("out/compensated.HDF5")).name
    'compensated.HDF5.partial'
    """
    return path.with_name(path.name + PARTIAL_SUFFIX)


def output_error(error: Exception, path: Path) -> OutputError:
    """Turn an error of the operating system or of HDF5 into one that says what to do.

    Parameters
    ----------
    error : Exception
        What writing raised. HDF5 hides the system's error number in its text.
    path : Path
        The target.

    Returns
    -------
    OutputError
        With the target, the cause and the remedy; ``errno`` is kept.
    """
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
def writing(path: Path) -> Iterator[None]:
    """Report failures inside the block as `OutputError` about this target.

    Examples
    --------
    >>> with writing(Path("out.npy")):
    ...     pass
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise output_error(error, path) from error


def prepare_target(path: Path, expected_bytes: int) -> None:
    """Make the folder and refuse a target that cannot be written, before anything is.

    Parameters
    ----------
    path : Path
        The file to be written.
    expected_bytes : int
        What it will take, bytes.

    Raises
    ------
    OutputError
        When it is a folder, when its folder cannot be made or written, or lacks space.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        free = shutil.disk_usage(path.parent).free
    if expected_bytes > free:
        raise OutputError(
            f"Cannot write {path}: it needs {expected_bytes / 1e9:.2f} GB, {free / 1e9:.2f} GB "
            f"are free in {path.parent}. Free space there, or choose another output_path"
        )


def publish(partial: Path, path: Path) -> None:
    """Give a complete file its final name, after its bytes have reached the disk."""
    descriptor = os.open(partial, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
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


def atomic_save_npy(path: str | Path, array: ArrayLike) -> None:
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
    _save(Path(path), lambda file: np.save(file, values, allow_pickle=False), values.nbytes)


def atomic_save_npz(path: str | Path, **arrays: ArrayLike) -> None:
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
    _save(Path(path), lambda file: np.savez(file, allow_pickle=False, **values), size)


def _save(path: Path, save: Callable[[BinaryIO], None], expected_bytes: int) -> None:
    prepare_target(path, expected_bytes)
    partial = partial_path(path)
    with writing(path):
        try:
            with partial.open("wb") as file:
                save(file)
            publish(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
