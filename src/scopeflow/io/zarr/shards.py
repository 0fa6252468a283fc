"""Chunks and small whole arrays of zarr v3 as files, with zarr's own bytes; opens no store.

zarr makes several asynchronous rounds for each array and one for each chunk, which is most of the
time where an output has thousands of arrays of a few kilobytes, and half of the time of a block of
frames. Descriptions (``zarr.json``) are zarr's own with other numbers in them; chunks are laid out
as the zarr v3 specification says (https://zarr-specs.readthedocs.io, core and sharding-indexed
codec).
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc, blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from scopeflow.errors import UnreadableFileError
from scopeflow.io.files import atomic_path
from scopeflow.io.locations import Location, RemotePath, reaching

__all__ = ["read_shard", "read_whole", "write_chunk", "write_group", "write_shard", "write_whole"]

_NO_CHUNK = 2**64 - 1  # place and size of an inner chunk that a shard does not hold
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


def write_group(path: Path, attributes: Mapping[str, Any] | None = None) -> None:
    """Make an empty group, unless one stands there.

    Parameters
    ----------
    path : Path
        Its folder, made where it is missing.
    attributes : mapping, optional
        JSON-able attributes of a new group.
    """
    file = path / "zarr.json"
    if not file.exists():
        _save(file, _filled(_group_description(), attributes))


def write_chunk(file: Path, values: NDArray[Any], codec: BloscCodec) -> None:
    """Write one chunk of an array.

    Parameters
    ----------
    file : Path
        File of the chunk; an older one is replaced.
    values : ndarray
        All of the chunk, of any integer, float or bool type.
    codec : BloscCodec
        Compression of the array.
    """
    data = _blosc(json.dumps(codec.to_dict())).encode(_little(values))
    with atomic_path(file, durable=False) as partial:
        partial.write_bytes(data)


def write_shard(
    file: Location, values: NDArray[Any], codec: BloscCodec, *, length: int, per_chunk: int
) -> None:
    """Write one shard of an array whose shards and inner chunks divide the first axis only.

    Parameters
    ----------
    file : Path or RemotePath
        File of the shard; an older one is replaced.
    values : ndarray
        Items of the shard along the first axis; fewer than `length` in the last one of an array.
    codec : BloscCodec
        Compression of the inner chunks.
    length, per_chunk : int
        Items of a whole shard, and of an inner chunk, along the first axis.
    """
    values = _little(values)
    compressor = _blosc(json.dumps(codec.to_dict()))
    chunks: list[bytes | None] = []
    for first in range(0, length, per_chunk):
        part = values[first : first + per_chunk]
        if len(part) == 0:
            chunks.append(None)
            continue
        if len(part) < per_chunk:
            beyond = np.zeros((per_chunk - len(part), *part.shape[1:]), part.dtype)
            part = np.concatenate([part, beyond])
        chunks.append(compressor.encode(part))
    with atomic_path(file, durable=False) as partial:
        partial.write_bytes(_shard(chunks))


def read_shard(
    file: Location, start: int, stop: int, out: NDArray[Any], *, length: int, per_chunk: int
) -> None:
    """Read items of one shard that :func:`write_shard` wrote; only their chunks are fetched.

    Parameters
    ----------
    file : Path or RemotePath
        File of the shard.
    start, stop : int
        Items, counted from the start of the shard.
    out : ndarray
        ``(stop - start, …)``, C-contiguous, of the dtype of the array; written.
    length, per_chunk : int
        As for :func:`write_shard`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    UnreadableFileError
        If it does not hold what a shard does, or a remote store cannot be reached.

    Examples
    --------
    >>> import tempfile
    >>> file, values = Path(tempfile.mkdtemp()) / "0", np.arange(12.0).reshape(6, 2)
    >>> write_shard(file, values, BloscCodec(typesize=8), length=6, per_chunk=2)
    >>> out = np.empty((2, 2))
    >>> read_shard(file, 3, 5, out, length=6, per_chunk=2)
    >>> out.tolist()
    [[6.0, 7.0], [8.0, 9.0]]
    """
    with _ranges(file) as (size, read):
        try:
            tail = read(size - 16 * (length // per_chunk) - 4, size)
            if _checked(tail[:-4]) != tail:
                raise ValueError("the checksum of its index is wrong")
            index = np.frombuffer(tail[:-4], "<u8").reshape(-1, 2)
            for first in range(start // per_chunk * per_chunk, stop, per_chunk):
                begin, end = max(first, start), min(first + per_chunk, stop)
                target = out[begin - start : end - start]
                place, count = (int(number) for number in index[first // per_chunk])
                if place == _NO_CHUNK:
                    target[...] = 0
                    continue
                data = read(place, place + count)
                if end - begin == per_chunk:
                    _decompress(data, target)
                    continue
                chunk = np.empty((per_chunk, *out.shape[1:]), out.dtype)
                _decompress(data, chunk)
                target[...] = chunk[begin - first : end - first]
        except (ValueError, RuntimeError, IndexError) as error:
            raise UnreadableFileError(
                f"{file} is no whole shard of frames ({error}). It is damaged: make it again, or "
                "restore it from a copy"
            ) from error


def _decompress(data: bytes, out: NDArray[Any]) -> None:
    """Fill an array from a Blosc chunk, whose header says how much it holds and takes."""
    held, taken = int.from_bytes(data[4:8], "little"), int.from_bytes(data[12:16], "little")
    # Blosc believes the header, and would read beyond the end of a damaged chunk.
    if (held, taken) != (out.nbytes, len(data)):
        raise ValueError("the header of a chunk is wrong")
    blosc.decompress(data, out)


@contextmanager
def _ranges(file: Location) -> Iterator[tuple[int, Callable[[int, int], bytes]]]:
    """Give the size of a file, and a function that reads bytes of it."""
    if isinstance(file, RemotePath):
        with reaching(file):
            yield file.stamp()[0], file.read_range
        return
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
    """Write an array of at least one item into one file, beside its description.

    Parameters
    ----------
    path : Path
        Folder of the array; it must not exist.
    values : ndarray
        Any shape and integer, float or bool type.
    codec : BloscCodec
        Compression.
    frames_apart : bool, optional
        Compress each ``values[t]`` by itself, as the inner chunks of one shard.
    attributes : mapping, optional
        JSON-able attributes.

    Returns
    -------
    list of Path
        Files, sorted. The description comes last: an array without one is not complete.

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
        data = _shard([_blosc(settings).encode(one) for one in values])
        with atomic_path(chunk, durable=False) as partial:
            partial.write_bytes(data)
    else:
        write_chunk(chunk, values, codec)
    _save(path / "zarr.json", _filled(description, attributes))
    return [chunk, path / "zarr.json"]


def read_whole(path: Path) -> NDArray[Any]:
    """Read an array that :func:`write_whole` wrote as one chunk.

    Parameters
    ----------
    path : Path
        Folder of the array.

    Raises
    ------
    OSError, ValueError, KeyError
        If a file is missing, or does not hold what such an array does.

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


def _little(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<"))


def _save(file: Path, description: dict[str, Any]) -> None:
    with atomic_path(file, durable=False) as partial:
        partial.write_bytes(json.dumps(description, indent=2).encode())


def _filled(description: dict[str, Any], attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**description, "attributes": dict(attributes or {})}


@lru_cache(maxsize=1)
def _group_description() -> dict[str, Any]:
    written: dict[str, Any] = {}
    zarr.create_group(MemoryStore(written), zarr_format=3)
    read: dict[str, Any] = json.loads(written["zarr.json"].to_bytes())
    return read


@lru_cache(maxsize=64)
def _description(dtype: str, ndim: int, settings: str, frames_apart: bool) -> dict[str, Any]:
    written: dict[str, Any] = {}
    shape = (2,) * ndim
    zarr.create_array(
        MemoryStore(written),
        shape=shape,
        dtype=np.dtype(dtype),
        chunks=(1, *shape[1:]) if frames_apart else shape,
        shards=shape if frames_apart else None,
        compressors=BloscCodec.from_dict(json.loads(settings)),
        zarr_format=3,
    )
    read: dict[str, Any] = json.loads(written["zarr.json"].to_bytes())
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
