"""Arrays of zarr that never give their fill value for a chunk that is not there.

zarr reads a missing chunk as the fill value of the array, as its specification says, since writers
may leave out chunks that hold nothing else. A copy that was interrupted looks the same.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.storage import LocalStore, WrapperStore

from scopeflow.errors import UnreadableFileError
from scopeflow.io.locations import Location, RemotePath
from scopeflow.io.zarr.grid import ChunkGrid
from scopeflow.io.zarr.shards import file_ranges
from scopeflow.io.zarr.stores import zarr_store

__all__ = ["CheckedArray", "ChunkError", "checked_store"]

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_NO_CHUNK = np.uint64(2**64 - 1)


class ChunkError(Exception):
    """A chunk that is not there, or not whole: its key in the array, and what is wrong.

    `is_damage` says that no writer leaves a chunk like that on purpose.
    """

    def __init__(self, key: str, what: str, is_damage: bool = True) -> None:
        super().__init__(key, what, is_damage)
        self.key, self.what, self.is_damage = key, what, is_damage


class _CheckedStore(WrapperStore[Store]):
    """Hands bytes on; a chunk that is not there, or holds less than asked for, is an error.

    The bytes of a shard's index are kept as they pass by, in `indexes`, since zarr tells nobody
    which inner chunks it found there.
    """

    def __init__(self, store: Any, folder: str | None = None, fills: bool = False) -> None:
        super().__init__(store)
        self.folder, self.fills = folder, fills
        self.sharding: _Sharding | None = None
        self.indexes: dict[str, bytes] = {}

    def _with_store(self, store: Any) -> _CheckedStore:
        return _CheckedStore(store, self.folder, self.fills)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return the bytes of an object, None for metadata that are not there."""
        if self.folder is not None:
            _check_regular(os.path.join(self.folder, key))
        if key.rpartition("/")[2] in _METADATA:
            return await self._store.get(key, prototype, byte_range)
        value = await self._store.get(key, prototype, byte_range)
        if value is None:
            if not self.fills:
                raise ChunkError(key, "is missing", is_damage=False)
            return None
        if len(value) == 0:
            raise ChunkError(key, "holds 0 bytes")
        if isinstance(byte_range, RangeByteRequest):
            asked = byte_range.end - byte_range.start
            if len(value) < asked:
                raise ChunkError(key, "is truncated")
        if self.sharding is not None and not self.fills:
            part = self.sharding.index_in(value, byte_range)
            if part is not None:
                self.indexes[key] = part.to_bytes()
        return value


def _check_regular(path: str) -> None:
    # Reading a pipe or a device would never end.
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UnreadableFileError(
            f"{path}: zarr is read from regular files only, and this is a pipe, a device or a "
            "socket. Put the file itself there"
        )


def checked_store(place: Location, *, fills: bool = False) -> Any:
    """Return the store at a place, in which chunks that are not there are a `ChunkError`.

    `fills`: those that are missing are what zarr makes of them; those of 0 bytes stay an error.
    """
    if isinstance(place, RemotePath):
        return _CheckedStore(zarr_store(place), fills=fills)
    return _CheckedStore(LocalStore(str(place), read_only=True), str(place), fills)


@dataclass(frozen=True)
class _Sharding:
    """Where a shard has the index of its inner chunks, and how that is stored.

    `counts`: inner chunks of a shard along each axis. `inner`: items of one along each axis.
    """

    counts: tuple[int, ...]
    inner: tuple[int, ...]
    order: str
    checksum: int
    is_first: bool

    @property
    def size(self) -> int:
        """Bytes of the index."""
        return 16 * int(np.prod(self.counts, dtype=object)) + self.checksum

    def index_in(self, value: Any, byte_range: Any) -> Any:
        """Return the index in a part of a shard that was read; None where that is not in it."""
        if byte_range is None:
            return value[: self.size] if self.is_first else value[-self.size :]
        if self.is_first:
            whole = isinstance(byte_range, RangeByteRequest) and byte_range.start == 0
        else:
            whole = isinstance(byte_range, SuffixByteRequest)
        return value if whole and len(value) == self.size else None

    def lacking(self, index: bytes) -> NDArray[np.bool_] | None:
        """Return whether a shard lacks each of its inner chunks; None where it has them all."""
        numbers = np.frombuffer(index, self.order, 2 * int(np.prod(self.counts)))
        lacking = numbers.reshape(*self.counts, 2)[..., 0] == _NO_CHUNK
        return lacking if lacking.any() else None


def _sharding(array: Any) -> _Sharding | None:
    """Return how shards are laid out; None where there are none, or stored in an unusual way."""
    shards = getattr(array.metadata, "shards", None)
    if shards is None:
        return None
    codec = array.metadata.codecs[0]
    inner = tuple(int(n) for n in codec.chunk_shape)
    kinds = [type(one) for one in codec.index_codecs]
    known = kinds in ([BytesCodec], [BytesCodec, Crc32cCodec])
    if not known or any(isinstance(one, ShardingCodec) for one in codec.codecs):
        return None
    endian = getattr(codec.index_codecs[0].endian, "value", "little")
    return _Sharding(
        counts=tuple(int(n) // size for n, size in zip(shards, inner, strict=True)),
        inner=inner,
        order=">u8" if endian == "big" else "<u8",
        checksum=4 if Crc32cCodec in kinds else 0,
        is_first=str(getattr(codec.index_location, "value", codec.index_location)) == "start",
    )


class CheckedArray:
    """A zarr array in a folder that is read by frames; gaps are a :class:`ChunkError`.

    `array`: as opened in a :func:`checked_store` at its own folder.
    `grid`: its chunks; None where their names are unknown, so that shards are not looked into.
    `fills`: chunks that are missing are the fill value.
    """

    def __init__(self, array: Any, folder: Location, grid: ChunkGrid | None, fills: bool) -> None:
        self._array, self._folder, self.grid, self._fills = array, folder, grid, fills
        self._lacking: dict[str, NDArray[np.bool_] | None] = {}
        self._sharding = None if grid is None else _sharding(array)
        self._indexes: dict[str, bytes] = {}
        self._twin = None
        if isinstance(array.store, _CheckedStore):
            array.store.sharding, self._indexes = self._sharding, array.store.indexes
        if self._sharding is None and not fills and _has_shards(array.metadata):
            self._twin = _with_other_fill_value(array)

    def read(self, index: tuple[int | slice, ...], start: int, stop: int) -> NDArray[Any]:
        """Return what an index selects, which are frames ``start`` to ``stop``."""
        block = np.asarray(self._array[index])
        if self._sharding is not None and not self._fills:
            for key, _ in self.inner_gaps(start, stop):
                raise ChunkError(key, "lacks inner chunks", is_damage=False)
        if self._twin is not None and block.tobytes() != np.asarray(self._twin[index]).tobytes():
            raise ChunkError("", "lacks chunks inside its shards", is_damage=False)
        return block

    def inner_gaps(
        self, start: int, stop: int, held: Collection[str] | None = None
    ) -> Iterator[tuple[str, list[tuple[int, int]]]]:
        """Yield the shards of frames ``start`` to ``stop`` that lack inner chunks of these.

        Reads the indexes of shards that no read has passed by. `held` names the files to look into,
        for those of the frames.
        """
        grid, sharding = self.grid, self._sharding
        if grid is None or sharding is None:
            return
        places = grid.places(start, stop) if held is None else grid.needed(held)
        keys = {grid.key(place): place for place in places}
        self._look_into([key for key in keys if not self._is_known(key)])
        for key, place in keys.items():
            lacking = self._lacking.get(key)
            if lacking is not None:
                part = grid.part(place, start, stop)
                spans = grid.frames_lacking(place, lacking, sharding.inner, part)
                if spans:
                    yield key, spans

    def _is_known(self, key: str) -> bool:
        assert self._sharding is not None
        passed = self._indexes.get(key)
        if passed is not None:
            self._lacking[key] = self._sharding.lacking(passed)
            self._indexes.pop(key, None)
        return key in self._lacking

    def _look_into(self, keys: list[str]) -> None:
        if not keys:
            return
        if isinstance(self._folder, RemotePath):
            with ThreadPoolExecutor(min(16, len(keys))) as pool:
                list(pool.map(self._read_index, keys))
        else:
            for key in keys:
                self._read_index(key)

    def _read_index(self, key: str) -> None:
        sharding = self._sharding
        assert sharding is not None
        try:
            with file_ranges(self._folder / key) as (size, read):
                if size < sharding.size:
                    raise ChunkError(key, "is truncated")
                start = 0 if sharding.is_first else size - sharding.size
                self._lacking[key] = sharding.lacking(read(start, start + sharding.size))
        except FileNotFoundError:  # what that means is told where chunks are listed or read
            self._lacking[key] = None


def _has_shards(metadata: Any) -> bool:
    return any(isinstance(one, ShardingCodec) for one in getattr(metadata, "codecs", ()))


def _with_other_fill_value(array: Any) -> Any:
    """Return the same array with another fill value: where values differ, chunks are missing.

    For shards in shards or behind another codec, which are rare; it costs a second reading.
    """
    metadata = array.metadata
    old = np.asarray(metadata.fill_value)
    other = old.dtype.type(1 if old == 0 else 0)
    changed = replace(metadata, fill_value=other)
    return zarr.Array(zarr.AsyncArray(metadata=changed, store_path=array.store_path))
