"""Recordings in HDF5 files, MATLAB v7.3 files among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.io.locations import RemotePath, is_access_error, location
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import (
    AxisLayout,
    check_frame_range,
    check_video,
    default_axes,
    parse_axes,
    resolve_layout,
)
from scopeflow.io.read.discovery import choose_datasets
from scopeflow.io.read.files import (
    FileStamp,
    HandleCache,
    collection_paused,
    stamp_file,
)

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


@dataclass(frozen=True)
class Hdf5Source:
    """One dataset, or one for each channel, of an HDF5 or MATLAB v7.3 file.

    Attributes
    ----------
    stamp : FileStamp
        The file.
    datasets : tuple of str
        Dataset names in channel order.
    layout : AxisLayout
        Axis order of each of them.
    dtype : numpy.dtype
        Native type.
    metadata : VideoMetadata
        Facts and origins.
    frames_per_chunk : int
        Frames of one HDF5 chunk.
    kind : str
        ``"HDF5"`` or ``"MAT v7.3"``.
    """

    stamp: FileStamp
    datasets: tuple[str, ...]
    layout: AxisLayout
    dtype: np.dtype[Any]
    metadata: VideoMetadata
    frames_per_chunk: int
    kind: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape ``(T, H, W, C)``."""
        frames, height, width, channels = self.layout.video_shape
        return frames, height, width, channels * len(self.datasets)

    @property
    def description(self) -> str:
        """Short name for people."""
        return f"{self.kind} {self.stamp.path}, {', '.join(self.datasets)}"

    @property
    def paths(self) -> tuple[str, ...]:
        """The file."""
        return (self.stamp.path,)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames ``start`` to ``stop``, shape ``(n, H, W, C)``.

        Raises
        ------
        InputError
            A range outside the recording.
        UnreadableFileError
            A damaged chunk.
        """
        check_frame_range(start, stop, self.shape[0], self.description)
        index = self.layout.index(start, stop)
        handle = HDF5_FILES.get(self.stamp)
        # HDF5 itself is not safe for threads.
        with handle.lock:
            try:
                blocks = [handle.value[name][index] for name in self.datasets]
            except Exception as error:
                if not is_access_error(error):
                    raise
                raise UnreadableFileError(
                    f"{self.stamp.path}: frames {start} to {stop} cannot be read ({error}). "
                    "The file is damaged; restore it from the original."
                ) from error
        parts = [
            self.layout.to_video(np.asarray(block).astype(self.dtype, copy=False), owned=True)
            for block in blocks
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=3)

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        return {
            "kind": self.kind,
            **self.stamp.facts(),
            "datasets": list(self.datasets),
            "axes": self.layout.axes,
            "fixed": [list(pair) for pair in self.layout.fixed],
            "shape": list(self.shape),
            "dtype": self.dtype.str,
        }


def _numeric_datasets(file: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith(("#refs#", "#subsystem#")):
            found[name] = item

    file.visititems(visit)
    return found


def _writer_axes(data: Any, file: Any, name: str) -> str | None:
    # "dimension_ordering" holds the positions of H, W and T among the stored axes.
    order = data.attrs.get("dimension_ordering", file.attrs.get("dimension_ordering"))
    if order is None or data.ndim != 3:
        return None
    positions = [int(position) for position in np.ravel(order)]
    if sorted(positions) != [0, 1, 2]:
        raise InputError(
            f"{name}: its attribute dimension_ordering is {positions}, not an order of 0, 1, 2. "
            'Pass axes=, for example axes="TYX".'
        )
    letters = ["", "", ""]
    for letter, position in zip("YXT", positions, strict=True):
        letters[position] = letter
    return "".join(letters)


def open_hdf5(
    path: str | Path | RemotePath,
    *,
    axes: str | None = None,
    dataset: str | Sequence[str] | None = None,
    z: int | None = None,
) -> Hdf5Source:
    """Open a recording in an HDF5 or MATLAB v7.3 file; no pixel is read.

    Datasets are ``(T, H, W)`` or ``(T, H, W, C)`` unless the attribute ``dimension_ordering`` or
    ``axes`` says otherwise. MATLAB files hold ``(H, W, T)`` in MATLAB's order, which HDF5 reverses;
    ``axes`` of a MATLAB file is in MATLAB's order.

    Parameters
    ----------
    path : str, Path or RemotePath
        The file.
    axes : str, optional
        One letter for each axis of a dataset.
    dataset : str or sequence of str, optional
        Dataset names, several are channels; found by :func:`choose_datasets` otherwise.
    z : int, optional
        Plane to read where ``axes`` has ``Z``.

    Returns
    -------
    Hdf5Source
        The recording.

    Raises
    ------
    InputNotFoundError, UnreadableFileError, DatasetNotFoundError, InputError
        The file, its datasets or their axes cannot be used.
    """
    stamp = stamp_file(path)
    handle = HDF5_FILES.get(stamp)
    name = str(path)
    with handle.lock:
        file = handle.value
        found = _numeric_datasets(file)
        matlab = any("MATLAB_class" in item.attrs for item in found.values()) or (
            str(path).lower().endswith(".mat")
        )
        numbers = {key: tuple(item.shape) for key, item in found.items() if item.shape is not None}
        if dataset is None:
            numbers = {k: v for k, v in numbers.items() if found[k].dtype.kind in "biufc"}
        chosen, reason = choose_datasets(numbers, name, dataset)
        data = [found[key] for key in chosen]
        first = data[0]
        shape = tuple(first.shape)
        where = f"{name}, {chosen[0]}"
        origin = "axes= argument"
        if axes is not None:
            letters = parse_axes(axes, len(shape), where)
            letters = letters[::-1] if matlab else letters
        elif matlab:
            if len(shape) != 3:
                raise InputError(
                    f"{where}: a MATLAB array of shape {shape[::-1]} has no documented axis order. "
                    'Pass axes= in MATLAB\'s order, for example axes="YXTC".'
                )
            letters, origin = "TXY", "MATLAB order (H, W, T), reversed by HDF5"
        elif (written := _writer_axes(first, file, where)) is not None:
            letters, origin = written, "attribute dimension_ordering"
        else:
            letters = default_axes(len(shape), shape, where)
            origin = f"default for {len(shape)} axes"
        layout, note = resolve_layout(letters, shape, where, z=z)
        logical = matlab and _text(first.attrs.get("MATLAB_class")) == "logical"
        dtype = np.result_type(*(np.dtype(bool) if logical else item.dtype for item in data))
        video_shape = (*layout.video_shape[:3], layout.video_shape[3] * len(chosen))
        dtype = check_video(video_shape, dtype, where)
        chunks = first.chunks
        per_chunk = 1
        if chunks is not None and "T" in layout.axes:
            per_chunk = min(int(chunks[layout.axes.index("T")]), max(1, layout.size("T")))
    origins = (
        ("axes", f"{letters}, {origin}" + (f"; {note}" if note else "")),
        ("dataset", f"{', '.join(chosen)} ({reason})"),
        ("shape", f"dataset {chosen[0]}"),
        ("dtype", f"dataset {chosen[0]}"),
    )
    names = chosen if len(chosen) > 1 else None
    metadata = VideoMetadata(channel_names=names, origins=origins)
    return Hdf5Source(
        stamp, chosen, layout, dtype, metadata, per_chunk, "MAT v7.3" if matlab else "HDF5"
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
