"""Where an HDF5 file has the values of a dataset, and which of them are not there.

HDF5 reads what was never written, and what a virtual dataset takes from a file that is gone, as the
fill value. It follows virtual datasets that are their own source until the process ends, and reads
external files and sources whatever they are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import h5py
from h5py import h5d

from scopeflow.errors import ScopeflowError, UnreadableFileError
from scopeflow.io.locations import RemotePath, location
from scopeflow.io.read.boxes import Box, TooManyPartsError, cut, mapped, selected, uncovered, whole
from scopeflow.io.read.files import FileStamp, stamp_file
from scopeflow.io.read.hdf5_mappings import (
    MOST_SOURCES,
    Mapping,
    address,
    candidates,
    fits,
    folders,
    mappings,
    member,
)
from scopeflow.io.zarr.grid import ChunkGrid
from scopeflow.strict.values import excerpt

__all__ = ["Lack", "SourceFile", "StorageWalk"]

_DEEPEST = 16


@dataclass(frozen=True)
class Lack:
    """Values of a dataset that are not there.

    `gap`: a clause for people that names the first of them. `left_out`: the writer may have left
    them out since they are the fill value.
    """

    boxes: tuple[Box, ...]
    gap: str
    left_out: bool


@dataclass(frozen=True)
class SourceFile:
    """A file that a virtual dataset has values in, of frames between two or of all of these."""

    stamp: FileStamp
    start: int
    stop: int


@dataclass
class StorageWalk:
    """Looks at where datasets of one file have their values; reads none of these.

    `path`: the file. `sources` collects the other files that hold values, and for which frames.
    """

    path: str
    sources: dict[str, SourceFile] = field(default_factory=dict)
    _frames: tuple[int, int] | None = None
    _harmless: set[tuple[str, int]] = field(default_factory=set)

    def check_circles(self, data: Any) -> None:
        """Refuse a virtual dataset that is its own source, or has its values in external storage.

        To be called before its shape is asked for, which may follow its sources.
        """
        if data.id.get_create_plist().get_layout() == h5d.VIRTUAL:
            self._check(data, self.path, ())

    def _check(self, data: Any, path: str, trail: tuple[tuple[str, int], ...]) -> None:
        plist = data.id.get_create_plist()
        if plist.get_external_count():
            names = ", ".join(repr(os.fsdecode(one[0])) for one in data.external or ())
            raise UnreadableFileError(
                f"{path}, {data.name}: its values are those of other files ({excerpt(names)}), "
                "which HDF5 calls external storage. Any file could be named there, so they are not "
                "read. Copy the values into the file itself."
            )
        if plist.get_layout() != h5d.VIRTUAL:
            return
        here = (os.path.realpath(path), address(data))
        if here in trail:
            raise UnreadableFileError(
                f"{self.path}: the virtual dataset {data.name} of {path} is its own source, "
                "directly or through others, and so has no values. The file is damaged; make it "
                "again"
            )
        if len(trail) >= _DEEPEST:
            raise UnreadableFileError(
                f"{self.path}: the virtual dataset {data.name} has its values in others that have "
                f"theirs in others, more than {_DEEPEST} times. Copy the values into one file"
            )
        if here in self._harmless:
            return
        for mapping in mappings(data):
            for file, name in mapping.all_names():
                with self._source(data, path, file, name) as (source, where, _):
                    if source is None:
                        if mapping.is_numbered:
                            break  # the first that is missing ends the sequence
                        continue
                    self._check(source, where, (*trail, here))
        self._harmless.add(here)

    def lacks(
        self, data: Any, time: int | None, fixed: tuple[tuple[int, int], ...] = ()
    ) -> list[Lack]:
        """Return which values of a dataset are not there.

        `time`, `fixed`: axis of the frames, and axes of which only one index is needed.

        Raises UnreadableFileError: the values are in external storage, in more parts than can be
            checked, or in sources that a later one shows to be missing.
        """
        self._check(data, self.path, ())
        try:
            if data.id.get_create_plist().get_layout() == h5d.VIRTUAL:
                return self._virtual_lacks(data, self.path, time)
            return self._lacks(data, self.path, time, fixed)
        except TooManyPartsError:
            raise UnreadableFileError(
                f"{self.path}, {data.name}: the virtual dataset consists of more parts than can be "
                "checked. Copy its values into one dataset"
            ) from None

    def _lacks(
        self, data: Any, path: str, time: int | None, fixed: tuple[tuple[int, int], ...]
    ) -> list[Lack]:
        layout = data.id.get_create_plist().get_layout()
        shape = tuple(int(n) for n in data.shape)
        name = f"the dataset {data.name}" + (f" of {path}" if path != self.path else "")
        if layout == h5d.VIRTUAL:
            return self._virtual_lacks(data, path, time, is_source=True)
        if layout == h5d.CHUNKED:
            grid = ChunkGrid(shape, data.chunks, "", ".", time, fixed)
            counts = [-(-n // size) for n, size in zip(shape, data.chunks, strict=True)]
            if data.id.get_num_chunks() >= prod(counts):
                return []
            gaps = grid.gaps_between(_chunks(data, grid))
            if gaps is None:
                return []
            boxes = [_frames_box(shape, time, span) for span in gaps.spans]
            return [Lack(tuple(boxes), f"{name} lacks its chunk {gaps.first}", True)]
        if (
            layout == h5d.CONTIGUOUS
            and data.id.get_space_status() == h5d.SPACE_STATUS_NOT_ALLOCATED
        ):
            return [Lack((whole(shape),), f"{name} was never written", True)]
        return []

    def _virtual_lacks(
        self, data: Any, path: str, time: int | None, *, is_source: bool = False
    ) -> list[Lack]:
        shape = tuple(int(n) for n in data.shape)
        lacks: list[Lack] = []
        covered: list[Box] = []
        for mapping in mappings(data):
            for target, file, name in self._parts(data, path, mapping, shape):
                covered += target
                if target and not is_source:
                    self._frames = _span(target, time)
                if target:
                    lacks += self._part_lacks(data, path, file, name, mapping.source, target)
            if len(covered) > MOST_SOURCES:
                raise TooManyPartsError
        left = uncovered(shape, covered)
        if left:
            gap = f"the virtual dataset {data.name} has no source for a part of it"
            lacks.append(Lack(tuple(left), gap, True))
        return lacks

    def _parts(
        self, data: Any, path: str, mapping: Mapping, shape: tuple[int, ...]
    ) -> Iterator[tuple[list[Box], str, str]]:
        """Yield where each source goes, and its names."""
        if not mapping.is_numbered:
            yield selected(mapping.target, shape), *mapping.names(0)
            return
        number = 0
        while True:
            target = selected(mapping.target, shape, number)
            inside = [box for box in target if cut(box, whole(shape)) is not None]
            if not inside or number > MOST_SOURCES:
                break
            yield inside, *mapping.names(number)
            number += 1
        if number == 0:
            file, name = mapping.names(0)
            raise UnreadableFileError(
                f"{path}, {data.name}: the virtual dataset has no frames, since its first source "
                f"{name!r} in {excerpt(repr(file))} is missing. Copy the recording again"
            )
        later = self._later(data, path, mapping, number)
        if later is not None:
            raise UnreadableFileError(
                f"{path}, {data.name}: the source {mapping.names(number)[0]!r}, "
                f"{mapping.names(number)[1]!r} is missing, though a later one is there "
                f"({later!r}); the virtual dataset ends before it. Copy the recording again"
            )

    def _later(self, data: Any, path: str, mapping: Mapping, number: int) -> str | None:
        """Return a source after the last one of a sequence, which should then not be the last."""
        is_file, folder, expected = mapping.number_pattern()
        if is_file:
            found = folders(path, folder, mapping.file)
            names = [name for place in found if os.path.isdir(place) for name in os.listdir(place)]
        else:
            with self._source(data, path, mapping.names(0)[0], folder or "/") as (group, _, _):
                names = list(group) if isinstance(group, h5py.Group) else []
        later = [name for name in names if (m := expected.fullmatch(name)) and int(m[1]) > number]
        return min(later) if later else None

    def _part_lacks(
        self, data: Any, path: str, file: str, name: str, space: Any, target: list[Box]
    ) -> list[Lack]:
        with self._source(data, path, file, name) as (source, where, why):
            if source is None or not isinstance(source, h5py.Dataset):
                told = why or "it is no dataset"
                gap = f"the source {name!r} of {data.name} in {excerpt(repr(where))} {told}"
                return [Lack(tuple(target), gap, False)]
            shape = tuple(int(n) for n in source.shape or ())
            if not fits(space, shape, target):
                gap = (
                    f"the source {name!r} of {data.name} in {where!r} has the shape {shape}, "
                    "smaller than what is taken from it"
                )
                return [Lack(tuple(target), gap, False)]
            found = self._lacks(source, where, 0 if shape else None, ())
            taken = selected(space, shape) if found else []
            return [
                Lack(tuple(places), lack.gap, lack.left_out)
                for lack in found
                if (places := [p for box in lack.boxes for p in mapped(box, taken, target)])
            ]

    @contextmanager
    def _source(
        self, data: Any, path: str, file: str, name: str
    ) -> Iterator[tuple[Any, str, str | None]]:
        """Open a source for the duration of the block: it, its file, or why it is not there."""
        if file == ".":
            yield member(data.file, name), path, "is missing"
            return
        if isinstance(location(self.path), RemotePath):
            raise UnreadableFileError(
                f"{self.path}, {data.name}: its values are in {excerpt(repr(file))}, "
                "another file, which is not read from a remote one. Copy them into one file"
            )
        # HDF5 tries one after the other, and opening a pipe would never end.
        there = [one for one in candidates(path, file) if os.path.exists(one)]
        if not there:
            yield None, file, "is missing: there is no such file"
            return
        found = there[0]
        if not all(stat.S_ISREG(os.stat(one).st_mode) for one in there):
            found = next(one for one in there if not stat.S_ISREG(os.stat(one).st_mode))
            raise UnreadableFileError(
                f"{self.path}, {data.name}: its source {found} is no regular file, but a folder, a "
                "pipe or a device, and is not read. Make the virtual dataset again"
            )
        try:
            self._remember(stamp_file(found))
            opened = h5py.File(found, "r", locking="best-effort")
        except ScopeflowError as error:
            yield None, found, f"cannot be read ({error})"
            return
        except Exception as error:
            yield None, found, f"cannot be opened ({excerpt(str(error))})"
            return
        with opened:
            yield member(opened, name), found, "is missing"

    def _remember(self, stamp: FileStamp) -> None:
        if self._frames is None or stamp.path == self.path:
            return
        start, stop = self._frames
        known = self.sources.get(stamp.path)
        if known is not None:
            start, stop = min(start, known.start), max(stop, known.stop)
        self.sources[stamp.path] = SourceFile(stamp, start, stop)


def _span(boxes: list[Box], time: int | None) -> tuple[int, int]:
    """Return the first frame of boxes, and the one after the last."""
    if time is None:
        return 0, 1
    return min(box[time][0] for box in boxes), max(box[time][1] for box in boxes)


def _frames_box(shape: tuple[int, ...], time: int | None, span: tuple[int, int]) -> Box:
    return tuple(span if axis == time else (0, size) for axis, size in enumerate(shape))


def _chunks(data: Any, grid: ChunkGrid) -> list[tuple[int, ...]]:
    """Return the chunks of a dataset that were written."""
    found: list[tuple[int, ...]] = []

    def visit(chunk: Any) -> None:
        found.append(
            tuple(int(n) // size for n, size in zip(chunk.chunk_offset, grid.chunk, strict=True))
        )

    data.id.chunk_iter(visit)  # get_chunk_info would begin anew for each chunk
    return found
