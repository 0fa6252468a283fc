"""What the containers of video say about their own length, against the bytes that are there.

Decoders read what they find and stop where it ends; they do not tell that a file was cut off.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

__all__ = ["avi_frames", "container_damage"]

_UNFINISHED = "it was never finished: {}. Whatever recorded it was interrupted"
_PIECE = 1 << 20

# What the standards name at the outermost level of MP4 and MOV files.
_BOXES = frozenset(
    (b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"free", b"skip", b"wide", b"uuid", b"sidx",
     b"ssix", b"styp", b"pnot", b"udta", b"meta", b"prft", b"emsg", b"pdin", b"PICT", b"junk")
)  # fmt: skip

_CHUNK = re.compile(rb"[0-9A-Fa-f]{2}[a-zA-Z]{2}|ix[0-9]{2}|JUNK|junk|idx1|indx|LIST")

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_CRC, _VOID = 0xBF, 0xEC
# Information, tracks, places to seek to, cues, attachments, chapters, tags.
_IN_SEGMENT = frozenset(
    (_CLUSTER, _CRC, _VOID, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469,
     0x1043A770, 0x1254C367)
)  # fmt: skip
# Time, place, size of the one before, blocks in groups and alone, and what is no longer written.
_IN_CLUSTER = frozenset((_CRC, _VOID, 0xE7, 0xA7, 0xAB, 0xA0, 0xA3, 0x5854, 0xAF))


def container_damage(path: str) -> str:
    """Return what is wrong with the structure of a video file, for people; nothing where it fits.

    AVI: the sizes of RIFF lists; MP4 and MOV: those of boxes, and the table at the end of
    fragmented files; MKV and WebM: those of elements, and the checksums of those that have one. Any
    other container is taken as it is.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF":
            return _riff(file, size)
        if head[4:8] in _BOXES:
            return _boxes(file, size)
        if head[:4] == _EBML.to_bytes(4, "big"):
            return _Matroska(file, size).damage()
    return ""


def _beyond(what: str, end: int, size: int) -> str:
    return f"its {what} should end at byte {end}, but the file has {size} bytes"


# -- AVI -----------------------------------------------------------------------------------------


def _riff(file: BinaryIO, size: int) -> str:
    """Check the lists of an AVI file; long ones have several, one after the other."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        name, length, _ = struct.unpack("<4sI4s", file.read(12))
        if name != b"RIFF":  # what stands behind the last list belongs to nobody
            return ""
        if length in (0, 0xFFFFFFFF):
            return _UNFINISHED.format("its RIFF list has no size")
        end = at + 8 + length
        problem = _riff_chunks(file, at + 12, min(end, size), size)
        if problem:
            return problem
        # Some programs count the 8 bytes of the head too; all chunks were there.
        if end > size + 8:
            return _beyond("RIFF list", end, size)
        at = end + length % 2
    return ""


def _riff_chunks(file: BinaryIO, at: int, end: int, size: int) -> str:
    while at + 8 <= end:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        at += 8 + length + length % 2
        if at - length % 2 > size:
            return _beyond(f"part {_shown(name)}", at, size)
    return ""


def avi_frames(path: str, stream: int) -> int | None:
    """Return how many frames one stream of an AVI file has, those included that repeat the last.

    Chunks without bytes stand for frames that repeat the one before; decoders pass over them. None
    where this is no AVI file or its chunks do not follow each other as the format demands.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(4) != b"RIFF":
            return None
        counted, at = 0, 0
        while at + 12 <= size:
            file.seek(at)
            name, length, _ = struct.unpack("<4sI4s", file.read(12))
            if name != b"RIFF":
                break
            part = _movie_frames(file, at + 12, min(at + 8 + length, size), stream)
            if part is None:
                return None
            counted, at = counted + part, at + 8 + length + length % 2
    return counted


def _movie_frames(file: BinaryIO, at: int, end: int, stream: int) -> int | None:
    """Count the video chunks of one stream in the lists ``movi`` and ``rec`` of a RIFF list."""
    counted, in_movie = 0, end
    is_inside = False
    while at + 8 <= end:
        file.seek(at)
        head = file.read(12)
        name, length = struct.unpack("<4sI", head[:8])
        if is_inside and at >= in_movie:
            is_inside = False
        if name == b"LIST" and head[8:] in (b"movi", b"rec "):
            if head[8:] == b"movi":
                is_inside, in_movie = True, at + 8 + length
            at += 12
            continue
        if is_inside and not _CHUNK.fullmatch(name):
            return None
        counted += is_inside and name in (b"%02ddc" % stream, b"%02ddb" % stream)
        at += 8 + length + length % 2
    return counted


def _shown(name: bytes) -> str:
    return ascii(name.decode("latin-1"))


# -- MP4 and MOV ---------------------------------------------------------------------------------


class _Box(NamedTuple):
    name: bytes
    start: int
    end: int


def _outermost_boxes(file: BinaryIO, size: int) -> Iterator[_Box]:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))
        elif length == 0:  # up to the end of the file
            length = size - at
        yield _Box(name, at, at + max(length, 8))
        at += max(length, 8)


def _boxes(file: BinaryIO, size: int) -> str:
    names = []
    for box in _outermost_boxes(file, size):
        if box.name not in _BOXES:
            # Cameras leave notes behind the movie; within fragments a lost box is lost frames.
            if b"moof" in names or b"moov" not in names:
                return f"the part {_shown(box.name)} at byte {box.start} has no meaning"
            return ""
        if box.end > size:
            return _beyond(f"part {_shown(box.name)}", box.end, size)
        names.append(box.name)
    if b"moof" in names and b"mfra" not in names:
        return _UNFINISHED.format("it has fragments, and the table of them at its end is missing")
    if b"moov" not in names:
        return "the part 'moov', which says where the frames are, is missing"
    if b"moof" not in names and b"mdat" not in names:
        return "the part 'mdat', which holds the frames, is missing"
    return ""


# -- MKV and WebM --------------------------------------------------------------------------------


class _Element(NamedTuple):
    name: int
    start: int
    end: int | None  # None: of unknown size


class _Matroska:
    """The elements of an MKV or WebM file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def damage(self) -> str:
        """Return what is wrong, or nothing."""
        at, segments = 0, 0
        while at < self._size:
            element = self._element(at, self._size)
            if element is None or element.name not in (_EBML, _SEGMENT, _VOID, _CRC):
                return f"what stands at byte {at} is no element"
            if element.end is None:
                return _UNFINISHED.format("its segment has no size")
            if element.end > self._size:
                return _beyond("segment", element.end, self._size)
            if element.name == _SEGMENT:
                segments += 1
                problem = self._segment(element.start, element.end)
                if problem:
                    return problem
            at = element.end
        return "" if segments else "it has no segment"

    def _segment(self, at: int, end: int) -> str:
        while at < end:
            element = self._element(at, end)
            if element is None or element.name not in _IN_SEGMENT:
                return f"what stands at byte {at} is no element of a segment"
            if element.end is None:
                return _UNFINISHED.format("a cluster of frames has no size")
            if element.end > end:
                return _beyond("cluster" if element.name == _CLUSTER else "part", element.end, end)
            if element.name not in (_CRC, _VOID):
                if not self._matches_checksum(element.start, element.end):
                    return f"bytes {element.start} to {element.end} do not match their checksum"
                if element.name == _CLUSTER and not self._tiles(element.start, element.end):
                    return f"the blocks of frames from byte {element.start} on are damaged"
            at = element.end
        return ""

    def _tiles(self, at: int, end: int) -> bool:
        """Whether known elements fill a cluster exactly."""
        while at < end:
            element = self._element(at, end)
            if element is None or element.end is None or element.name not in _IN_CLUSTER:
                return False
            at = element.end
        return at == end

    def _matches_checksum(self, start: int, end: int) -> bool:
        """Whether an element matches the checksum that it begins with, where it has one."""
        self._file.seek(start)
        head = self._file.read(6)
        if head[:2] != bytes((_CRC, 0x84)) or end - start < 6:
            return True
        found, left = 0, end - start - 6
        while left > 0:
            piece = self._file.read(min(_PIECE, left))
            if not piece:
                return False
            found = zlib.crc32(piece, found)
            left -= len(piece)
        return found == int.from_bytes(head[2:], "little")

    def _element(self, at: int, end: int) -> _Element | None:
        """Return the element that begins at a byte; None where there is none."""
        self._file.seek(at)
        head = self._file.read(min(12, end - at))
        name, used = _number(head, 4, keep_marker=True)
        length, more = _number(head[used:], 8, keep_marker=False)
        if not used or not more:
            return None
        start = at + used + more
        unknown = length == (1 << (7 * more)) - 1
        return _Element(name, start, None if unknown else start + length)


def _number(data: bytes, longest: int, *, keep_marker: bool) -> tuple[int, int]:
    """Return a number of variable length and its bytes, which are 0 where there is none."""
    length = 9 - data[0].bit_length() if data else 9
    if length > min(longest, len(data)):
        return 0, 0
    value = int.from_bytes(data[:length], "big")
    return (value if keep_marker else value & ((1 << (7 * length)) - 1)), length
