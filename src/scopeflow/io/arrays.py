"""NumPy files of others: arrays of numbers, never objects, and no larger than the file."""

from __future__ import annotations

import math
import os
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from scopeflow.errors import UnreadableFileError
from scopeflow.io.locations import Location, location, open_bytes
from scopeflow.io.read.boundary import understood
from scopeflow.io.read.files import stamp_file

__all__ = ["read_array"]


def read_array(path: str | os.PathLike[str] | Location) -> NDArray[Any]:
    """Read a ``.npy`` file.

    Raises InputNotFoundError: it does not exist.
    Raises UnreadableFileError: it is damaged, of another format, or holds objects.

    Examples
    --------
    >>> import tempfile
    >>> file = tempfile.mkdtemp() + "/image.npy"
    >>> np.save(file, np.ones((2, 3)))
    >>> read_array(file).shape
    (2, 3)
    """
    place = location(path)
    size = stamp_file(place).size
    with understood(str(place)), open_bytes(place) as stream:
        _check_header(stream, size, str(place))
        stream.seek(0)
        return np.asarray(np.load(stream, allow_pickle=False))


def _check_header(stream: IO[bytes], size: int, where: str) -> None:
    """Refuse objects, and arrays that claim more than `size` bytes hold."""
    version = npy.read_magic(stream)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = header(stream)
    if dtype.hasobject:
        raise UnreadableFileError(
            f"{where}: holds Python objects, which are not read. Save numbers, such as with "
            "numpy.save(path, image.astype('float32'))"
        )
    # Memory for all that the header claims would be taken before anything is read.
    if math.prod(shape) * dtype.itemsize > size:
        raise UnreadableFileError(
            f"{where}: {size} bytes do not hold an array of shape {shape}, {dtype}. It is "
            "truncated; copy it again"
        )
