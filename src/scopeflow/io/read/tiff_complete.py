"""Whether a TIFF file holds all that it declares, and which frames lack pixels."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import UnreadableFileError
from scopeflow.io.read.axes import AxisLayout
from scopeflow.io.read.tiff_metadata import ome_pixels

__all__ = ["absent_of", "check_complete", "cut_piece", "declared_shape"]

_ADVICE = "The file is truncated or damaged; copy or save it again."
_MASK = ' With missing="mask" the frames that lack pixels are marked as invalid.'
# Bytes of a value of each type of TIFF.
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TYPE_SIZES |= {16: 8, 17: 8, 18: 8}


def check_complete(file: Any, series: list[Any], size: int, name: str, *, masked: bool) -> None:
    """Check that a TIFF file of so many bytes holds every page that it declares.

    `masked`: pages may be missing where the file tells which.
    Raises UnreadableFileError: the chain of pages breaks off, pixels or metadata lie beyond the end
        of the file, or the metadata declare another number of frames than there are.
    """
    advice = _ADVICE
    if not file.filehandle.is_file and file.is_ome:
        advice += " OME-TIFF of several files is not read from remote addresses; copy all of them."
    _check_tags(file, size, f"{name}: {{}} {advice}")
    pages = len(file.pages)
    beyond = _next_page_offset(file, file.pages[pages - 1])
    declared = _declared_pixels(file)
    held = sum(item.size for item in file.series)
    # The shape of a stack in one piece is in its description, not in the chain of pages.
    is_piece = series[0].dataoffset is not None and declared is not None and declared[0] == held
    masked = masked and len(series) == 1
    if beyond and not (masked and (file.is_ome or is_piece)):
        counted = "" if not masked else "Nothing tells which frames are missing. "
        raise UnreadableFileError(
            f"{name}: the file breaks off after {pages} pages: the next one should stand at byte "
            f"{beyond}, but the file has {size} bytes. {counted}{advice}"
            + (_MASK if file.is_ome or is_piece else "")
        )
    for item in series:
        if not masked:
            _check_series(file, item, size, name, advice)
    for problem in (_fewer_declared(file, masked=masked), _declared_apart(file)):
        if problem:
            raise UnreadableFileError(
                f"{name}: {problem}. Pages are missing or the description is not of this file; "
                "copy it again, or save it again with the program that made it."
            )
    if declared is not None and declared[0] > held and not (masked and file.is_imagej):
        plane = math.prod(series[0].keyframe.shape)
        raise UnreadableFileError(
            f"{name}: its metadata declare {declared[1]}, that is {declared[0] // plane} planes, "
            f"but the file holds {held // plane}. {advice}" + (_MASK if file.is_imagej else "")
        )


def _check_series(file: Any, item: Any, size: int, name: str, advice: str) -> None:
    # Only OME metadata name planes that may be missing; looking at each page takes a while.
    if file.is_ome and any(page is None for page in item.pages):
        lacking = [number for number, page in enumerate(item.pages) if page is None]
        files = _files_that_are_gone(file)
        where = f" (the files {', '.join(files)} are not beside it)" if files else ""
        raise UnreadableFileError(
            f"{name}: {len(lacking)} of {len(item.pages)} planes that its metadata declare are "
            f"missing, the first is plane {lacking[0]}{where}; it holds "
            f"{len(item.pages) - len(lacking)}. {advice}{_MASK}"
        )
    end = 0
    if item.dataoffset is not None:
        end = item.dataoffset + item.nbytes
    elif not item.is_multifile:
        end = _end(item.pages[len(item.pages) - 1])
    if end > size:
        raise UnreadableFileError(
            f"{name}: {len(item.pages)} pages of {item.shape} need {end} bytes, but the file "
            f"has {size}. {advice}{_MASK}"
        )


def _end(page: Any) -> int:
    """Return the byte behind the pixels of a page."""
    parts = zip(page.dataoffsets, page.databytecounts, strict=False)
    return max((int(offset + count) for offset, count in parts), default=0)


def cut_piece(file: Any) -> tuple[str, tuple[int, ...], int] | None:
    """Return axes, shape and start of the pixels of an ImageJ stack in one piece that was cut.

    The library takes it for its first image, where the file is shorter than the description says.
    """
    page = file.pages[0]
    declared = _declared_pixels(file)
    if not file.is_imagej or declared is None or len(file.pages) > 1 or not page.is_contiguous:
        return None
    facts = file.imagej_metadata or {}
    named = [("T", "frames"), ("Z", "slices"), ("C", "channels")]
    counts = [(letter, _count(facts.get(key)) or 1) for letter, key in named]
    if math.prod(count for _, count in counts) * math.prod(page.shape) != declared[0]:
        counts = [("T", declared[0] // math.prod(page.shape))]
    letters = "".join(letter for letter, count in counts if count > 1)
    shape = tuple(count for _, count in counts if count > 1)
    return letters + str(page.axes), (*shape, *page.shape), int(page.dataoffsets[0])


def absent_of(
    item: Any, layout: AxisLayout, outer: int, size: int, offset: int | None
) -> tuple[int, ...]:
    """Return the frames of a series that lack pixels in a file of so many bytes.

    `outer`: leading axes that run over pages.
    `offset`: start of the pixels where they lie in one piece.
    """
    if offset is not None:
        itemsize = np.dtype(item.dtype).itemsize
        outer = min(layout.axes.index("Y"), layout.axes.index("X"))
        each = math.prod(layout.shape[outer:]) * itemsize
        whole = max(0, size - offset) // each
        count = math.prod(layout.shape[:outer])
        lacking = np.arange(count) >= whole
    else:
        lacking = np.ones(math.prod(layout.shape[:outer]), bool)
        lacking[: len(item.pages)] = [_is_lacking(item, page, size) for page in item.pages]
    return _frames(layout, lacking.reshape(layout.shape[:outer]))


def declared_shape(file: Any, letters: str, shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Return the shape of an ImageJ stack with the frames that its description names.

    Raises UnreadableFileError: other axes than that of the frames are slower.
    """
    declared = _declared_pixels(file)
    if not file.is_imagej or declared is None or declared[0] <= math.prod(shape):
        return shape
    frames, rest = divmod(declared[0], math.prod(shape[1:]))
    if rest or letters[0] in "YXSC" or "T" in letters[1:]:
        raise UnreadableFileError(
            f"{name}: its metadata declare {declared[1]}, but it holds axes {letters} {shape}. "
            f"Nothing tells which frames are missing. {_ADVICE}"
        )
    return (frames, *shape[1:])


def _is_lacking(item: Any, page: Any, size: int) -> bool:
    return page is None or (not item.is_multifile and _end(page) > size)


def _frames(layout: AxisLayout, lacking: NDArray[np.bool_]) -> tuple[int, ...]:
    """Return the frames to which planes belong, in those that the layout chooses."""
    outer = lacking.ndim
    index = layout.index(0, layout.video_shape[0])[:outer]
    chosen = lacking[index]
    letters = [
        letter
        for letter, one in zip(layout.axes[:outer], index, strict=True)
        if isinstance(one, slice)
    ]
    if "T" not in letters:
        return tuple(range(layout.video_shape[0])) if chosen.any() else ()
    others = tuple(axis for axis, letter in enumerate(letters) if letter != "T")
    return tuple(np.flatnonzero(chosen.any(axis=others)).tolist())


def _entries(file: Any, page: Any) -> Iterator[tuple[int, int]]:
    """Yield code and end, in bytes, of what the tags of a page hold elsewhere in the file."""
    tiff, handle = file.tiff, file.filehandle
    handle.seek(page.offset)
    count = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))[0]
    table = handle.read(count * tiff.tagsize)
    inline = tiff.tagsize - 4 - tiff.offsetsize  # bytes that count the values
    form = f"{tiff.byteorder}HH{'Q' if inline == 8 else 'I'}{'Q' if inline == 8 else 'I'}"
    for at in range(0, len(table) - tiff.tagsize + 1, tiff.tagsize):
        code, kind, values, place = struct.unpack_from(form, table, at)
        length = _TYPE_SIZES.get(kind, 0) * values
        if length > tiff.offsetsize:
            yield code, place + length


def _check_tags(file: Any, size: int, message: str) -> None:
    """Raise UnreadableFileError where metadata lie beyond the end of the file.

    The library leaves them out, so that a file without its description looks like a plain one.
    """
    if not getattr(file.pages[0], "offset", None):
        return
    for code, end in _entries(file, file.pages[0]):
        if end > size:
            what = f"what tag {code} of its first page says ends at byte {end}, but the file has "
            raise UnreadableFileError(message.format(f"{what}{size} bytes."))


def _next_page_offset(file: Any, page: Any) -> int:
    """Return where the page after ``page`` should stand, 0 at the end of the chain."""
    tiff = file.tiff
    offset = getattr(page, "offset", None)
    # Pages that tifffile derives from the first one have no place of their own.
    if not offset:
        return 0
    handle = file.filehandle
    handle.seek(offset)
    count = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))[0]
    handle.seek(offset + tiff.tagnosize + count * tiff.tagsize)
    raw = handle.read(tiff.offsetsize)
    if len(raw) < tiff.offsetsize:
        return offset + tiff.tagnosize + count * tiff.tagsize
    return int(struct.unpack(tiff.offsetformat, raw)[0])


def _fewer_declared(file: Any, *, masked: bool) -> str:
    """Say that metadata name fewer planes than the file has pages; the others would be lost.

    Unless planes are ``masked`` for which the metadata name a page that is not there.
    """
    pages = len(file.pages)
    if file.is_ome:
        if masked and any(page is None for item in file.series for page in item.pages):
            return ""
        used = {
            page.index
            for item in file.series
            for page in item.pages
            if page is not None and page.parent is file
        }
        if any(item.dataoffset is not None for item in file.series) and len(used) < pages:
            used |= set(range(sum(len(item.pages) for item in file.series)))
        planes = min(_planes_of_images(file), default=1)
        if planes < 1:
            return f"its OME-XML names {planes} planes, but it has {pages} pages"
        if len(used) < pages and _has_other_planes(file, used):
            return f"its OME-XML names {len(used)} planes, but it has {pages} pages"
    elif file.is_imagej:
        images = _count((file.imagej_metadata or {}).get("images"))
        if images is not None and pages > 1 and images < pages:
            return f"its ImageJ description names images={images}, but it has {pages} pages"
    return ""


def _has_other_planes(file: Any, used: set[int]) -> bool:
    """Return whether pages that no metadata name may be planes; labels have another size."""
    shapes = {item.keyframe.shape for item in file.series}
    others = (n for n in range(len(file.pages)) if n not in used)
    return any(file.pages.get(n, aspage=True).shape in shapes for n in others)


def _planes_of_images(file: Any) -> list[int]:
    """Return how many planes OME-XML names of each image."""
    return [
        math.prod(int(pixels.attrib.get(f"Size{axis}", 1)) for axis in "TCZ")
        for pixels in ome_pixels(file)
    ]


def _declared_apart(file: Any) -> str:
    """Say that the numbers that ImageJ writes contradict each other."""
    if not file.is_imagej:
        return ""
    facts = file.imagej_metadata or {}
    counts = {key: _count(facts.get(key)) for key in ("channels", "slices", "frames")}
    named = {key: count for key, count in counts.items() if count is not None}
    images = _count(facts.get("images"))
    if images is None or not named or math.prod(named.values()) == images:
        return ""
    listed = ", ".join(f"{key}={count}" for key, count in named.items())
    return f"its ImageJ description names images={images}, but {listed}"


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _files_that_are_gone(file: Any) -> list[str]:
    """Return the names of further files of an OME-TIFF that are not beside it, the first few."""
    folder = getattr(file.filehandle, "dirname", "")
    named = {
        str(element.attrib["FileName"])
        for pixels in ome_pixels(file)
        for element in pixels.iter()
        if element.tag.endswith("UUID") and "FileName" in element.attrib
    }
    return [one for one in sorted(named) if not _exists(folder, one)][:5]


def _exists(folder: str, name: str) -> bool:
    try:
        return (Path(folder) / name).is_file()
    except (OSError, ValueError):
        return False


def _declared_pixels(file: Any) -> tuple[int, str] | None:
    """Return the pixels that the metadata of the whole file declare, and in which words."""
    page = file.pages[0]
    plane = math.prod(page.shape)
    if file.is_ome:
        planes = 0
        for pixels in ome_pixels(file):
            counts = [int(pixels.attrib.get(f"Size{axis}", 1)) for axis in "TCZYX"]
            planes += math.prod(counts)
        return (planes, "OME-XML sizes") if planes else None
    if file.is_imagej:
        images = _count((file.imagej_metadata or {}).get("images")) or 1
        return images * plane, f"images={images}"
    if file.is_shaped:
        shapes = [tuple(item["shape"]) for item in file.shaped_metadata or () if "shape" in item]
        return sum(math.prod(shape) for shape in shapes), f"shape {shapes[0]}"
    return None
