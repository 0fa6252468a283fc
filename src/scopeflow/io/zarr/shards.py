"""Whole shards, chunks and small arrays of zarr v3 as files, with zarr's own bytes.

The only place that lays out or takes apart chunks; who writes or reads frames asks for them here
(why not zarr, and what it costs: docs/zarr_shards.md). zarr makes several asynchronous rounds for
each array and one for each chunk, which is most of the time where an output has thousands of arrays
of a few kilobytes. Descriptions (``zarr.json``) are zarr's own with other numbers in them; chunks
are laid out as the zarr v3 specification says (https://zarr-specs.readthedocs.io, core and
sharding-indexed codec).
"""

from __future__ import annotations

import copy
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc, blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from scopeflow.errors import UnreadableFileError
from scopeflow.io.files import atomic_path
from scopeflow.io.locations import Location, RemotePath, reaching
from scopeflow.io.zarr.descriptions import descriptions

__all__ = [
    "Shards",
    "file_ranges",
    "read_whole",
    "shard_damage",
    "write_chunk",
    "write_group",
    "write_whole",
]

_NO_CHUNK = 2**64 - 1  # place and size of an inner chunk that a shard does not hold
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


@dataclass(frozen=True)
class Shards:
    """The shards of an array that shards and inner chunks divide along its first axis only.

    `length`, `per_chunk`: items of a shard, and of an inner chunk, along the first axis.

    Examples
    --------
    >>> import tempfile
    >>> folder, values = Path(tempfile.mkdtemp()), np.arange(12.0).reshape(6, 2)
    >>> shards = Shards(folder, (6, 2), values.dtype, 4, 2, BloscCodec(typesize=8))
    >>> shards.write(0, values[:4]), shards.write(4, values[4:])
    ('c/0/0', 'c/1/0')
    >>> shards.read(3, 5).tolist()
    [[6.0, 7.0], [8.0, 9.0]]
    """

    folder: Location
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    length: int
    per_chunk: int
    codec: BloscCodec

    def name(self, start: int) -> str:
        """Return the file of the shard that begins with an item, relative to the array."""
        return "/".join(["c", str(start // self.length), *["0"] * (len(self.shape) - 1)])

    def write(self, start: int, values: NDArray[Any]) -> str:
        """Write the shard that begins with an item; return its file, relative to the array.

        An older file is replaced, once the new one is complete. The last shard of an array may have
        fewer items.
        """
        values = _little(values)
        compressor = _blosc(json.dumps(self.codec.to_dict()))
        chunks: list[bytes | None] = []
        for first in range(0, self.length, self.per_chunk):
            part = values[first : first + self.per_chunk]
            if len(part) == 0:
                chunks.append(None)
                continue
            if len(part) < self.per_chunk:
                beyond = np.zeros((self.per_chunk - len(part), *part.shape[1:]), part.dtype)
                part = np.concatenate([part, beyond])
            chunks.append(compressor.encode(part))
        name = self.name(start)
        _replace(self.folder / name, _shard(chunks))
        return name

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return items ``start`` to ``stop``; only their chunks are fetched.

        Raises FileNotFoundError: a shard is missing.
        Raises UnreadableFileError: a file does not hold what a shard does, or a remote store cannot
            be reached.
        """
        values = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for first in range(start // self.length * self.length, stop, self.length):
            begin, end = max(first, start), min(first + self.length, stop)
            out = values[begin - start : end - start]
            file = self.folder / self.name(first)
            with file_ranges(file) as (size, read):
                try:
                    self._fill(size, read, begin - first, end - first, out)
                except (ValueError, RuntimeError, IndexError) as error:
                    raise UnreadableFileError(
                        f"{file} is no whole shard of frames ({error}). It is damaged: make it "
                        "again, or restore it from a copy"
                    ) from error
        return values

    def _fill(
        self,
        size: int,
        read: Callable[[int, int], bytes],
        start: int,
        stop: int,
        out: NDArray[Any],
    ) -> None:
        """Decompress items of a shard of so many bytes, counted from its start, into an array."""
        tail = read(size - 16 * (self.length // self.per_chunk) - 4, size)
        if _checked(tail[:-4]) != tail:
            raise ValueError("the checksum of its index is wrong")
        index = np.frombuffer(tail[:-4], "<u8").reshape(-1, 2)
        for first in range(start // self.per_chunk * self.per_chunk, stop, self.per_chunk):
            begin, end = max(first, start), min(first + self.per_chunk, stop)
            target = out[begin - start : end - start]
            place, count = (int(number) for number in index[first // self.per_chunk])
            if place == _NO_CHUNK:
                # Whole blocks are written: what is not there was lost, and is not zero.
                raise ValueError(f"it lacks the chunk of its frames {first} to {end - 1}")
            data = read(place, place + count)
            if end - begin == self.per_chunk:
                _decompress(data, target)
                continue
            chunk = np.empty((self.per_chunk, *out.shape[1:]), out.dtype)
            _decompress(data, chunk)
            target[...] = chunk[begin - first : end - first]


def shard_damage(file: Path, chunks: int, held: int) -> str | None:
    """Return why a shard is not whole, from its size and its index; None if it is.

    `chunks`, `held`: inner chunks that its index has places for, and that it must hold.
    """
    try:
        with file_ranges(file) as (size, read):
            if size == 0:
                return "is empty"
            tail = read(size - 16 * chunks - 4, size)
            if _checked(tail[:-4]) != tail:
                return "is cut or damaged"
    except FileNotFoundError:
        return "is missing"
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    index = np.frombuffer(tail[:-4], "<u8").reshape(-1, 2)
    if (index[:held, 0] == _NO_CHUNK).any():
        return "lacks a chunk"
    ends = index[:held].sum(axis=1, dtype=np.uint64)
    return "is cut" if int(ends.max()) > size - len(tail) else None


def write_group(path: Path, attributes: Mapping[str, Any] | None = None) -> None:
    """Make an empty group with JSON-able attributes, unless one stands there."""
    file = path / "zarr.json"
    if not file.exists():
        _save(file, _filled(_group_description(), attributes))


def write_chunk(file: Path, values: NDArray[Any], codec: BloscCodec) -> None:
    """Write one whole chunk of an array, of any integer, float or bool type."""
    _replace(file, _blosc(json.dumps(codec.to_dict())).encode(_little(values)))


def _decompress(data: bytes, out: NDArray[Any]) -> None:
    """Fill an array from a Blosc chunk, whose header says how much it holds and takes."""
    held, taken = int.from_bytes(data[4:8], "little"), int.from_bytes(data[12:16], "little")
    # Blosc believes the header, and would read beyond the end of a damaged chunk.
    if (held, taken) != (out.nbytes, len(data)):
        raise ValueError("the header of a chunk is wrong")
    blosc.decompress(data, out)


@contextmanager
def file_ranges(file: Location) -> Iterator[tuple[int, Callable[[int, int], bytes]]]:
    """Give the size of a file, and a function that reads bytes of it."""
    if isinstance(file, RemotePath):
        with reaching(file):
            yield file.stamp()[0], file.read_range
        return
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("it is no regular file")  # a pipe would be waited for
    with file.open("rb", buffering=0) as stream:

        def read(start: int, stop: int) -> bytes:
            if start < 0:
                raise ValueError("it is too short")
            stream.seek(start)
            return stream.read(stop - start)

        yield os.fstat(stream.fileno()).st_size, read


def write_whole(
    path: Path,
    values: NDArray[Any],
    codec: BloscCodec,
    *,
    frames_apart: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write an array of at least one item, any shape, into one file beside its description.

    The folder `path` must not exist. ``frames_apart`` compresses each ``values[t]`` by itself, as
    the inner chunks of one shard. Returns the files, sorted; the description is written last, since
    an array without one is not complete.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "a"
    >>> files = write_whole(folder, np.arange(6).reshape(2, 3), BloscCodec(typesize=8))
    >>> zarr.open_array(folder, mode="r")[1].tolist(), [file.name for file in files]
    ([3, 4, 5], ['0', 'zarr.json'])
    """
    values = _little(values)
    settings = json.dumps(codec.to_dict())  # a codec itself cannot be hashed
    known = _description(values.dtype.str, values.ndim, settings, frames_apart)
    description = copy.deepcopy(known)
    description["shape"] = list(values.shape)
    description["chunk_grid"]["configuration"]["chunk_shape"] = list(values.shape)
    chunk = path.joinpath("c", *("0" for _ in values.shape))
    if frames_apart:
        description["codecs"][0]["configuration"]["chunk_shape"] = [1, *values.shape[1:]]
        _replace(chunk, _shard([_blosc(settings).encode(one) for one in values]))
    else:
        write_chunk(chunk, values, codec)
    _save(path / "zarr.json", _filled(description, attributes))
    return [chunk, path / "zarr.json"]


def read_whole(path: Path) -> NDArray[Any]:
    """Read an array that :func:`write_whole` wrote as one chunk.

    Raises OSError, ValueError, KeyError: if a file is missing, or does not hold what such an array
        does.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "a"
    >>> _ = write_whole(folder, np.arange(6).reshape(2, 3), BloscCodec(typesize=8))
    >>> read_whole(folder)[1].tolist()
    [3, 4, 5]
    """
    description = json.loads((path / "zarr.json").read_bytes())
    shape = tuple(description["shape"])
    kinds = [one["name"] for one in description["codecs"]]
    if kinds != ["bytes", "blosc"] or shape != tuple(
        description["chunk_grid"]["configuration"]["chunk_shape"]
    ):
        raise ValueError(f"{path}: is no array of one Blosc chunk")
    data = Blosc().decode(path.joinpath("c", *("0" for _ in shape)).read_bytes())
    return np.frombuffer(data, np.dtype(description["data_type"])).reshape(shape)


def _replace(file: Location, data: bytes) -> None:
    """Write a file of an array, which appears complete; whoever records it has to sync it."""
    # An empty folder in its place holds nothing, and would stop every run.
    if isinstance(file, Path) and file.is_dir():
        with suppress(OSError):
            file.rmdir()
    with atomic_path(file, durable=False) as partial:
        partial.write_bytes(data)


def _little(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<"))


def _save(file: Path, description: dict[str, Any]) -> None:
    _replace(file, json.dumps(description, indent=2).encode())


def _filled(description: dict[str, Any], attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**description, "attributes": dict(attributes or {})}


@lru_cache(maxsize=1)
def _group_description() -> dict[str, Any]:
    made = descriptions(lambda store: zarr.create_group(store, zarr_format=3))
    read: dict[str, Any] = json.loads(made["zarr.json"])
    return read


@lru_cache(maxsize=64)
def _description(dtype: str, ndim: int, settings: str, frames_apart: bool) -> dict[str, Any]:
    shape = (2,) * ndim
    made = descriptions(
        lambda store: zarr.create_array(
            store,
            shape=shape,
            dtype=np.dtype(dtype),
            chunks=(1, *shape[1:]) if frames_apart else shape,
            shards=shape if frames_apart else None,
            compressors=BloscCodec.from_dict(json.loads(settings)),
            zarr_format=3,
        )
    )
    read: dict[str, Any] = json.loads(made["zarr.json"])
    return read


@lru_cache(maxsize=64)
def _blosc(settings: str) -> Blosc:
    facts = json.loads(settings)["configuration"]
    shuffle = _SHUFFLES[facts["shuffle"]]
    arguments = (facts["cname"], facts["clevel"], shuffle, facts["blocksize"])
    try:
        return Blosc(*arguments, typesize=facts["typesize"])
    except TypeError:  # numcodecs before 0.16 takes the size of an item from the array
        return Blosc(*arguments)


def _checked(index: bytes) -> bytes:
    """Return an index with its checksum."""
    return index + google_crc32c.value(index).to_bytes(4, "little")


def _shard(chunks: Sequence[bytes | None]) -> bytes:
    """Join inner chunks and the index of their places, with its checksum at the end."""
    held = [one for one in chunks if one is not None]
    index = np.full((len(chunks), 2), _NO_CHUNK, "<u8")
    sizes = np.array([len(one) for one in held], np.uint64)
    present = [one is not None for one in chunks]
    index[present, 0] = np.cumsum(sizes) - sizes
    index[present, 1] = sizes
    return b"".join([*held, _checked(index.tobytes())])
