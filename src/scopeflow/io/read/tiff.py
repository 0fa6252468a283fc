"""Recordings in one TIFF file: BigTIFF, OME-TIFF, ImageJ, ScanImage, plain stacks."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from scopeflow.errors import InputError, ScopeflowError, UnreadableFileError
from scopeflow.io.locations import Location, RemotePath, location, reaching
from scopeflow.io.read.axes import check_video, resolve_layout
from scopeflow.io.read.files import HandleCache, stamp_file
from scopeflow.io.read.source import LayoutSource
from scopeflow.io.read.tiff_complete import absent_of, check_complete, cut_piece, declared_shape
from scopeflow.io.read.tiff_metadata import read_metadata
from scopeflow.io.read.tiff_series import choose_series, page_axes

__all__ = ["TiffSource", "open_tiff"]


def _open_file(path: str) -> Any:
    place = location(path)
    try:
        if isinstance(place, RemotePath):
            with reaching(place):
                file = tifffile.TiffFile(place.open(), name=place.name)
        else:
            file = tifffile.TiffFile(path)
        # Pages are looked up and read under the file's own lock, and decoded outside of it.
        file.filehandle.set_lock(True)
        len(file.pages)
    except UnreadableFileError:
        raise
    except Exception as error:
        raise UnreadableFileError(
            f"{path}: cannot be opened as TIFF ({error}). It is damaged or of another format; "
            "copy or save it again."
        ) from error
    return file


_FILES: HandleCache[Any] = HandleCache(_open_file)


@dataclass(frozen=True, kw_only=True)
class TiffSource(LayoutSource):
    """The pages of one TIFF file as a recording.

    `series`: series read; several of equal pages follow each other in time.
    `page_axes`: the first so many axes of ``layout`` run over pages, the others inside a page.
    `offset`: start of the pixels where all frames lie uncompressed in one piece.
    `stored_dtype`: type in the file, with byte order.
    `page_ends`: pages up to the end of each series.
    """

    series: tuple[int, ...]
    page_axes: int
    offset: int | None
    stored_dtype: str
    page_ends: tuple[int, ...]
    other_paths: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The file, and the others of a multi-file OME-TIFF."""
        return (self.stamp.path, *self.other_paths)

    def _part(self) -> str:
        return f"{len(self.series)} series" if len(self.series) > 1 else f"series {self.series[0]}"

    def _choices(self) -> dict[str, object]:
        others = [stamp_file(path).facts() for path in self.other_paths]
        return {"other_files": others, "series": list(self.series), **super()._choices()}

    @property
    def _is_mapped(self) -> bool:
        return self.offset is not None

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        index = self.layout.index(start, stop)
        if self.offset is not None:
            place = location(self.stamp.path)
            if isinstance(place, RemotePath) or self.absent:  # a file that ends early is not mapped
                return self._fetch(place, start, stop)
            mapped: NDArray[Any] = np.memmap(
                self.stamp.path, self.stored_dtype, "r", self.offset, self.layout.shape
            )
            return self.layout.to_video(np.asarray(mapped[index]), owned=False)
        page_shape = self.layout.shape[: self.page_axes]
        inner_shape = self.layout.shape[self.page_axes :]
        inner_index = index[self.page_axes :]
        numbers = np.arange(math.prod(page_shape)).reshape(page_shape)[index[: self.page_axes]]
        empty = np.broadcast_to(np.zeros((), self.stored_dtype), inner_shape)[inner_index]
        there = self._is_there(start, np.shape(numbers))
        pages = [
            self._read_page(int(number)).reshape(inner_shape)[inner_index] if is_there else empty
            for number, is_there in zip(np.ravel(numbers), there, strict=True)
        ]
        if not pages:
            return np.empty((0, *self.shape[1:]), self.dtype)
        block = np.stack(pages).reshape(*np.shape(numbers), *pages[0].shape)
        return self.layout.to_video(block.astype(self.dtype, copy=False), owned=True)

    def _is_there(self, start: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return for each of so many chosen pages whether it is of a frame that is not absent."""
        there = np.ones(shape, bool)
        if self.absent:
            fixed = dict(self.layout.fixed)
            letters = [
                letter
                for axis, letter in enumerate(self.layout.axes[: self.page_axes])
                if axis not in fixed
            ]
            if "T" not in letters:
                return np.zeros(shape, bool).ravel()
            frames = np.moveaxis(there, letters.index("T"), 0)
            absent = set(self.absent)
            for n in range(len(frames)):
                frames[n] = start + n not in absent
        return there.ravel()

    def _fetch(self, place: Location, start: int, stop: int) -> NDArray[Any]:
        """Return frames of a file without compression; only their bytes are fetched.

        Bytes behind the end of the file, which only absent frames have, are zero.
        """
        assert self.offset is not None
        shape = self.layout.shape
        time = max(0, self.layout.axes.find("T"))
        length = stop - start if "T" in self.layout.axes else shape[0]
        block = np.empty((*shape[:time], length, *shape[time + 1 :]), self.stored_dtype)
        step = math.prod(shape[time + 1 :]) * block.itemsize
        for row, outer in enumerate(np.ndindex(*shape[:time])):
            part = block[outer]
            if part.size == 0:
                continue
            begin = self.offset + (row * shape[time] + start) * step
            if isinstance(place, RemotePath):
                data = place.read_range(begin, begin + part.nbytes)
            else:
                with place.open("rb") as file:
                    file.seek(begin)
                    data = file.read(part.nbytes)
            if self.absent:
                data = data.ljust(part.nbytes, b"\0")
            part[...] = np.frombuffer(data, self.stored_dtype).reshape(part.shape)
        return self.layout.to_video(block[self.layout.index(0, length)], owned=False)

    def _read_page(self, number: int) -> NDArray[Any]:
        # The handle is kept while reading: a file closes when its handle is dropped.
        handle = _FILES.get(self.stamp)
        file = handle.value
        which = bisect_right(self.page_ends, number)
        first = self.page_ends[which - 1] if which else 0
        with self._reading(f"page {number}"):
            with file.filehandle.lock:
                series = file.series[self.series[which]]
                page = series.pages[number - first]
                if page is None:
                    raise ValueError("the page is missing")
                if series.is_multifile:
                    with _opened(page.parent.filehandle):
                        return np.asarray(page.asarray(maxworkers=1))
            # Decoded outside the lock, by many threads at once.
            return np.asarray(page.asarray(maxworkers=1))


@contextmanager
def _opened(handle: Any) -> Iterator[None]:
    """Open another file of a set, only while it is read: a set may have more than a process may."""
    closed = handle.closed
    if closed:
        handle.open()
    try:
        yield
    finally:
        if closed:
            handle.close()


def open_tiff(
    path: str | Path | RemotePath,
    *,
    axes: str | None = None,
    dataset: int | str | None = None,
    position: int | None = None,
    z: int | None = None,
    deinterleave: int | None = None,
    missing: str = "error",
) -> TiffSource:
    """Open a TIFF file as a recording; no pixel is read.

    Frames are the T axis; without one the Z axis or the pages. Channels are the C axis, or the
    samples of a pixel, or ``deinterleave`` successive pages. One page of several planar samples is
    a short stack of frames, since programs write stacks of 3 or 4 frames that way. Series of equal
    pages follow each other in time: programs that append to a file begin a series with every block.
    ``dataset`` or ``position`` (of an OME-TIFF) numbers one series. ``missing="mask"``: frames that
    lack pixels are ``absent``, where the file tells which they are.

    Raises InputNotFoundError, UnreadableFileError, DatasetNotFoundError, InputError: the file
        cannot be used: missing, damaged, pages missing, or axes without meaning.
    """
    if missing not in ("error", "mask"):
        raise InputError(
            f'{path}: missing="{missing}" has no meaning for TIFF. Use missing="mask" to mark '
            "frames that lack pixels as invalid."
        )
    masked = missing == "mask"
    stamp = stamp_file(path)
    name = str(path)
    handle = _FILES.get(stamp)
    file = handle.value
    with file.filehandle.lock:
        all_series = _series(file, name)
        kind = _kind(file)
        chosen = choose_series(all_series, kind, name, dataset, position)
        series = [all_series[number] for number in chosen]
        try:
            check_complete(file, series, stamp.size, name, masked=masked)
        except ScopeflowError:
            raise
        except Exception as error:
            raise UnreadableFileError(
                f"{name}: its pages cannot be read ({error}). It is truncated or damaged; copy or "
                "save it again."
            ) from error
        first = series[0]
        pages = page_axes(file, series, kind, name, axes=axes, deinterleave=deinterleave)
        offset = first.dataoffset if len(chosen) == 1 else None
        if masked and len(series) == 1:
            piece = cut_piece(file) if first.size == first.keyframe.size else None
            if piece is not None:
                pages = pages._replace(letters=piece[0], shape=piece[1], outer=0)
                offset = piece[2]
            else:
                shape = declared_shape(file, pages.letters, pages.shape, name)
                pages = pages._replace(shape=shape)
        layout, remark = resolve_layout(
            pages.letters, pages.shape, name, z=z, planes_are_frames=True
        )
        dtype = check_video(layout.video_shape, first.dtype, name)
        note = "; ".join(text for text in (pages.note, remark) if text)
        metadata = read_metadata(file, kind, chosen[0], layout.video_shape, name)
        absent: tuple[int, ...] = ()
        if masked and len(series) == 1:
            absent = absent_of(first, layout, pages.outer, stamp.size, offset)
        page_ends = tuple(accumulate(len(item.pages) for item in series))
        origins = (
            ("axes", f"{pages.letters}, {pages.origin}" + (f"; {note}" if note else "")),
            ("shape", f"series {chosen[0]}"),
            ("frame_count", f"{page_ends[-1]} pages checked against the file"),
            ("dtype", "page tags"),
            *metadata.origins,
        )
        return TiffSource(
            stamp=stamp,
            shape=layout.video_shape,
            dtype=dtype,
            metadata=replace(metadata, origins=origins),
            kind=kind,
            absent=absent,
            layout=layout,
            series=tuple(chosen),
            page_axes=pages.outer,
            offset=offset,
            stored_dtype=np.dtype(first.dtype).newbyteorder(file.byteorder).str,
            page_ends=page_ends,
            other_paths=_other_paths(file, series),
        )


def _series(file: Any, name: str) -> list[Any]:
    try:
        found = list(file.series)
    except Exception as error:
        raise UnreadableFileError(
            f"{name}: its pages cannot be understood ({error}). It may be damaged."
        ) from error
    if not found:
        raise UnreadableFileError(f"{name}: the TIFF holds no image.")
    return found


def _other_paths(file: Any, series: list[Any]) -> tuple[str, ...]:
    """Return the further files that hold pages, of a multi-file OME-TIFF."""
    paths = {
        str(page.parent.filehandle.path)
        for item in series
        if item.is_multifile
        for page in item.pages
        if page is not None
    }
    return tuple(sorted(paths - {str(file.filehandle.path)}))


def _kind(file: Any) -> str:
    if file.is_ome:
        return "OME-TIFF"
    if file.is_imagej:
        return "ImageJ TIFF"
    if file.is_scanimage:
        return "ScanImage TIFF"
    return "TIFF"
