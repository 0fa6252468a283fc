"""Files on a local or shared file system: atomic replacement, digests, clear write errors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scopeflow.errors import OutputError

_REASONS = {
    errno.ENOSPC: "no space is left on the device; free some or choose another output folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another output folder",
    errno.EACCES: "permission is denied; choose a folder that you may write to",
    errno.EPERM: "permission is denied; choose a folder that you may write to",
    errno.EROFS: "the file system is read-only; choose another output folder",
}


@contextlib.contextmanager
def write_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn operating-system errors of writing into one :class:`OutputError` with advice.

    Parameters
    ----------
    path : path-like
        What is being written; named in the message.

    Raises
    ------
    OutputError
        Instead of any ``OSError`` raised inside the block.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, str(error))
        raise OutputError(error.errno, f"cannot write {path}: {reason}") from error


def temporary_name(path: Path) -> Path:
    """Return a name beside `path` that no other process uses, for writing before the rename."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path that takes the final name only if the block succeeds.

    Parameters
    ----------
    path : path-like
        The final name.

    Yields
    ------
    pathlib.Path
        Where to write.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("done")
    >>> target.read_text()
    'done'
    """
    target = Path(path)
    temporary = temporary_name(target)
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def save_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON under its final name only when it is complete."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def load_json(path: str | os.PathLike[str]) -> Any | None:
    """Read JSON; None if the file is missing or damaged."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return None


def save_arrays(path: str | os.PathLike[str], **arrays: Any) -> None:
    """Write an ``.npz`` file under its final name only when it is complete."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)


def save_array(path: str | os.PathLike[str], array: Any) -> None:
    """Write an ``.npy`` file under its final name only when it is complete."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, array)


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return a digest of the bytes of a file, read in pieces."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as stream:
        while piece := stream.read(4 * 2**20):
            digest.update(piece)
    return digest.hexdigest()
