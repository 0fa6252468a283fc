"""Recordings in MATLAB files, version 5 to 7, read by SciPy; version 7.3 is HDF5."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.io.read.axes import parse_axes
from scopeflow.io.read.discovery import choose_datasets
from scopeflow.io.read.files import HandleCache, stamp_file
from scopeflow.io.read.source import DatasetSource, dataset_facts

__all__ = ["MatSource", "open_mat"]

_CLASSES = {"double": "f8", "single": "f4", "logical": "?"}
_CLASSES |= {
    f"{sign}int{8 * n}": f"{sign[:1] or 'i'}{n}" for sign in ("", "u") for n in (1, 2, 4, 8)
}
_MATRIX, _COMPRESSED = 14, 15
_COMPLEX = 0x0800
_TYPES = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14, 15, 16, 17, 18}
_NUMERIC = range(4, 16)  # classes of arrays of characters and numbers, sparse ones among them


class _Variables:
    """The variables of one file, each read whole when it is first asked for and then kept.

    MATLAB limits a variable of these versions to 2 GB, and a compressed one cannot be read in part.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._read: dict[str, NDArray[Any]] = {}

    def get(self, name: str) -> NDArray[Any]:
        """Return a variable as it is stored: MATLAB narrows doubles, and SciPy leaves them so."""
        from scipy.io import loadmat  # here: no other format needs it

        if name not in self._read:
            self._read[name] = loadmat(self._path, variable_names=[name])[name]
        return self._read[name]


# Few, since each holds pixels; one for each channel, so that their blocks are not read anew.
_FILES: HandleCache[_Variables] = HandleCache(_Variables, size=4)


@dataclass(frozen=True, kw_only=True)
class MatSource(DatasetSource):
    """One variable, or one for each channel, of a MATLAB file before v7.3.

    ``layout`` has the slowest axis first: MATLAB's order reversed.
    """

    kind: str = "MAT"

    def _read_datasets(self, start: int, stop: int) -> list[NDArray[Any]]:
        index = self.layout.index(start, stop)
        # A copy, always: the variable itself is kept.
        return [self._variable(name).T[index].astype(self.dtype) for name in self.datasets]

    def _variable(self, name: str) -> NDArray[Any]:
        handle = _FILES.get(self.stamp)
        try:
            with handle.lock:
                return handle.value.get(name)
        except Exception as error:
            raise self._damaged(f"variable {name}", error, "save it again") from error


def _elements(file: BinaryIO, path: str, size: int) -> Iterator[tuple[bool, int]]:
    """Yield for each variable whether it is complex, and how many values it has room for.

    No pixel is read.

    SciPy lists the variables of a file that breaks off as if all was well, and does not tell which
    are complex. Layout after "MAT-File Format" (The MathWorks): a header of 128 bytes, then
    elements of a tag (type, bytes) and data; a compressed element is one zlib stream that holds one
    matrix, and a matrix begins with its flags.
    """
    order = {b"IM": "<", b"MI": ">"}.get(file.read(128)[126:128])
    if order is None:
        raise UnreadableFileError(
            f"{path}: not a MATLAB file of version 5 to 7.3. Save it in MATLAB with -v7.3."
        )
    at = 128
    while at < size:
        file.seek(at)
        tag = file.read(8)
        kind, nbytes = struct.unpack(order + "II", tag) if len(tag) == 8 else (0, size)
        if at + 8 + nbytes > size:
            raise UnreadableFileError(
                f"{path}: the file breaks off: a variable at byte {at} needs {nbytes} bytes, "
                f"but the file has {size}. It is truncated; copy or save it again."
            )
        if kind in (_MATRIX, _COMPRESSED):
            head = file.read(min(nbytes, 4096))
            if kind == _COMPRESSED:
                head = zlib.decompressobj().decompress(head, 4096)[8:]
            _check_parts(head, order)
            # Values are stored in one byte or more; zlib makes at most 1032 bytes of one.
            room = nbytes * (1032 if kind == _COMPRESSED else 1)
            yield bool(struct.unpack_from(order + "I", head, 8)[0] & _COMPLEX), room
        at += 8 + nbytes
        if kind != _COMPRESSED:
            at += -nbytes % 8


def _check_parts(head: bytes, order: str) -> None:
    """Refuse types of data that do not exist: SciPy looks them up without a check, and crashes.

    `head`: begin of a matrix: its flags, sizes, name, and for numbers their data, each a part.

    Raises ValueError: a part has no known type.
    """
    is_numeric = head[8:9] != b"" and struct.unpack_from(order + "I", head, 8)[0] & 0xFF in _NUMERIC
    at = 0
    for _ in range(4 if is_numeric else 3):
        if at + 8 > len(head):
            return
        kind, nbytes = struct.unpack_from(order + "II", head, at)
        if kind >> 16:  # a small part: type and size share four bytes, and four of data follow
            kind, nbytes = kind & 0xFFFF, 0
        if kind not in _TYPES:
            raise ValueError(f"a part has the type {kind}, which does not exist")
        at += 8 + nbytes + -nbytes % 8


def _list_variables(path: str, size: int) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return MATLAB size and type of each numeric array; only headers are read."""
    from scipy.io import whosmat

    try:
        with open(path, "rb") as file:
            elements = list(_elements(file, path, size))
        listed = whosmat(path)
        for (name, shape, kind), (_, room) in zip(listed, elements, strict=True):
            if kind in _CLASSES and prod(map(int, shape)) > room:
                raise ValueError(f"{name} of shape {shape} has room for {room} values at most")
    except UnreadableFileError:
        raise
    except Exception as error:
        raise UnreadableFileError(
            f"{path}: its variables cannot be listed ({error}). The file is damaged; save it again."
        ) from error
    return {
        name: (tuple(shape), np.dtype("c16" if flag else _CLASSES[kind]))
        for (name, shape, kind), (flag, _) in zip(listed, elements, strict=True)
        if kind in _CLASSES
    }


def open_mat(
    path: str | Path,
    *,
    axes: str | None = None,
    dataset: str | Sequence[str] | None = None,
    z: int | None = None,
) -> MatSource:
    """Open a recording in a MATLAB file before v7.3; no pixel is read.

    Variables are ``(H, W, T)``, one for each channel, found by :func:`choose_datasets` unless
    ``dataset`` names them; ``axes`` is in MATLAB's order. A variable is read whole, and kept, when
    its first frame is.

    Raises InputNotFoundError, UnreadableFileError, DatasetNotFoundError, InputError: the file, its
        variables or their axes cannot be used.
    """
    stamp = stamp_file(path)
    name = str(path)
    found = _list_variables(stamp.path, stamp.size)
    chosen, reason = choose_datasets({k: shape for k, (shape, _) in found.items()}, name, dataset)
    shape = found[chosen[0]][0]
    where = f"{name}, {chosen[0]}"
    if axes is not None:
        letters, origin = parse_axes(axes, len(shape), where), "axes= argument"
    elif len(shape) == 3:
        letters, origin = "YXT", "MATLAB order (H, W, T)"
    else:
        raise InputError(
            f"{where}: a MATLAB array of shape {shape} has no documented axis order. Pass axes= in "
            'MATLAB\'s order, for example axes="YXTC".'
        )
    types = [found[key][1] for key in chosen]
    facts = dataset_facts(
        where, chosen, letters[::-1], shape[::-1], types,
        z=z, axes=f"{letters}, {origin}", reason=reason, noun="variable",
    )  # fmt: skip
    return MatSource(stamp=stamp, **facts)
