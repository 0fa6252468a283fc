"""Recordings in HDF5 files, MATLAB v7.3 files among them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, ScopeflowError, UnreadableFileError
from scopeflow.io.locations import RemotePath, is_access_error, location
from scopeflow.io.read.axes import AxisLayout, default_axes, parse_axes
from scopeflow.io.read.boxes import cut
from scopeflow.io.read.discovery import choose_datasets
from scopeflow.io.read.files import HandleCache, collection_paused, stamp_file
from scopeflow.io.read.gaps import absent_or_refused, check_sizes
from scopeflow.io.read.hdf5_storage import Lack, SourceFile, StorageWalk
from scopeflow.io.read.source import DatasetSource, dataset_facts
from scopeflow.strict.values import excerpt

__all__ = ["HDF5_FILES", "Hdf5Source", "open_hdf5"]


def _open_file(path: str) -> Any:
    place = location(path)
    try:
        if isinstance(place, RemotePath):
            with collection_paused():
                return h5py.File(place.open(), "r")
        # Read-only network mounts often cannot lock.
        return h5py.File(path, "r", locking="best-effort")
    except UnreadableFileError:
        raise
    except Exception as error:
        if not is_access_error(error):
            raise
        advice = "It may be damaged; restore it from the original."
        if "truncated" in str(error):
            advice = "It is truncated; copy or save it again."
        elif "lock" in str(error):
            advice = "Another program writes to it; let it finish."
        raise UnreadableFileError(
            f"{path}: cannot be opened as HDF5 ({error}). {advice}"
        ) from error


HDF5_FILES: HandleCache[Any] = HandleCache(_open_file)
"""Open HDF5 files of this process; read them under the lock of their handle."""


@dataclass(frozen=True, kw_only=True)
class Hdf5Source(DatasetSource):
    """One dataset, or one for each channel, of an HDF5 or MATLAB v7.3 file.

    ``sources`` are the other files that a virtual dataset has its values in.
    """

    sources: tuple[SourceFile, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The file, and those of the sources of a virtual dataset."""
        return (self.stamp.path, *(one.stamp.path for one in self.sources))

    def _read_datasets(self, start: int, stop: int) -> list[NDArray[Any]]:
        index = self.layout.index(start, stop)
        for one in self.sources:
            # HDF5 reads a source that is gone as the fill value.
            if one.start < stop and start < one.stop:
                one.stamp.check_unchanged()
        handle = HDF5_FILES.get(self.stamp)
        # HDF5 itself is not safe for threads.
        with handle.lock:
            try:
                return [handle.value[name][index] for name in self.datasets]
            except Exception as error:
                if not is_access_error(error):
                    raise
                raise self._damaged(f"frames {start} to {stop}", error) from error


def _datasets(file: Any, path: str, walk: StorageWalk, wanted: Collection[str]) -> dict[str, Any]:
    """Return the datasets of a file by name; links to other files are not followed.

    Others than the `wanted` ones may be virtual datasets that cannot be read.
    """
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith(("#refs#", "#subsystem#")):
            found[name] = item

    try:
        file.visititems(visit)
        for name, item in list(found.items()):
            try:
                walk.check_circles(item)
            except UnreadableFileError:
                if not wanted or name in wanted:
                    raise
                del found[name]
    except ScopeflowError:
        raise
    except Exception as error:
        raise UnreadableFileError(
            f"{path}: its list of datasets is damaged ("
            f"{excerpt(f'{type(error).__name__}: {error}')}). Restore it from the original"
        ) from error
    return found


def _writer_axes(data: Any, file: Any, name: str) -> str | None:
    # "dimension_ordering" holds the positions of H, W and T among the stored axes.
    order = data.attrs.get("dimension_ordering", file.attrs.get("dimension_ordering"))
    if order is None or data.ndim != 3:
        return None
    try:
        positions = [int(position) for position in np.ravel(order)]
        is_order = sorted(positions) == [0, 1, 2] and positions == np.ravel(order).tolist()
    except (TypeError, ValueError, OverflowError, AttributeError):
        is_order = False
    if not is_order:
        raise InputError(
            f"{name}: its attribute dimension_ordering is {excerpt(repr(order))}, not an order of "
            '0, 1, 2. Pass axes=, for example axes="TYX".'
        )
    letters = ["", "", ""]
    for letter, position in zip("YXT", positions, strict=True):
        letters[position] = letter
    return "".join(letters)


def _stored_axes(
    first: Any, file: Any, where: str, matlab: bool, axes: str | None
) -> tuple[str, str]:
    """Return the axes of a dataset as it is stored, and where they were read."""
    shape = tuple(first.shape)
    if axes is not None:
        letters = parse_axes(axes, len(shape), where)
        return letters[::-1] if matlab else letters, "axes= argument"
    if matlab:
        if len(shape) != 3:
            raise InputError(
                f"{where}: a MATLAB array of shape {shape[::-1]} has no documented axis order. "
                'Pass axes= in MATLAB\'s order, for example axes="YXTC".'
            )
        return "TXY", "MATLAB order (H, W, T), reversed by HDF5"
    written = _writer_axes(first, file, where)
    if written is not None:
        return written, "attribute dimension_ordering"
    return default_axes(len(shape), shape, where), f"default for {len(shape)} axes"


def open_hdf5(
    path: str | Path | RemotePath,
    *,
    axes: str | None = None,
    dataset: str | Sequence[str] | None = None,
    z: int | None = None,
    missing: str = "error",
) -> Hdf5Source:
    """Open a recording in an HDF5 or MATLAB v7.3 file; no pixel is read.

    Datasets are ``(T, H, W)`` or ``(T, H, W, C)`` unless the attribute ``dimension_ordering`` or
    ``axes`` says otherwise; several are channels, found by :func:`choose_datasets` unless
    ``dataset`` names them. MATLAB files hold ``(H, W, T)`` in MATLAB's order, which HDF5 reverses;
    ``axes`` of a MATLAB file is in MATLAB's order.

    Values that are not there are an error: chunks never written, and sources of virtual datasets
    that are gone or too small. With ``missing="mask"`` their frames are ``absent``; with
    ``missing="fill"`` what was never written is the fill value. Links to other files are not
    followed, external storage is refused, and sources must be regular files of this machine.

    Raises InputNotFoundError, UnreadableFileError, DatasetNotFoundError, InputError: the file, its
        datasets or their axes cannot be used.
    """
    stamp = stamp_file(path)
    handle = HDF5_FILES.get(stamp)
    name = str(path)
    with handle.lock:
        file = handle.value
        walk = StorageWalk(stamp.path)
        given = (dataset,) if isinstance(dataset, str) else tuple(dataset or ())
        found = _datasets(file, name, walk, {str(key).strip("/") for key in given})
        matlab = any("MATLAB_class" in item.attrs for item in found.values()) or (
            str(path).lower().endswith(".mat")
        )
        numbers = {key: tuple(item.shape) for key, item in found.items() if item.shape is not None}
        if dataset is None:
            numbers = {k: v for k, v in numbers.items() if found[k].dtype.kind in "biufc"}
        chosen, reason = choose_datasets(numbers, name, dataset)
        first = found[chosen[0]]
        where = f"{name}, {chosen[0]}"
        letters, origin = _stored_axes(first, file, where, matlab, axes)
        logical = matlab and _text(first.attrs.get("MATLAB_class")) == "logical"
        types = [np.dtype(bool) if logical else found[key].dtype for key in chosen]
        if 0 in first.shape:
            walk.lacks(first, None)  # a missing source is the reason more often than an empty file
        facts = dataset_facts(
            where, chosen, letters, tuple(first.shape), types,
            z=z, axes=f"{letters}, {origin}", reason=reason, noun="dataset",
        )  # fmt: skip
        layout = facts["layout"]
        per_chunk = 1
        if first.chunks is not None and "T" in layout.axes:
            per_chunk = min(int(first.chunks[layout.axes.index("T")]), max(1, layout.size("T")))
        for key in chosen:
            check_sizes(found[key].shape, found[key].chunks, found[key].dtype.itemsize, where)
        absent = _absent([found[key] for key in chosen], walk, layout, where, missing)
    kind = "MAT v7.3" if matlab else "HDF5"
    return Hdf5Source(
        stamp=stamp,
        kind=kind,
        frames_per_chunk=per_chunk,
        absent=absent,
        sources=tuple(walk.sources.values()),
        **facts,
    )


def _absent(
    chosen: Sequence[Any], walk: StorageWalk, layout: AxisLayout, where: str, missing: str
) -> tuple[int, ...]:
    """Return the frames whose values the datasets lack, or refuse them."""
    time = layout.axes.index("T") if "T" in layout.axes else None
    fixed = dict(layout.fixed)
    needed = tuple(
        (fixed[axis], fixed[axis] + 1) if axis in fixed else (0, size)
        for axis, size in enumerate(layout.shape)
    )
    spans: list[tuple[int, int]] = []
    first: Lack | None = None
    for data in chosen:
        for lack in walk.lacks(data, time, layout.fixed):
            if lack.left_out and missing == "fill":
                continue
            parts = [part for box in lack.boxes if (part := cut(box, needed)) is not None]
            if parts:
                first = first or lack
                spans += [(0, 1) if time is None else part[time] for part in parts]
    if first is None:
        return ()
    fills = "HDF5" if first.left_out else ""
    return absent_or_refused(where, first.gap, spans, layout.size("T"), missing, fills)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
