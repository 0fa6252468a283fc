"""Recordings in one TIFF file: BigTIFF, OME-TIFF, ImageJ, ScanImage, plain stacks."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from scopeflow.errors import (
    DatasetNotFoundError,
    InputError,
    ScopeflowError,
    UnreadableFileError,
)
from scopeflow.io.locations import RemotePath, location, reaching
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import (
    AxisLayout,
    check_frame_range,
    check_video,
    parse_axes,
    resolve_layout,
)
from scopeflow.io.read.files import FileStamp, HandleCache, stamp_file
from scopeflow.io.read.tiff_metadata import (
    check_complete,
    read_metadata,
    scanimage_axes,
)

__all__ = ["TiffSource", "open_tiff"]

# More channels than ImageJ can show: a stack written without saying what its axes are.
IMAGEJ_CHANNELS = 7


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


@dataclass(frozen=True)
class TiffSource:
    """The pages of one TIFF file as a recording.

    Attributes
    ----------
    stamp : FileStamp
        The file.
    series : tuple of int
        Series read; several of equal pages follow each other in time.
    page_axes : int
        The first so many axes of ``layout`` run over pages, the others inside a page.
    layout : AxisLayout
        Axis order of pages and of the pixels in a page.
    offset : int or None
        Start of the pixels where all frames lie uncompressed in one piece.
    stored_dtype : str
        Type in the file, with byte order.
    dtype : numpy.dtype
        Native type.
    metadata : VideoMetadata
        Facts and origins.
    kind : str
        ``"OME-TIFF"``, ``"ImageJ TIFF"``, ``"ScanImage TIFF"`` or ``"TIFF"``.
    page_ends : tuple of int
        Pages up to the end of each series.
    other_paths : tuple of str
        Further files of a multi-file OME-TIFF.
    """

    stamp: FileStamp
    series: tuple[int, ...]
    page_axes: int
    layout: AxisLayout
    offset: int | None
    stored_dtype: str
    dtype: np.dtype[Any]
    metadata: VideoMetadata
    kind: str
    page_ends: tuple[int, ...]
    other_paths: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape ``(T, H, W, C)``."""
        return self.layout.video_shape

    @property
    def frames_per_chunk(self) -> int:
        """One: frames are separate pages or lie in one piece."""
        return 1

    @property
    def description(self) -> str:
        """Short name for people."""
        many = f"{len(self.series)} series" if len(self.series) > 1 else f"series {self.series[0]}"
        return f"{self.kind} {self.stamp.path}, {many}"

    @property
    def paths(self) -> tuple[str, ...]:
        """The file, and the others of a multi-file OME-TIFF."""
        return (self.stamp.path, *self.other_paths)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames ``start`` to ``stop``, shape ``(n, H, W, C)``.

        Raises
        ------
        InputError
            A range outside the recording, or a file that changed.
        UnreadableFileError
            A damaged page.
        """
        check_frame_range(start, stop, self.shape[0], self.description)
        index = self.layout.index(start, stop)
        place = location(self.stamp.path)
        if self.offset is not None and isinstance(place, RemotePath):
            self.stamp.check_unchanged()
            return self._fetch(place, start, stop)
        if self.offset is not None:
            # A mapped file that shrank would end the process, so look first.
            self.stamp.check_unchanged()
            mapped: NDArray[Any] = np.memmap(
                self.stamp.path, self.stored_dtype, "r", self.offset, self.layout.shape
            )
            return self.layout.to_video(np.asarray(mapped[index]), owned=False)
        page_shape = self.layout.shape[: self.page_axes]
        inner_shape = self.layout.shape[self.page_axes :]
        inner_index = index[self.page_axes :]
        numbers = np.arange(math.prod(page_shape)).reshape(page_shape)[index[: self.page_axes]]
        pages = [
            self._read_page(int(number)).reshape(inner_shape)[inner_index]
            for number in np.ravel(numbers)
        ]
        if not pages:
            return np.empty((0, *self.shape[1:]), self.dtype)
        block = np.stack(pages).reshape(*np.shape(numbers), *pages[0].shape)
        return self.layout.to_video(block.astype(self.dtype, copy=False), owned=True)

    def _fetch(self, place: RemotePath, start: int, stop: int) -> NDArray[Any]:
        """Return frames of a file without compression; only their bytes are fetched."""
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
            data = place.read_range(begin, begin + part.nbytes)
            part[...] = np.frombuffer(data, self.stored_dtype).reshape(part.shape)
        return self.layout.to_video(block[self.layout.index(0, length)], owned=False)

    def _read_page(self, number: int) -> NDArray[Any]:
        # The handle is kept while reading: a file closes when its handle is dropped.
        handle = _FILES.get(self.stamp)
        file = handle.value
        lock = file.filehandle.lock
        which = bisect_right(self.page_ends, number)
        first = self.page_ends[which - 1] if which else 0
        try:
            with lock:
                series = file.series[self.series[which]]
                page = series.pages[number - first]
                if page is None:
                    raise ValueError("the page is missing")
                if series.is_multifile:
                    # The other files of a set are opened only while they are read.
                    other = page.parent.filehandle
                    closed = other.closed
                    if closed:
                        other.open()
                    try:
                        return np.asarray(page.asarray(maxworkers=1))
                    finally:
                        if closed:
                            other.close()
            return np.asarray(page.asarray(maxworkers=1))
        except Exception as error:
            raise UnreadableFileError(
                f"{self.stamp.path}: page {number} cannot be read ({type(error).__name__}: "
                f"{error}). The file is damaged; restore it from the original."
            ) from error

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        return {
            "kind": self.kind,
            **self.stamp.facts(),
            "other_files": [stamp_file(path).facts() for path in self.other_paths],
            "series": list(self.series),
            "axes": self.layout.axes,
            "fixed": [list(pair) for pair in self.layout.fixed],
            "shape": list(self.shape),
            "dtype": self.dtype.str,
        }


def open_tiff(
    path: str | Path | RemotePath,
    *,
    axes: str | None = None,
    dataset: int | str | None = None,
    position: int | None = None,
    z: int | None = None,
    deinterleave: int | None = None,
) -> TiffSource:
    """Open a TIFF file as a recording; no pixel is read.

    Frames are the T axis; without one the Z axis or the pages. Channels are the C axis, or the
    samples of a pixel. One page of several planar samples is a short stack of frames, since
    programs write stacks of 3 or 4 frames that way. Series of equal pages follow each other in
    time: programs that append to a file begin a series with every block.

    Parameters
    ----------
    path : str, Path or RemotePath
        The file.
    axes : str, optional
        One letter for each stored axis; overrides the file.
    dataset : int or str, optional
        Number of the series to read where the file has several.
    position : int, optional
        Stage position, the series of an OME-TIFF.
    z : int, optional
        Plane to read where there are frames and planes.
    deinterleave : int, optional
        So many successive pages are the channels of one frame.

    Returns
    -------
    TiffSource
        The recording.

    Raises
    ------
    InputNotFoundError, UnreadableFileError, DatasetNotFoundError, InputError
        The file cannot be used: missing, damaged, pages missing, or axes without meaning.
    """
    stamp = stamp_file(path)
    name = str(path)
    handle = _FILES.get(stamp)
    file = handle.value
    with file.filehandle.lock:
        try:
            all_series = list(file.series)
        except Exception as error:
            raise UnreadableFileError(
                f"{name}: its pages cannot be understood ({error}). It may be damaged."
            ) from error
        if not all_series:
            raise UnreadableFileError(f"{name}: the TIFF holds no image.")
        kind = _kind(file)
        chosen = _choose_series(all_series, kind, name, dataset, position)
        try:
            check_complete(file, [all_series[number] for number in chosen], stamp.size, name)
        except ScopeflowError:
            raise
        except Exception as error:
            raise UnreadableFileError(
                f"{name}: its pages cannot be read ({error}). It is truncated or damaged; copy or "
                "save it again."
            ) from error
        first = all_series[chosen[0]]
        letters, shape, page_axes = _stored_axes(first, name)
        origin = f"{kind} metadata" if kind != "TIFF" else f"{first.kind} TIFF pages"
        note = ""
        keyframe = first.keyframe
        if kind == "ScanImage TIFF":
            pages = len(first.pages)
            page_letters, page_shape = scanimage_axes(keyframe, pages, name)
            letters = page_letters + str(keyframe.axes)
            shape = (*page_shape, *keyframe.shape)
            page_axes = len(page_shape)
        elif letters == "SYX" and page_axes == 0 and int(keyframe.planarconfig) == 2:
            letters, note = "TYX", "planar samples of one page taken as frames"
        elif kind == "ImageJ TIFF" and letters == "CYX" and shape[0] > IMAGEJ_CHANNELS:
            letters = "TYX"
            note = f"{shape[0]} channels taken as frames, ImageJ has at most {IMAGEJ_CHANNELS}"
        offset = first.dataoffset
        if len(chosen) > 1:
            offset = None
            note = f"{len(chosen)} series of equal pages taken as successive frames"
            if _is_stack(first):
                frames = sum(int(all_series[number].shape[0]) for number in chosen)
                letters, shape, page_axes = "T" + letters[1:], (frames, *shape[1:]), 1
            elif "T" in letters[:page_axes] and letters[0] == "T":
                shape = (shape[0] * len(chosen), *shape[1:])
            elif "T" in letters:
                raise InputError(
                    f"{name}: {len(chosen)} series with axes {letters} each; choose one with "
                    "dataset=0, dataset=1 ….",
                )
            else:
                letters, shape, page_axes = "T" + letters, (len(chosen), *shape), page_axes + 1
        if deinterleave is None and kind == "TIFF" and axes is None and len(chosen) == 1:
            deinterleave = _interleaved_channels(file)
            said = "interleaved_channels in the description"
        else:
            said = "deinterleave= argument"
        if deinterleave is not None:
            letters, shape, page_axes = _deinterleave(letters, shape, page_axes, deinterleave, name)
            origin, note = said, ""
        if axes is not None:
            letters, origin, note = parse_axes(axes, len(shape), name), "axes= argument", ""
        layout, remark = resolve_layout(letters, shape, name, z=z, planes_are_frames=True)
        dtype = check_video(layout.video_shape, first.dtype, name)
        note = "; ".join(text for text in (note, remark) if text)
        metadata = read_metadata(file, kind, chosen[0], layout.video_shape)
        others = sorted(
            {
                str(page.parent.filehandle.path)
                for number in chosen
                if all_series[number].is_multifile
                for page in all_series[number].pages
                if page is not None
            }
            - {str(file.filehandle.path)}
        )
        stored = np.dtype(first.dtype).newbyteorder(file.byteorder)
        page_ends = tuple(accumulate(len(all_series[number].pages) for number in chosen))
    origins = (
        ("axes", f"{letters}, {origin}" + (f"; {note}" if note else "")),
        ("shape", f"series {chosen[0]}"),
        ("frame_count", f"{page_ends[-1]} pages checked against the file"),
        ("dtype", "page tags"),
        *metadata.origins,
    )
    metadata = VideoMetadata(
        metadata.pixel_size_um, None, metadata.frame_interval_s, metadata.channel_names, origins
    )
    return TiffSource(
        stamp,
        tuple(chosen),
        page_axes,
        layout,
        offset,
        stored.str,
        dtype,
        metadata,
        kind,
        page_ends,
        tuple(others),
    )


def _kind(file: Any) -> str:
    if file.is_ome:
        return "OME-TIFF"
    if file.is_imagej:
        return "ImageJ TIFF"
    if file.is_scanimage:
        return "ScanImage TIFF"
    return "TIFF"


def _choose_series(
    series: list[Any], kind: str, name: str, dataset: int | str | None, position: int | None
) -> list[int]:
    listing = ", ".join(
        f"{number}: {item.axes} {item.shape} {item.dtype}"
        for number, item in list(enumerate(series))[:12]
    )
    if len(series) > 12:
        listing += f" … {len(series)} in all"
    if dataset is not None and position is not None:
        raise InputError(f"{name}: give either dataset= or position=, both name a series.")
    choice = dataset if dataset is not None else position
    if choice is not None:
        text = str(choice).strip()
        if not text.isdecimal() or int(text) >= len(series):
            raise DatasetNotFoundError(
                f"{name}: there is no series {choice!r}. Series: {listing}. Give its number."
            )
        return [int(text)]
    if len(series) == 1:
        return [0]
    if kind == "OME-TIFF":
        raise InputError(
            f"{name}: it holds {len(series)} images (stage positions): {listing}. "
            f"Choose one with position=0 … position={len(series) - 1}."
        )
    if len({(item.axes, tuple(item.shape), str(item.dtype)) for item in series}) == 1:
        return list(range(len(series)))
    if kind == "TIFF" and all(_is_stack(item) for item in series):
        first = series[0]
        wanted = (first.axes, tuple(first.shape[1:]), str(first.dtype))
        if all((s.axes, tuple(s.shape[1:]), str(s.dtype)) == wanted for s in series):
            return list(range(len(series)))
    raise InputError(
        f"{name}: it holds {len(series)} series of different shape or type: {listing}. "
        "Choose one with dataset=0, dataset=1 …."
    )


def _interleaved_channels(file: Any) -> int | None:
    """Return the number of channels that our suite2p export notes."""
    described: dict[str, Any] = (file.shaped_metadata or ({},))[0]
    count = described.get("interleaved_channels")
    return count if isinstance(count, int) and count > 1 else None


def _is_stack(series: Any) -> bool:
    """Whether a series is pages one after the other, without a meaning of their axis but time."""
    shape = tuple(series.shape)
    return (
        len(shape) > 2
        and series.axes[0] in "QIT"
        and len(series.pages) == shape[0]
        and math.prod(series.keyframe.shape) == math.prod(shape[1:])
    )


def _stored_axes(series: Any, name: str) -> tuple[str, tuple[int, ...], int]:
    """Return axes and shape of a series and how many of its leading axes run over pages."""
    letters = str(series.axes)
    shape = tuple(int(n) for n in series.shape)
    pages = len(series.pages)
    inner = math.prod(series.keyframe.shape)
    for axis in range(len(shape) + 1):
        if math.prod(shape[:axis]) == pages and math.prod(shape[axis:]) == inner:
            return letters, shape, axis
    if series.dataoffset is not None:
        return letters, shape, 0
    raise UnreadableFileError(
        f"{name}: its metadata declare axes {letters} {shape}, but it holds {pages} pages of "
        f"{series.keyframe.shape}. Pages are missing; copy or save the file again."
    )


def _deinterleave(
    letters: str, shape: tuple[int, ...], page_axes: int, channels: int, name: str
) -> tuple[str, tuple[int, ...], int]:
    frames = [axis for axis, letter in enumerate(letters) if letter not in "CSYX"]
    if len(frames) != 1 or "C" in letters:
        raise InputError(
            f"{name}: deinterleave={channels} splits successive pages, but the file already says "
            f"axes {letters}, shape {shape}. Leave deinterleave out."
        )
    axis = frames[0]
    if channels < 1 or shape[axis] % channels:
        raise InputError(
            f"{name}: {shape[axis]} pages cannot be split into frames of deinterleave={channels} "
            "channels. Check the number of channels; pages may be missing."
        )
    split = (shape[axis] // channels, channels)
    letters = letters[:axis] + "TC" + letters[axis + 1 :]
    return letters, shape[:axis] + split + shape[axis + 1 :], page_axes + (axis < page_axes)
