"""Chunks and small whole arrays of zarr v3 as files, with zarr's own bytes; opens no store.

zarr makes several asynchronous rounds for each array and one for each chunk, which is most of the
time where an output has thousands of arrays of a few kilobytes. Descriptions (``zarr.json``) are
zarr's own with other numbers in them; chunks are laid out as the zarr v3 specification says
(https://zarr-specs.readthedocs.io, core and sharding-indexed codec).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc
from numcodecs.checksum32 import CRC32C
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from scopeflow.store.files import atomic_path

__all__ = ["read_whole", "write_chunk", "write_group", "write_whole"]

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
    store = MemoryStore()
    zarr.create_group(store, zarr_format=3)
    read: dict[str, Any] = json.loads(store._store_dict["zarr.json"].to_bytes())
    return read


@lru_cache(maxsize=64)
def _description(dtype: str, ndim: int, settings: str, frames_apart: bool) -> dict[str, Any]:
    store = MemoryStore()
    shape = (2,) * ndim
    zarr.create_array(
        store,
        shape=shape,
        dtype=np.dtype(dtype),
        chunks=(1, *shape[1:]) if frames_apart else shape,
        shards=shape if frames_apart else None,
        compressors=BloscCodec.from_dict(json.loads(settings)),
        zarr_format=3,
    )
    read: dict[str, Any] = json.loads(store._store_dict["zarr.json"].to_bytes())
    return read


@lru_cache(maxsize=64)
def _blosc(settings: str) -> Blosc:
    facts = json.loads(settings)["configuration"]
    return Blosc(
        cname=facts["cname"],
        clevel=facts["clevel"],
        shuffle=_SHUFFLES[facts["shuffle"]],
        blocksize=facts["blocksize"],
        typesize=facts["typesize"],
    )


def _shard(chunks: list[bytes]) -> bytes:
    """Join inner chunks and the index of their places, with its checksum at the end."""
    sizes = np.array([len(one) for one in chunks], "<u8")
    places = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype("<u8")
    index = np.stack([places, sizes], axis=1)
    return b"".join([*chunks, bytes(CRC32C(location="end").encode(index))])
