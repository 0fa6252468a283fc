"""Recordings in zarr arrays, plain or in an OME-Zarr group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import zarr
from numpy.typing import NDArray

from scopeflow.errors import InputError, ScopeflowError, UnreadableFileError
from scopeflow.io.locations import (
    Location,
    RemotePath,
    is_access_error,
    location,
    reaching,
)
from scopeflow.io.metadata import VideoMetadata, micrometres, seconds
from scopeflow.io.read.axes import (
    AxisLayout,
    check_video,
    default_axes,
    parse_axes,
    resolve_layout,
)
from scopeflow.io.read.discovery import choose_datasets
from scopeflow.io.read.files import FileStamp, list_folder
from scopeflow.io.read.gaps import absent_or_refused, check_sizes, frames_text, refusal
from scopeflow.io.read.ome_zarr import Multiscale, axis_letters, channel_names, first_multiscale
from scopeflow.io.read.source import LayoutSource
from scopeflow.io.read.states import file_states
from scopeflow.io.zarr.checked import CheckedArray, ChunkError, checked_store
from scopeflow.io.zarr.completeness import refuse_incomplete
from scopeflow.io.zarr.grid import ChunkGrid, grid_of
from scopeflow.strict.values import excerpt

__all__ = ["ZarrSource", "is_zarr", "open_zarr"]

_MOST_GROUPS = 10_000
_MARKERS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")


def is_zarr(path: Location) -> bool:
    """Return whether a folder is a zarr array or group."""
    if isinstance(path, RemotePath) and path.has_folders and path.is_file():
        return False
    return any((path / marker).is_file() for marker in _MARKERS)


def _open_node(path: str, fills: bool = False) -> Any:
    place = location(path)
    try:
        with reaching(place):
            return zarr.open(checked_store(place, fills=fills), mode="r")
    except ScopeflowError:
        raise
    except Exception as error:
        raise UnreadableFileError(
            f"{path}: cannot be opened as zarr ({excerpt(f'{type(error).__name__}: {error}')}). "
            "Its metadata files are damaged or of an unknown version (2 and 3 are read)."
        ) from error


@lru_cache(maxsize=64)
def _open_array(stamp: FileStamp, layout: AxisLayout, fills: bool) -> CheckedArray:
    # The whole stamp is the key: an array that was replaced at one path is opened anew.
    array = _open_node(stamp.path, fills)
    return CheckedArray(array, location(stamp.path), _grid(array, layout), fills)


def _grid(array: Any, layout: AxisLayout) -> ChunkGrid | None:
    return grid_of(array, layout.axes.index("T") if "T" in layout.axes else None, layout.fixed)


@dataclass(frozen=True, kw_only=True)
class ZarrSource(LayoutSource):
    """One zarr array, format 2 or 3, sharded or not; ``stamp`` is the sum of its files.

    ``fills`` says that chunks which are missing are the fill value of the array.
    """

    kind: str = "zarr"
    fills: bool = False

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        array = _open_array(self.stamp, self.layout, self.fills)
        try:
            block = array.read(self.layout.index(start, stop), start, stop)
        except ScopeflowError:
            raise
        except ChunkError as gap:
            raise self._gap(array.grid, gap, start, stop) from None
        except Exception as error:
            place = location(self.stamp.path)
            if isinstance(place, RemotePath) and is_access_error(error):
                with reaching(place):
                    raise
            raise UnreadableFileError(
                f"{self.stamp.path}: frames {start} to {stop} cannot be read "
                f"({excerpt(f'{type(error).__name__}: {error}')}). A chunk is damaged; restore the "
                "folder."
            ) from error
        return self.layout.to_video(block, owned=True)

    def state(self, start: int, stop: int) -> dict[str, str]:
        """Return what the chunks or shards that hold some frames look like now."""
        grid = _open_array(self.stamp, self.layout, self.fills).grid
        if grid is None:
            return super().state(start, stop)
        keys = map(grid.key, grid.places(start, stop))
        return file_states([f"{self.stamp.path}/{key}" for key in keys])

    def _gap(
        self, grid: ChunkGrid | None, gap: ChunkError, start: int, stop: int
    ) -> UnreadableFileError:
        """Tell about a chunk that was there, or could not be looked for, on opening."""
        place = None if grid is None else grid.place(gap.key)
        if place is not None and grid is not None:
            first, last = grid.frames_of(place)
            start, stop = max(start, first), min(stop, last)
        what = f"the chunk file {gap.key}" if gap.key else "the folder"
        lost = f"{what} {gap.what}, so {frames_text((start, stop))} cannot be read"
        return refusal(
            self.stamp.path, lost, "" if gap.is_damage else "zarr", masks=not self.absent
        )


def _walk(group: Any) -> dict[str, Any]:
    """Return the arrays below a group by their path."""
    found = {}
    pending = [(group, "")]
    seen = 0
    while pending:
        one, prefix = pending.pop()
        seen += 1
        if seen > _MOST_GROUPS:
            raise InputError(
                f"{group.store_path}: it holds more than {_MOST_GROUPS} groups, or links that make "
                "a circle. Name the array with dataset=."
            )
        for key, item in sorted(one.members()):
            if isinstance(item, zarr.Array):
                found[prefix + key] = item
            else:
                pending.append((item, f"{prefix}{key}/"))
    return dict(sorted(found.items()))


def _level(group: Any, name: str, level: str) -> Any:
    """Return the array that OME metadata name."""
    try:
        array = group[level]
    except KeyError:
        raise UnreadableFileError(
            f"{name}: its OME metadata name the array {excerpt(repr(level))}, which is missing. "
            "The folder is incomplete; copy it again."
        ) from None
    except ScopeflowError:
        raise
    except Exception as error:
        raise UnreadableFileError(
            f"{name}: the array {excerpt(repr(level))} that its OME metadata name cannot be opened "
            f"({excerpt(f'{type(error).__name__}: {error}')}). Its metadata file (zarr.json or "
            ".zarray) is damaged or truncated; copy it again."
        ) from error
    if not isinstance(array, zarr.Array):
        raise UnreadableFileError(
            f"{name}: its OME metadata name {excerpt(repr(level))}, which is a group and no array. "
            "Name the array with dataset=."
        )
    return array


def _choose_array(
    node: Any, name: str, dataset: str | None
) -> tuple[Any, str, str, Multiscale | None]:
    """Return the array, its path in the group, why it was taken, and the multiscales it begins."""
    if not isinstance(node, zarr.Group):
        if dataset is not None:
            raise InputError(f"{name}: is an array, not a group; leave dataset={dataset!r} out.")
        return node, "", "the array itself", None
    try:
        multiscale = first_multiscale(node.attrs.asdict(), name)
    except UnreadableFileError:
        if dataset is None:
            raise
        multiscale = None  # what it does not tell was given
    if multiscale is not None and (dataset is None or dataset.strip("/") == multiscale.level):
        level = multiscale.level
        return _level(node, name, level), level, "level 0 of multiscales", multiscale
    try:
        arrays = _walk(node)
    except ScopeflowError:
        raise
    except Exception as error:
        raise UnreadableFileError(
            f"{name}: its arrays cannot be listed ({excerpt(f'{type(error).__name__}: {error}')}). "
            "A metadata file (zarr.json or .zarray) is damaged or truncated; copy the folder again."
        ) from error
    chosen, reason = choose_datasets({k: tuple(a.shape) for k, a in arrays.items()}, name, dataset)
    if len(chosen) > 1:
        raise InputError(
            f"{name}: several arrays may be the recording: {', '.join(chosen)}. "
            "Choose one with dataset=."
        )
    return arrays[chosen[0]], chosen[0], reason, None


def _stored_axes(
    array: Any, multiscale: Multiscale | None, where: str, axes: str | None
) -> tuple[str, str]:
    """Return the axes of an array, and where they were read."""
    shape = tuple(int(n) for n in array.shape)
    names = getattr(array.metadata, "dimension_names", None)
    names = names or array.attrs.asdict().get("_ARRAY_DIMENSIONS")
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and n for n in names):
        names = ()
    if axes is not None:
        letters, origin = parse_axes(axes, len(shape), where), "axes= argument"
    elif multiscale is not None and multiscale.axes:
        letters, origin = axis_letters(multiscale.axis_names(where), where), "OME-Zarr axes"
    elif multiscale is not None and len(shape) == 5:
        letters, origin = "TCZYX", "OME-Zarr before 0.3"
    elif names:
        letters, origin = axis_letters(names, where), "dimension names"
    else:
        letters = default_axes(len(shape), shape, where)
        origin = f"default for {len(shape)} axes"
    if len(letters) != len(shape):
        raise UnreadableFileError(
            f"{where}: {len(letters)} axes are named ({letters}), but the array has {len(shape)}. "
            "Its metadata are inconsistent; pass axes=."
        )
    return letters, origin


def _absent(
    array: Any, folder: Location, layout: AxisLayout, sizes: Mapping[str, int], missing: str
) -> tuple[int, ...]:
    """Return the frames whose chunks a folder lacks, of those that it lists; or refuse it."""
    grid = _grid(array, layout)
    if grid is None:
        return ()
    empty = [key for key, size in sizes.items() if size == 0]
    held = [key for key, size in sizes.items() if size > 0]
    gaps = grid.spans_of(empty) if missing == "fill" else grid.gaps(held)
    spans = list(gaps.spans) if gaps else []
    gap, fills = None, "zarr"
    if gaps is not None:
        gap = f"the chunk file {gaps.first} is missing"
        if gaps.first in sizes:
            gap, fills = f"the chunk file {gaps.first} holds 0 bytes", ""
    if missing == "mask":
        checked = CheckedArray(array, folder, grid, fills=False)
        for key, lacking in checked.inner_gaps(0, grid.n_frames, held):
            gap = gap or f"the shard file {key} lacks inner chunks"
            spans += lacking
    if gap is None:
        return ()
    return absent_or_refused(str(folder), gap, spans, grid.n_frames, missing, fills)


def _marked_absent(node: Any, n_frames: int) -> tuple[int, ...]:
    """Return the frames of a result of ours that had no pixels when it was made: zeros stand there.

    Attributes may hold anything.
    """
    found: Any = node.attrs.asdict()
    for key in ("scopeflow", "settings", "absent"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, list):
        return ()
    return tuple(n for n in found if type(n) is int and 0 <= n < n_frames)


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

    Chunks that are missing or hold 0 bytes are an error. With ``missing="mask"`` their frames are
    ``absent``, inner chunks of shards among them; with ``missing="fill"`` missing ones are the fill
    value of the array. One listing of the folder tells; a store that cannot list (http) tells when
    frames are read, and so does a shard about its inner chunks unless they are to be masked.

    Raises UnreadableFileError, DatasetNotFoundError, InputError, MemoryLimitError: the folder, its
        arrays, their chunks or their axes cannot be used.
    """
    folder = location(path)
    name = str(folder if isinstance(folder, RemotePath) else path)
    if missing not in ("error", "mask", "fill"):
        raise InputError(
            f'{name}: missing={missing!r} has no meaning for zarr. Use missing="fill" if chunks '
            'that hold only the fill value were left out, or missing="mask" to mark their frames '
            "invalid."
        )
    refuse_incomplete(folder)
    node = _open_node(str(folder))
    array, key, reason, multiscale = _choose_array(node, name, dataset)
    where = f"{name}, {key}" if key else name
    letters, origin = _stored_axes(array, multiscale, where, axes)
    check_sizes(array.shape, array.chunks, array.dtype.itemsize, where)
    layout, note = resolve_layout(letters, array.shape, where, z=z)
    dtype = check_video(layout.video_shape, array.dtype, where)
    stamp, sizes = list_folder(folder / key)
    absent = () if sizes is None else _absent(array, folder / key, layout, sizes, missing)
    absent = tuple(sorted({*absent, *_marked_absent(node, layout.video_shape[0])}))
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
        scales = multiscale.scales(letters)
        height, width = (micrometres(*scales[letter]) for letter in "YX")
        if height is not None and width is not None:
            pixel = (height, width)
            origins.append(("pixel_size", "OME-Zarr scale"))
        if "T" in scales:
            interval = seconds(*scales["T"])
            if interval is not None:
                origins.append(("frame_interval", "OME-Zarr scale"))
        channels = channel_names(node.attrs.asdict(), layout.video_shape[3])
        if channels is not None:
            origins.append(("channels", "omero metadata"))
    return ZarrSource(
        stamp=stamp,
        shape=layout.video_shape,
        dtype=dtype,
        metadata=VideoMetadata(pixel, None, interval, channels, tuple(origins)),
        frames_per_chunk=max(1, per_chunk),
        layout=layout,
        absent=absent,
        fills=missing == "fill",
    )
