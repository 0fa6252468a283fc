"""The MATLAB level 5 file format: variables found without reading them, read by pieces.

Layout after "MAT-File Format" (The MathWorks): a header of 128 bytes, then elements of a tag (type,
bytes) and data; a compressed element is one zlib stream that holds one matrix element. Zlib cannot
seek, so the state of the decompressor is kept at intervals, and any piece can be read by starting
at the state before it.
"""

from __future__ import annotations

import bisect
import struct
import threading
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from scopeflow.errors import UnreadableFileError

__all__ = ["MatStream", "MatVariable", "list_variables"]

_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_STORED |= {12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
_CLASSES |= {14: "i8", 15: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_INPUT = 16 * 1024
_INTERVAL = 8 * 2**20


@dataclass(frozen=True)
class MatVariable:
    """Where a numeric variable stands in a file.

    Attributes
    ----------
    name : str
        Its name.
    shape : tuple of int
        Its MATLAB size; the first axis varies fastest.
    dtype : str
        Its type, ``"?"`` for logical and ``"c16"`` for complex.
    stored : str
        Type of the stored numbers, which MATLAB may narrow.
    element : int
        Byte of the file where the element's data start.
    nbytes : int
        Bytes of these data.
    compressed : bool
        Whether they are a zlib stream.
    start : int
        Byte of the (uncompressed) element where the numbers start.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: str
    element: int
    nbytes: int
    compressed: bool
    start: int


class MatStream:
    """The uncompressed bytes of one element, read at any place.

    Parameters
    ----------
    path : str
        The file.
    element : int
        Byte of the file where the element's data start.
    nbytes : int
        Bytes of these data.
    compressed : bool
        Whether they are a zlib stream.
    """

    def __init__(self, path: str, element: int, nbytes: int, compressed: bool) -> None:
        self._path = path
        self._element = element
        self._nbytes = nbytes
        self._compressed = compressed
        self._lock = threading.Lock()
        # (uncompressed position, compressed position, decompressor) in ascending order
        self._states: list[tuple[int, int, Any]] = [(0, 0, zlib.decompressobj())]

    def read(self, position: int, count: int) -> bytes:
        """Return ``count`` bytes from ``position``, fewer at the end of the element."""
        with open(self._path, "rb") as file:
            if not self._compressed:
                file.seek(self._element + position)
                return file.read(max(0, min(count, self._nbytes - position)))
            return self._inflate(file, position, count)

    def _inflate(self, file: BinaryIO, position: int, count: int) -> bytes:
        with self._lock:
            places = [state[0] for state in self._states]
            begin, consumed, state = self._states[bisect.bisect_right(places, position) - 1]
            state = state.copy()
        pieces = []
        file.seek(self._element + consumed)
        while begin < position + count and not state.eof:
            raw = file.read(min(_INPUT, self._nbytes - consumed))
            if not raw:
                break
            piece = state.decompress(raw)
            consumed += len(raw)
            end = begin + len(piece)
            if end > position:
                pieces.append(piece[max(0, position - begin) : position + count - begin])
            begin = end
            with self._lock:
                if begin >= self._states[-1][0] + _INTERVAL and not state.eof:
                    self._states.append((begin, consumed, state.copy()))
        return b"".join(pieces)


def list_variables(path: str, size: int) -> dict[str, MatVariable]:
    """Find the numeric arrays of a level 5 MAT file; only their headers are read.

    Parameters
    ----------
    path : str
        The file.
    size : int
        Its bytes.

    Returns
    -------
    dict
        Variables by name.

    Raises
    ------
    UnreadableFileError
        The file breaks off or is no level 5 MAT file.
    """
    found: dict[str, MatVariable] = {}
    with open(path, "rb") as file:
        header = file.read(128)
        order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
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
                variable = _parse(path, at + 8, nbytes, kind == _COMPRESSED, order)
                if variable is not None:
                    found[variable.name] = variable
            at += 8 + nbytes
            if kind != _COMPRESSED:
                at += -nbytes % 8
    return found


def _parse(
    path: str, element: int, nbytes: int, compressed: bool, order: str
) -> MatVariable | None:
    stream = MatStream(path, element, nbytes, compressed)
    try:
        head = stream.read(0, 4096)
        at = 0
        if compressed:
            kind, _ = struct.unpack_from(order + "II", head, 0)
            if kind != _MATRIX:
                return None
            at = 8
        flags_at, _, at = _tag(head, at, order)[1:]
        flags = struct.unpack_from(order + "I", head, flags_at)[0]
        dims_at, dims_bytes, at = _tag(head, at, order)[1:]
        shape = struct.unpack_from(f"{order}{dims_bytes // 4}i", head, dims_at)
        name_at, name_bytes, at = _tag(head, at, order)[1:]
        name = head[name_at : name_at + name_bytes].decode("latin-1")
        if (flags & 0xFF) not in _CLASSES:
            return None
        stored, start, held, _ = _tag(head, at, order)
    except (struct.error, zlib.error) as error:
        raise UnreadableFileError(
            f"{path}: the variable at byte {element} is damaged ({error}). Save the file again."
        ) from error
    if stored not in _STORED:
        return None
    dtype = _CLASSES[flags & 0xFF]
    if flags & 0x0800:
        dtype = "c16"
    elif flags & 0x0200:
        dtype = "?"
    number = np.dtype(order + _STORED[stored])
    if held != int(np.prod(shape, dtype=np.int64)) * number.itemsize:
        raise UnreadableFileError(
            f"{path}: variable {name} of size {shape} holds {held} bytes, which do not fit. "
            "The file is damaged; save it again."
        )
    return MatVariable(name, tuple(shape), dtype, number.str, element, nbytes, compressed, start)


def _tag(head: bytes, at: int, order: str) -> tuple[int, int, int, int]:
    """Return type, start and bytes of a sub-element, and where the next one starts."""
    kind, nbytes = struct.unpack_from(order + "II", head, at)
    if kind >> 16:  # small element: type and bytes share a word, up to 4 bytes of data follow
        return kind & 0xFFFF, at + 4, kind >> 16, at + 8
    return kind, at + 8, nbytes, at + 8 + nbytes + -nbytes % 8
