"""The native result: one zarr v3 store with OME-NGFF 0.5 metadata. Names, shapes, shards, codecs.

::

    compensated.zarr/
        registered        (T, C, Y, X)  corrected frames, the multiscale image of the group
        motion            (T, 2, h, w)  float32, u and v on the solver's finest grid, in pixels
        valid             (T, Y, X)     bool, True where a pixel comes from inside the raw frame
        stats/<name>      (T,)          float64, statistics of each frame
        reference/raw, reference/processed   (C, Y, X)

One block of frames is one shard, so one task writes one file of each array and nothing else.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import xxhash
import zarr
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from zarr.codecs import BloscCodec

from scopeflow.errors import UnreadableFileError
from scopeflow.io.durable import sync_tree
from scopeflow.io.files import remove_tree, writing
from scopeflow.io.locations import Location, RemotePath, location, reaching
from scopeflow.io.state import is_regular
from scopeflow.io.zarr.checked import ChunkError, checked_store
from scopeflow.io.zarr.descriptions import descriptions, restore_descriptions
from scopeflow.io.zarr.shards import Shards
from scopeflow.io.zarr.stores import zarr_store

logger = logging.getLogger(__name__)

REGISTERED = "registered"
MOTION = "motion"
VALID = "valid"
STATISTICS = "stats"
REFERENCE = "reference"
_WHOLE = "all_chunks_written"
_OWN = "scopeflow"
_CHECKSUM = "checksum"
FORMAT_VERSION = 1

_FRAMES_PER_CHUNK = 4
_LARGEST_SMALL_CHUNK = 2**20  # bytes; frames that are smaller share a chunk


@dataclass(frozen=True)
class StoreLayout:
    """Shapes of one result store.

    `shape`: ``(T, H, W, C)`` of the registered video.
    `dtype`: dtype of the registered video.
    `arrays`: which of ``registered``, ``motion`` and ``valid`` are kept.
    """

    shape: tuple[int, int, int, int]
    dtype: str
    motion_shape: tuple[int, int]
    block_length: int
    arrays: tuple[str, ...] = (REGISTERED, MOTION, VALID)

    def array_shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and dtype of every kept array, as stored."""
        frames, height, width, channels = self.shape
        known: dict[str, tuple[tuple[int, ...], str]] = {
            REGISTERED: ((frames, channels, height, width), self.dtype),
            MOTION: ((frames, 2, *self.motion_shape), "float32"),
            VALID: ((frames, height, width), "bool"),
        }
        return {name: known[name] for name in self.arrays}


_Side = Annotated[int, Field(ge=1, lt=2**40)]


class _StoredLayout(BaseModel):
    """A layout as the attributes of a store hold it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    shape: Annotated[list[_Side], Field(min_length=4, max_length=4)]
    dtype: Annotated[str, Field(pattern=r"^(bool|u?int(8|16|32|64)|float(16|32|64))$")]
    motion_shape: Annotated[list[_Side], Field(min_length=2, max_length=2)]
    block_length: _Side
    arrays: list[Literal["registered", "motion", "valid"]]

    def layout(self) -> StoreLayout:
        """Return it as the rest of the program knows it."""
        frames, height, width, channels = self.shape
        rows, columns = self.motion_shape
        return StoreLayout(
            (frames, height, width, channels),
            self.dtype,
            (rows, columns),
            self.block_length,
            tuple(dict.fromkeys(self.arrays)),
        )


def _codec(dtype: np.dtype[Any]) -> BloscCodec:
    # As small as zstd on noisy frames, at three times its speed both ways.
    return BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=max(1, dtype.itemsize))


def _frames_per_chunk(layout: StoreLayout) -> int:
    """Frames that are read together, the same number for all arrays."""
    frame_bytes = math.prod(layout.shape[1:]) * np.dtype(layout.dtype).itemsize
    most = max(_FRAMES_PER_CHUNK, _LARGEST_SMALL_CHUNK // max(1, frame_bytes))
    return max(n for n in range(1, most + 1) if layout.block_length % n == 0)


def create_store(path: Location, layout: StoreLayout, facts: Mapping[str, Any]) -> None:
    """Create the empty arrays of a result; replaces whatever stands at `path`.

    `facts`: what the group says of the result besides its layout: settings, versions.
    Raises OutputError: if the folder cannot be written.
    """
    with writing(path):
        remove_tree(path)
        _describe(zarr_store(path), layout, {_OWN: _own(layout, facts)})
        _sync(path)


def _describe(store: Any, layout: StoreLayout, attributes: Mapping[str, Any]) -> None:
    group = zarr.create_group(store, zarr_format=3, attributes=dict(attributes))
    for name, (shape, dtype) in layout.array_shapes().items():
        shard = (layout.block_length, *shape[1:])
        chunk = (_frames_per_chunk(layout), *shape[1:])
        group.create_array(
            name,
            shape=shape,
            dtype=dtype,
            shards=shard,
            chunks=chunk,
            compressors=_codec(np.dtype(dtype)),
            dimension_names={
                REGISTERED: ("t", "c", "y", "x"),
                MOTION: ("t", "component", "y", "x"),
                VALID: ("t", "y", "x"),
            }[name],
            attributes=(
                {"full_resolution_shape": list(layout.shape[1:3]), "unit": "pixel"}
                if name == MOTION
                else {}
            ),
        )


def restore_store(path: Location, layout: StoreLayout, facts: Mapping[str, Any]) -> None:
    """Write descriptions of an existing store again that are not as :func:`create_store` does.

    `facts`: of this run; those of the run that created the store stay where they are whole.
    """
    with writing(path):
        attributes = zarr.open_group(zarr_store(path), mode="r", zarr_format=3).attrs.asdict()
        said = attributes[_OWN]
        if said.get(_CHECKSUM, "") not in ("", _checksum(said)):  # "": earlier versions wrote none
            attributes[_OWN] = _own(layout, facts)
        make = partial(_describe, layout=layout, attributes=attributes)
        restore_descriptions(path, descriptions(make))


def _own(layout: StoreLayout, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the group of a store says of its result, with a checksum."""
    own = json.loads(json.dumps({"layout": layout_attributes(layout), **facts}))
    return {**own, _CHECKSUM: _checksum(own)}


def _checksum(own: Mapping[str, Any]) -> str:
    counted = {name: one for name, one in own.items() if name != _CHECKSUM}
    return xxhash.xxh3_128_hexdigest(json.dumps(counted, sort_keys=True).encode())


def _sync(path: Location) -> None:
    """Wait until what zarr wrote outlives a power cut."""
    if isinstance(path, Path):
        sync_tree(path)


def read_layout(path: Location) -> StoreLayout | None:
    """Return the layout of an existing store, or None if it is missing or incomplete."""
    store = zarr_store(path)
    if not _has_metadata(path):
        return None
    try:
        with reaching(path):
            group = zarr.open_group(store, mode="r", zarr_format=3)
        recorded: Any = group.attrs[_OWN]
        layout = _StoredLayout(**recorded["layout"]).layout()
        if not all(_has_metadata(path / name) for name in layout.arrays):
            return None
        arrays = {
            name: zarr.open_array(store, path=name, mode="r", zarr_format=3)
            for name in layout.arrays
        }
        for name, (shape, dtype) in layout.array_shapes().items():
            if arrays[name].shape != shape or arrays[name].dtype != np.dtype(dtype):
                return None
            if arrays[name].chunks[0] != _frames_per_chunk(layout):
                return None
    except UnreadableFileError:
        raise
    except Exception:  # missing, or damaged in a way that zarr has no error of its own for
        logger.debug("%s is no whole result store", path, exc_info=True)
        return None
    return layout


def _has_metadata(folder: Location) -> bool:
    # Remote ones are asked for once, by zarr.
    return isinstance(folder, RemotePath) or is_regular(folder / "zarr.json")


def layout_attributes(layout: StoreLayout) -> dict[str, Any]:
    """Return the layout as JSON-able attributes, for :func:`read_layout`."""
    return {
        "shape": list(layout.shape),
        "dtype": layout.dtype,
        "motion_shape": list(layout.motion_shape),
        "block_length": layout.block_length,
        "arrays": list(layout.arrays),
    }


@dataclass(frozen=True)
class ResultStore:
    """Reads and writes blocks of a result store; small, picklable, opened in each process."""

    path: str
    layout: StoreLayout

    @property
    def _zarr(self) -> Any:
        return zarr_store(location(self.path))

    def _shards(self, name: str) -> Shards:
        shape, stored = self.layout.array_shapes()[name]
        dtype = np.dtype(stored)
        per_chunk = _frames_per_chunk(self.layout)
        length = self.layout.block_length
        return Shards(location(self.path) / name, shape, dtype, length, per_chunk, _codec(dtype))

    def file(self, name: str, start: int) -> str:
        """Return the file of the shard that begins with a frame, relative to the store."""
        return f"{name}/{self._shards(name).name(start)}"

    def write(self, name: str, start: int, stop: int, values: NDArray[Any]) -> str:
        """Write one whole shard and return its file, relative to the store.

        `name`: ``registered``, ``motion`` or ``valid``.
        `values`: channel-last, ``(n, H, W, C)``, ``(n, h, w, 2)`` or ``(n, H, W)``.
        """
        length = self.layout.block_length
        if start % length or stop != min(start + length, self.layout.shape[0]):
            raise ValueError(
                f"frames {start}:{stop} are not a whole shard of {length} frames of '{name}'"
            )
        if values.ndim == 4:
            values = np.moveaxis(values, -1, 1)
        shape, dtype = self.layout.array_shapes()[name]
        if values.shape != (stop - start, *shape[1:]) or values.dtype != np.dtype(dtype):
            raise ValueError(
                f"{values.dtype} values of shape {values.shape} are no frames of '{name}', which "
                f"has {shape[1:]} {dtype}"
            )
        return f"{name}/{self._shards(name).write(start, values)}"

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Read frames of one array, channel-last."""
        values = self._shards(name).read(start, stop)
        return np.ascontiguousarray(np.moveaxis(values, 1, -1)) if values.ndim == 4 else values

    def _group(self, name: str) -> zarr.Group:
        """Return a group of small arrays, made anew where a power cut left nothing readable."""
        place = location(self.path)
        if isinstance(place, Path) and not _has_metadata(place / name):
            remove_tree(place / name)
        made = descriptions(
            lambda store: zarr.create_group(store, zarr_format=3).create_group(name)
        )
        own = f"{name}/zarr.json"
        restore_descriptions(place, {own: made[own]})
        return zarr.open_group(self._zarr, path=name, mode="r+", zarr_format=3)

    def write_statistics(self, statistics: Mapping[str, NDArray[Any]]) -> None:
        """Write the statistics of all frames, one small array for each."""
        with writing(self.path):
            group = self._group(STATISTICS)
            for name, values in statistics.items():
                _write_small(group, name, np.asarray(values))
            _sync(location(self.path) / STATISTICS)

    def write_reference(self, raw: NDArray[Any], processed: NDArray[Any] | None = None) -> None:
        """Write the reference images, given channel-last ``(H, W, C)``."""
        with writing(self.path):
            group = self._group(REFERENCE)
            for name, image in (("raw", raw), ("processed", processed)):
                if image is None:
                    continue
                _write_small(group, name, np.ascontiguousarray(np.moveaxis(image, -1, 0)))
            _sync(location(self.path) / REFERENCE)

    def read_statistics(self) -> dict[str, NDArray[Any]]:
        """Return the statistics of all frames by name; empty while the store is incomplete."""
        try:
            store = checked_store(location(self.path) / STATISTICS)
            group = zarr.open_group(store, mode="r", zarr_format=3)
        except (OSError, ValueError):
            return {}
        return {name: self._read_small(f"{STATISTICS}/{name}") for name, _ in group.arrays()}

    def read_reference(self) -> NDArray[np.float64] | None:
        """Return the raw reference, ``(H, W, C)``; None while the store is incomplete."""
        try:
            store = checked_store(location(self.path) / REFERENCE / "raw")
            zarr.open_array(store, mode="r", zarr_format=3)
        except (OSError, ValueError):
            return None
        return np.moveaxis(self._read_small(f"{REFERENCE}/raw").astype(np.float64), 0, -1)

    def _read_small(self, name: str) -> NDArray[Any]:
        """Return all of a small array.

        Raises UnreadableFileError: its chunk is missing or damaged.
        """
        place = location(self.path) / name
        try:
            described = zarr.open_array(checked_store(place), mode="r", zarr_format=3)
            whole = described.attrs.get(_WHOLE)
            # Earlier versions let zarr leave out a chunk of zeros.
            store = checked_store(place, fills=whole is not True)
            return np.asarray(zarr.open_array(store, mode="r", zarr_format=3)[...])
        except Exception as error:  # codecs raise whatever they like
            reason = "a chunk is missing" if isinstance(error, ChunkError) else str(error)
            raise UnreadableFileError(
                f"{place} cannot be read ({reason}). Run the same command again, which makes it "
                "anew"
            ) from error

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the group."""
        return dict(zarr.open_group(self._zarr, mode="r", zarr_format=3).attrs)

    def set_attributes(self, **attributes: Any) -> None:
        """Set what the group says besides the facts of the result."""
        with writing(self.path):
            said = {_OWN: self.attributes()[_OWN], **attributes}
            made = descriptions(
                lambda store: zarr.create_group(store, zarr_format=3, attributes=said)
            )
            # Whole at any moment, and so after a power cut: without it all frames would be lost.
            restore_descriptions(location(self.path), made)


def _write_small(group: zarr.Group, name: str, values: NDArray[Any]) -> None:
    """Write a whole small array with all its chunks, and say so: none may be missing later."""
    whole = {"write_empty_chunks": True}
    array = group.create_array(
        name, shape=values.shape, dtype=values.dtype, overwrite=True, config=whole,
        attributes={_WHOLE: True},
    )  # fmt: skip
    array[...] = values


def open_result(path: Location) -> ResultStore:
    """Open an existing result store.

    Raises UnreadableFileError: if it is not a complete result of ours.
    """
    layout = read_layout(path)
    if layout is None:
        raise UnreadableFileError(f"{path} is not a result store of scopeflow")
    return ResultStore(str(path), layout)
