"""Addresses of remote data as text, such as ``s3://bucket/folder``; opens nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

from scopeflow.errors import OptionsError

__all__ = ["address_of", "expanded", "local_path", "path_or_address"]

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
# pathlib makes one slash of two. Of these words nobody names a folder.
_MENDED = re.compile(
    r"(s3a?|gs|gcs|https?|memory|file|abfss?|az|adl|hf|s?ftp|ssh|hdfs|webhdfs):/([^/].*)", re.DOTALL
)


def address_of(given: str | os.PathLike[str]) -> str | None:
    """Return the remote address ``scheme://rest`` that a text or path means; None for places here.

    `pathlib.Path` swallows one of the slashes of an address; they are put back.

    Examples
    --------
    >>> address_of(Path("s3://bucket/movie.zarr"))
    's3://bucket/movie.zarr'
    >>> address_of("results/movie.zarr") is None
    True
    """
    text = os.fspath(given)
    match = _ADDRESS.fullmatch(text) or _MENDED.fullmatch(text)
    if match is None or match[1].lower() == "file":
        return None
    return f"{match[1].lower()}://{match[2].rstrip('/')}"


def path_or_address(given: str | os.PathLike[str]) -> Path | str:
    """Return a path of this machine as `Path`, and a remote address as text.

    Examples
    --------
    >>> path_or_address("s3://bucket/results/")
    's3://bucket/results'
    >>> path_or_address("file:///data/results").name
    'results'
    """
    address = address_of(given)
    if address is not None:
        return address
    text = os.fspath(given)
    return Path(re.sub(r"^file:/+", "/", text, flags=re.IGNORECASE))


def local_path(given: str | os.PathLike[str], what: str) -> Path:
    """Return a path of this machine, ``~`` expanded, and refuse a remote address.

    ``what`` stands, or is to stand, there: "The results of the cell workflow".

    Raises OptionsError: for a remote address.
    """
    address = address_of(given)
    if address is not None:
        raise OptionsError(
            f"{address}: {what} must be on this machine, not at a remote address. Choose a folder "
            "here, and copy it there or from there"
        )
    return expanded(path_or_address(given))


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` expanded; the name of no user is a name as any other, as in shells.

    Examples
    --------
    >>> expanded("~ no such user/movie.tif").parts
    ('~ no such user', 'movie.tif')
    """
    return Path(os.path.expanduser(path))
