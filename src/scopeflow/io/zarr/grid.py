"""Which chunks an array needs for its frames, and which of them an archive lacks; reads nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count, product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ChunkGrid", "Gaps"]

_Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Gaps:
    """Frames whose pixels an archive lacks.

    `spans`: pairs ``(start, stop)`` of frames, in ascending order and apart.
    `first`: key of the first chunk that is missing.
    """

    spans: _Ranges
    first: str

    @property
    def frames(self) -> int:
        """How many frames lack pixels."""
        return sum(stop - start for start, stop in self.spans)


@dataclass(frozen=True)
class ChunkGrid:
    """The chunks of an array, or of its shards where it has such, that hold its frames.

    `shape`, `chunk`: items of the array and of a chunk along each axis.
    `prefix`, `separator`: what the key of a chunk begins with, and what parts its numbers.
    `time`: axis of the frames; None where the array is one frame.
    `fixed`: pairs ``(axis, index)`` of the axes that are not read whole.

    Examples
    --------
    >>> grid = ChunkGrid((5, 8), (2, 8), "c/", "/", 0)
    >>> grid.key((2, 0)), grid.gaps(["c/0/0", "c/2/0"])
    ('c/2/0', Gaps(spans=((2, 4),), first='c/1/0'))
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    prefix: str
    separator: str
    time: int | None
    fixed: tuple[tuple[int, int], ...] = ()

    @property
    def n_frames(self) -> int:
        """Frames of the array."""
        return 1 if self.time is None else self.shape[self.time]

    @property
    def frames_per_chunk(self) -> int:
        """Frames of a chunk."""
        return 1 if self.time is None else self.chunk[self.time]

    def key(self, place: tuple[int, ...]) -> str:
        """Return the key of a chunk."""
        return self.prefix + self.separator.join(map(str, place))

    def place(self, key: str) -> tuple[int, ...] | None:
        """Return the numbers of a chunk along each axis; None for a file that is no chunk."""
        try:
            place = tuple(map(int, key.removeprefix(self.prefix).split(self.separator)))
        except ValueError:
            return None
        return place if len(place) == len(self.shape) and self.key(place) == key else None

    def items(self, start: int, stop: int) -> _Ranges:
        """Return the items along each axis that frames ``start`` to ``stop`` consist of."""
        fixed = dict(self.fixed)
        return tuple(
            (fixed[axis], fixed[axis] + 1)
            if axis in fixed
            else ((start, stop) if axis == self.time else (0, size))
            for axis, size in enumerate(self.shape)
        )

    @cached_property
    def _needed(self) -> _Ranges:
        """Numbers of the chunks along each axis that the frames need."""
        items = self.items(0, self.n_frames)
        pairs = zip(items, self.chunk, strict=True)
        return tuple((start // size, -(-stop // size)) for (start, stop), size in pairs)

    @property
    def _count(self) -> int:
        return prod(stop - start for start, stop in self._needed)

    def frames_of(self, place: tuple[int, ...]) -> tuple[int, int]:
        """Return the first frame of a chunk and the one after its last."""
        if self.time is None:
            return 0, 1
        start = place[self.time] * self.chunk[self.time]
        return start, min(start + self.chunk[self.time], self.n_frames)

    def needed(self, keys: Iterable[str]) -> list[tuple[int, ...]]:
        """Return the chunks among some files that hold pixels of the frames."""
        return self._of_frames(place for place in map(self.place, keys) if place is not None)

    def _of_frames(self, places: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
        return [
            place
            for place in places
            if all(a <= n < b for n, (a, b) in zip(place, self._needed, strict=True))
        ]

    def spans_of(self, keys: Iterable[str]) -> Gaps | None:
        """Return the frames of some chunks; None where none of them holds pixels of frames."""
        places = sorted(self.needed(keys), key=self.frames_of)
        if not places:
            return None
        return Gaps(tuple(dict.fromkeys(map(self.frames_of, places))), self.key(places[0]))

    def gaps(self, keys: Collection[str]) -> Gaps | None:
        """Return what frames lack where only some files are there; None where nothing is missing.

        Takes time and memory by the number of files, not of chunks: headers may name any.
        """
        if self._count <= len(keys):
            # The usual case, where all is there: making names is quicker than taking them apart.
            numbers = [list(map(str, range(start, stop))) for start, stop in self._needed]
            names = map(self.separator.join, product(*numbers))
            if set(keys).issuperset(self.prefix + name for name in names):
                return None
        return self.gaps_between(place for place in map(self.place, keys) if place is not None)

    def gaps_between(self, places: Iterable[tuple[int, ...]]) -> Gaps | None:
        """Return what frames lack where only some chunks are there, as :meth:`gaps`."""
        there = set(self._of_frames(places))
        if len(there) == self._count:
            return None
        first, last = (0, 1) if self.time is None else self._needed[self.time]
        found = Counter(0 if self.time is None else place[self.time] for place in there)
        others = [pair for axis, pair in enumerate(self._needed) if axis != self.time]
        whole = prod(stop - start for start, stop in others)
        complete = sorted(number for number, held in found.items() if held == whole)
        spans = []
        for number in [*complete, last]:
            if number > first:
                spans.append((first * self.frames_per_chunk, number * self.frames_per_chunk))
            first = number + 1
        spans[-1] = (spans[-1][0], min(spans[-1][1], self.n_frames))
        start = spans[0][0] // self.frames_per_chunk
        gap = next(place for place in self._places(start) if place not in there)
        return Gaps(tuple(spans), self.key(gap))

    def _places(self, number: int) -> Iterator[tuple[int, ...]]:
        """Yield the chunks with one number along the axis of frames, the last axis fastest."""
        # Not itertools.product, which first lists all numbers of each axis.
        for step in count():
            place = [0] * len(self.shape)
            for axis in reversed(range(len(self.shape))):
                first, last = self._needed[axis]
                if axis == self.time:
                    place[axis] = number
                else:
                    step, rest = divmod(step, last - first)
                    place[axis] = first + rest
            yield tuple(place)

    def places(self, start: int, stop: int) -> Iterator[tuple[int, ...]]:
        """Yield the chunks of frames ``start`` to ``stop``."""
        pairs = zip(self.items(start, stop), self.chunk, strict=True)
        numbers = [range(low // size, -(-high // size)) for (low, high), size in pairs]
        for place in np.ndindex(*map(len, numbers)):
            yield tuple(each[n] for each, n in zip(numbers, place, strict=True))

    def part(self, place: tuple[int, ...], start: int, stop: int) -> _Ranges:
        """Return which items of a chunk belong to frames ``start`` to ``stop``."""
        return tuple(
            (max(low - n * size, 0), min(high - n * size, size))
            for n, (low, high), size in zip(place, self.items(start, stop), self.chunk, strict=True)
        )

    def frames_lacking(
        self, place: tuple[int, ...], lacking: NDArray[Any], inner: tuple[int, ...], part: _Ranges
    ) -> list[tuple[int, int]]:
        """Return spans of frames for which a shard lacks inner chunks.

        `lacking`: whether it lacks each inner chunk, of `inner` items along each axis.
        `part`: items of the shard that are needed.
        """
        index = tuple(
            slice(low // size, -(-high // size))
            for (low, high), size in zip(part, inner, strict=True)
        )
        needed = lacking[index]
        if not needed.any():
            return []
        if self.time is None:
            return [(0, 1)]
        others = tuple(axis for axis in range(needed.ndim) if axis != self.time)
        origin = place[self.time] * self.chunk[self.time]
        size, (low, high) = inner[self.time], part[self.time]
        return [
            (origin + max(n * size, low), origin + min((n + 1) * size, high))
            for n in (np.flatnonzero(needed.any(others)) + low // size).tolist()
        ]


def grid_of(
    array: Any, time: int | None, fixed: Mapping[int, int] | tuple[tuple[int, int], ...] = ()
) -> ChunkGrid | None:
    """Return the grid of a zarr array; None where its chunks are named in an unknown way."""
    metadata = array.metadata
    shape = tuple(int(n) for n in array.shape)
    fixed = tuple(sorted(dict(fixed).items()))
    if metadata.zarr_format == 2:
        chunk, separator, prefix = metadata.chunks, metadata.dimension_separator, ""
    else:
        encoding = metadata.chunk_key_encoding
        chunk = getattr(metadata.chunk_grid, "chunk_shape", None)
        if chunk is None or encoding.name not in ("default", "v2"):
            return None
        separator = encoding.separator
        prefix = f"c{separator}" if encoding.name == "default" else ""
    return ChunkGrid(shape, tuple(int(n) for n in chunk), prefix, separator, time, fixed)
