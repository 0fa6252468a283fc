"""Stacks and crops of the cell workflow in zarr: names, chunks and codecs; knows no step."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from scopeflow.io.files import writing
from scopeflow.io.state import is_regular
from scopeflow.io.zarr.descriptions import descriptions, restore_descriptions
from scopeflow.io.zarr.shards import read_whole, write_chunk, write_whole

__all__ = [
    "CELLS",
    "IMAGES",
    "create_stack",
    "fov_folder",
    "frame_files",
    "halved",
    "open_stack",
    "read_array",
    "read_frames",
    "remove_incomplete",
    "write_array",
    "write_frames",
]

IMAGES = "images.zarr"
CELLS = "cells.zarr"
_LARGEST_PLANE = 2048
_DISPLAY_SIDE = 256


def fov_folder(fov: int) -> str:
    """Return the name of the folder of a field of view.

    Examples
    --------
    >>> fov_folder(7), fov_folder(1000)
    ('fov_007', 'fov_1000')
    """
    return f"fov_{fov:03d}"


def _codec(dtype: np.dtype[Any], *, fast: bool = False) -> BloscCodec:
    # zarr's Blosc needs the width of an item for its shuffle.
    name, level = ("lz4", 5) if fast else ("zstd", 5)
    return BloscCodec(cname=name, clevel=level, shuffle="shuffle", typesize=max(1, dtype.itemsize))


def create_stack(
    store: Path, name: str, shape: tuple[int, int, int], dtype: Any, fingerprint: str
) -> None:
    """Make the empty array of a stack, unless one of the same shape and fingerprint stands there.

    `name` is group and level, such as ``pc_ch_0/0``, in the ``images.zarr`` of a FOV. An array of
    another fingerprint, of what the pixels depend on, is deleted.
    """
    dtype = np.dtype(dtype)
    path = store / name
    side = _side(name)

    def describe(target: Any) -> None:
        zarr.create_array(
            target,
            name=name,
            shape=shape,
            dtype=dtype,
            chunks=(1, min(side, shape[1]), min(side, shape[2])),
            compressors=_codec(dtype, fast=name.endswith("/1")),
            dimension_names=("t", "y", "x"),
            attributes={"fingerprint": fingerprint},
            zarr_format=3,
        )

    with writing(path):
        found = _existing(path)
        if path.exists() and not (
            found is not None
            and found.shape == shape
            and found.dtype == dtype
            and found.attrs.asdict().get("fingerprint") == fingerprint
        ):
            shutil.rmtree(path)
        # Those of the groups above are among them; damaged ones are written again.
        restore_descriptions(store, descriptions(describe))


def _existing(path: Path) -> Any | None:
    if not is_regular(path / "zarr.json"):
        return None
    try:
        return zarr.open_array(str(path), mode="r")
    except Exception:  # missing, or damaged metadata: it is made again
        return None


@lru_cache(maxsize=128)
def _cached(path: str, stamp: int) -> Any:  # noqa: ARG001 - an array that was replaced is opened anew
    return zarr.open_array(path, mode="r")


def open_stack(store: Path, name: str) -> Any:
    """Return the zarr array of a stack, opened once in each process."""
    path = store / name
    return _cached(str(path), (path / "zarr.json").stat().st_mtime_ns)


def read_frames(store: Path, name: str, start: int, stop: int) -> NDArray[Any]:
    """Return frames ``start`` to ``stop`` of a stack, ``(n, H, W)``."""
    return np.asarray(open_stack(store, name)[start:stop])


def frame_files(store: Path, name: str, shape: tuple[int, int], start: int, stop: int) -> list[str]:
    """Return the files of frames of a stack, each of `shape`, relative to the folder of its FOV."""
    side = _side(name)
    tiles = [range(-(-length // min(side, length))) for length in shape]
    return [
        f"{store.name}/{name}/c/{t}/{i}/{j}"
        for t, i, j in itertools.product(range(start, stop), *tiles)
    ]


def halved(height: int, width: int) -> tuple[int, int]:
    """Return the size of frames of a display level."""
    return max(1, height // 2), max(1, width // 2)


def _side(name: str) -> int:
    return _DISPLAY_SIDE if name.endswith("/1") else _LARGEST_PLANE


def write_frames(store: Path, name: str, start: int, frames: NDArray[Any]) -> list[str]:
    """Write frames from `start` on; return the files, relative to the folder of the FOV."""
    array = open_stack(store, name)
    stop = start + len(frames)
    if frames.dtype != array.dtype or frames.shape[1:] != array.shape[1:] or stop > array.shape[0]:
        raise ValueError(
            f"{store / name}: frames {start} to {stop - 1} of {frames.dtype}, shape "
            f"{frames.shape}, do not fit into {array.dtype} of shape {array.shape}"
        )
    codec = _codec(array.dtype, fast=name.endswith("/1"))
    _, height, width = array.chunks
    _, rows, columns = array.cdata_shape
    files = []
    with writing(store / name):
        for t, i, j in itertools.product(range(start, stop), range(rows), range(columns)):
            tile = frames[t - start, i * height : (i + 1) * height, j * width : (j + 1) * width]
            missing = height - tile.shape[0], width - tile.shape[1]
            chunk = np.pad(tile, ((0, missing[0]), (0, missing[1]))) if any(missing) else tile
            files.append(f"{name}/{array.metadata.encode_chunk_key((t, i, j))}")
            write_chunk(store / files[-1], chunk, codec)
    return [f"{store.name}/{file}" for file in files]


def remove_incomplete(store: Path, name: str) -> None:
    """Remove a stack that lacks frames; what is no stack stays."""
    array = _existing(store / name)
    if array is None:
        return
    frames, height, width = array.shape
    files = frame_files(store, name, (height, width), 0, frames)
    if not all(is_regular(store.parent / file) for file in files):
        with suppress(OSError):
            shutil.rmtree(store / name)


def write_array(store: Path, name: str, values: NDArray[Any]) -> list[str]:
    """Write a whole array into one file; return its files, relative to the FOV.

    The frames of a display level ``/1`` are the inner chunks of one shard, whole or in tiles of 256
    px: a file for each frame of each cell would be a hundred thousand files.
    """
    path = store / name
    display = name.endswith("/1")
    codec = _codec(values.dtype, fast=display)
    with writing(path):
        if path.exists():
            shutil.rmtree(path)
        if values.size and not (display and max(values.shape[1:]) > _DISPLAY_SIDE):
            files = write_whole(path, values, codec, frames_apart=display)
            return [str(file.relative_to(store.parent)) for file in files]
        # A chunk of no item is not allowed, and a shard holds whole chunks.
        shape = tuple(max(1, n) for n in values.shape)
        tile = (1, *(min(_DISPLAY_SIDE, n) for n in shape[1:]))
        shard = tuple(-(-n // side) * side for n, side in zip(shape, tile, strict=False))
        array = zarr.create_array(
            str(path),
            shape=values.shape,
            dtype=values.dtype,
            chunks=tile if display else shape,
            shards=shard if display and values.size else None,
            compressors=codec,
            zarr_format=3,
            config={"write_empty_chunks": True},
        )
        if values.size:
            array[...] = values
    return [f"{store.name}/{file}" for file in _files_below(store, path)]


def read_array(store: Path, name: str) -> NDArray[Any]:
    """Return all of an array that :func:`write_array` wrote."""
    return read_whole(store / name)


def _files_below(store: Path, path: Path) -> Iterable[str]:
    return sorted(str(file.relative_to(store)) for file in path.rglob("*") if file.is_file())
