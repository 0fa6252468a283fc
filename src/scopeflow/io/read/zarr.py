"""Recordings in zarr arrays, plain or in an OME-Zarr group."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.io.locations import (
    Location,
    RemotePath,
    is_access_error,
    location,
    reaching,
)
from scopeflow.io.metadata import VideoMetadata, micrometres, seconds
from scopeflow.io.read.axes import check_video, default_axes, parse_axes, resolve_layout
from scopeflow.io.read.discovery import choose_datasets
from scopeflow.io.read.files import FileStamp, stamp_folder
from scopeflow.io.read.source import LayoutSource
from scopeflow.io.read.states import file_states
from scopeflow.io.zarr.completeness import refuse_incomplete
from scopeflow.io.zarr.stores import zarr_store

__all__ = ["ZarrSource", "is_zarr", "open_zarr"]

_MARKERS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_NAMES = {"t": "T", "time": "T", "frame": "T", "frames": "T", "c": "C", "channel": "C"} | {
    "z": "Z", "y": "Y", "x": "X", "height": "Y", "width": "X", "row": "Y", "column": "X"
}  # fmt: skip


def is_zarr(path: Location) -> bool:
    """Return whether a folder is a zarr array or group."""
    if isinstance(path, RemotePath) and path.has_folders and path.is_file():
        return False
    return any((path / marker).is_file() for marker in _MARKERS)


def _open_node(path: str) -> Any:
    place = location(path)
    try:
        with reaching(place):
            return zarr.open(zarr_store(place), mode="r")
    except UnreadableFileError:
        raise
    except Exception as error:
        raise UnreadableFileError(
            f"{path}: cannot be opened as zarr ({type(error).__name__}: {error}). "
            "Its metadata files are damaged or of an unknown version (2 and 3 are read)."
        ) from error


@lru_cache(maxsize=64)
def _open_array(stamp: FileStamp) -> Any:
    # The whole stamp is the key: an array that was replaced at one path is opened anew.
    return _open_node(stamp.path)


@dataclass(frozen=True, kw_only=True)
class ZarrSource(LayoutSource):
    """One zarr array, format 2 or 3, sharded or not; ``stamp`` is the sum of its files."""

    kind: str = "zarr"

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        array = _open_array(self.stamp)
        try:
            block = np.asarray(array[self.layout.index(start, stop)])
        except Exception as error:
            place = location(self.stamp.path)
            if isinstance(place, RemotePath) and is_access_error(error):
                with reaching(place):
                    raise
            raise UnreadableFileError(
                f"{self.stamp.path}: frames {start} to {stop} cannot be read "
                f"({type(error).__name__}: {error}). A chunk is damaged; restore the folder."
            ) from error
        return self.layout.to_video(block, owned=True)

    def state(self, start: int, stop: int) -> dict[str, str]:
        """Return what the chunks or shards that hold some frames look like now."""
        array = _open_array(self.stamp)
        stored = array.shards or array.chunks
        spans = []
        for index, size, length in zip(
            self.layout.index(start, stop), stored, array.shape, strict=True
        ):
            whole = slice(index, index + 1) if isinstance(index, int) else index
            first, last, _ = whole.indices(length)
            spans.append(range(first // size, -(-last // size)))
        keys = (array.metadata.encode_chunk_key(key) for key in itertools.product(*spans))
        return file_states([f"{self.stamp.path}/{key}" for key in keys])


def _walk(group: Any, prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, item in sorted(group.members()):
        if isinstance(item, zarr.Array):
            found[prefix + key] = item
        else:
            found.update(_walk(item, f"{prefix}{key}/"))
    return found


def _multiscale(group: Any) -> Mapping[str, Any] | None:
    attributes = group.attrs.asdict()
    ome = attributes.get("ome", attributes)
    scales = ome.get("multiscales")
    return scales[0] if scales else None


def _axis_name(axis: Any) -> Any:
    """Name of an OME-Zarr axis; that of channels is free, so their type counts."""
    if not isinstance(axis, Mapping):
        return axis
    return "c" if axis.get("type") == "channel" else axis["name"]


def _named_axes(names: list[Any], where: str) -> str:
    letters = []
    for name in names:
        text = str(name).lower()
        letters.append(_NAMES.get(text, "Q" if len(text) != 1 else text.upper()))
    if len(set(letters) - {"Q"}) != len([letter for letter in letters if letter != "Q"]):
        raise InputError(f"{where}: axis names {names} repeat. Pass axes= to say which is which.")
    return "".join(letters)


def _scales(multiscale: Mapping[str, Any], letters: str) -> dict[str, tuple[float, str]]:
    """Return ``{letter: (step, unit)}`` of level 0."""
    steps = [1.0] * len(letters)
    transforms = list(multiscale["datasets"][0].get("coordinateTransformations", []))
    transforms += list(multiscale.get("coordinateTransformations", []))
    for transform in transforms:
        if transform.get("type") == "scale" and len(transform["scale"]) == len(steps):
            steps = [a * float(b) for a, b in zip(steps, transform["scale"], strict=True)]
    units = [
        str(axis.get("unit", "")) if isinstance(axis, Mapping) else ""
        for axis in multiscale.get("axes", [])
    ]
    units += [""] * (len(letters) - len(units))
    return {letter: (step, unit) for letter, step, unit in zip(letters, steps, units, strict=True)}


def _choose_array(node: Any, name: str, dataset: str | None) -> tuple[Any, str, str, Any]:
    """Return the array, its path in the group, why it was taken, and the multiscales it begins."""
    if not isinstance(node, zarr.Group):
        if dataset is not None:
            raise InputError(f"{name}: is an array, not a group; leave dataset={dataset!r} out.")
        return node, "", "the array itself", None
    multiscale = _multiscale(node)
    level = str(multiscale["datasets"][0]["path"]) if multiscale else None
    if level is not None and (dataset is None or dataset.strip("/") == level.strip("/")):
        try:
            return node[level], level, "level 0 of multiscales", multiscale
        except KeyError:
            raise UnreadableFileError(
                f"{name}: its OME metadata name the array {level!r}, which is missing. "
                "The folder is incomplete; copy it again."
            ) from None
    arrays = _walk(node)
    chosen, reason = choose_datasets({k: tuple(a.shape) for k, a in arrays.items()}, name, dataset)
    if len(chosen) > 1:
        raise InputError(
            f"{name}: several arrays may be the recording: {', '.join(chosen)}. "
            "Choose one with dataset=."
        )
    return arrays[chosen[0]], chosen[0], reason, None


def _stored_axes(array: Any, multiscale: Any, where: str, axes: str | None) -> tuple[str, str]:
    """Return the axes of an array, and where they were read."""
    shape = tuple(int(n) for n in array.shape)
    names = getattr(array.metadata, "dimension_names", None)
    names = names or array.attrs.asdict().get("_ARRAY_DIMENSIONS")
    if axes is not None:
        letters, origin = parse_axes(axes, len(shape), where), "axes= argument"
    elif multiscale is not None and multiscale.get("axes"):
        listed = [_axis_name(axis) for axis in multiscale["axes"]]
        letters, origin = _named_axes(listed, where), "OME-Zarr axes"
    elif multiscale is not None and len(shape) == 5:
        letters, origin = "TCZYX", "OME-Zarr before 0.3"
    elif names and all(names):
        letters, origin = _named_axes(list(names), where), "dimension names"
    else:
        letters = default_axes(len(shape), shape, where)
        origin = f"default for {len(shape)} axes"
    if len(letters) != len(shape):
        raise UnreadableFileError(
            f"{where}: {len(letters)} axes are named ({letters}), but the array has {len(shape)}. "
            "Its metadata are inconsistent; pass axes=."
        )
    return letters, origin


def open_zarr(
    path: str | Path | RemotePath,
    *,
    axes: str | None = None,
    dataset: str | None = None,
    z: int | None = None,
    missing: str = "error",
) -> ZarrSource:
    """Open a recording in a zarr array or group; no pixel is read.

    In an OME-Zarr group the first multiscales image at full resolution is the recording, with the
    axes named there, unless ``dataset`` is the path of another array. Other groups are searched by
    :func:`choose_datasets`. Arrays without axis names are ``(T, H, W)`` or ``(T, H, W, C)``.

    Raises UnreadableFileError, DatasetNotFoundError, InputError: the folder, its arrays or their
        axes cannot be used.
    """
    folder = location(path)
    name = str(folder if isinstance(folder, RemotePath) else path)
    refuse_incomplete(folder)
    node = _open_node(str(folder))
    array, key, reason, multiscale = _choose_array(node, name, dataset)
    where = f"{name}, {key}" if key else name
    letters, origin = _stored_axes(array, multiscale, where, axes)
    layout, note = resolve_layout(letters, array.shape, where, z=z)
    dtype = check_video(layout.video_shape, array.dtype, where)
    per_chunk = 1
    if "T" in layout.axes:
        per_chunk = min(int(array.chunks[layout.axes.index("T")]), layout.size("T"))
    origins = [
        ("axes", f"{letters}, {origin}" + (f"; {note}" if note else "")),
        ("dataset", f"{key or '.'} ({reason})"),
        ("shape", "zarr metadata"),
        ("dtype", "zarr metadata"),
    ]
    pixel = interval = channels = None
    if multiscale is not None:
        scales = _scales(multiscale, letters)
        sizes = [micrometres(*scales[letter]) for letter in "YX"]
        if sizes[0] is not None and sizes[1] is not None:
            pixel = (sizes[0], sizes[1])
            origins.append(("pixel_size", "OME-Zarr scale"))
        if "T" in scales:
            interval = seconds(*scales["T"])
            if interval is not None:
                origins.append(("frame_interval", "OME-Zarr scale"))
        channels = _channel_names(node, layout.video_shape[3])
        if channels is not None:
            origins.append(("channels", "omero metadata"))
    return ZarrSource(
        stamp=stamp_folder(folder / key),
        shape=layout.video_shape,
        dtype=dtype,
        metadata=VideoMetadata(pixel, None, interval, channels, tuple(origins)),
        frames_per_chunk=max(1, per_chunk),
        layout=layout,
    )


def _channel_names(group: Any, count: int) -> tuple[str, ...] | None:
    attributes = group.attrs.asdict()
    omero = attributes.get("ome", attributes).get("omero", {})
    names = tuple(str(c.get("label", "")) for c in omero.get("channels", []))
    return names if len(names) == count and all(names) else None
