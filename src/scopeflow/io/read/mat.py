"""Recordings in MATLAB files, version 5 to 7; version 7.3 is HDF5."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import (
    AxisLayout,
    check_frame_range,
    check_video,
    parse_axes,
    resolve_layout,
)
from scopeflow.io.read.discovery import choose_datasets
from scopeflow.io.read.files import FileStamp, stamp_file
from scopeflow.io.read.mat5_file import MatStream, MatVariable, list_variables

__all__ = ["MatSource", "open_mat"]


@lru_cache(maxsize=16)
def _stream(stamp: FileStamp, variable: MatVariable) -> MatStream:
    stamp.check_unchanged()
    return MatStream(stamp.path, variable.element, variable.nbytes, variable.compressed)


@dataclass(frozen=True)
class MatSource:
    """One variable, or one for each channel, of a MATLAB file before v7.3.

    Attributes
    ----------
    stamp : FileStamp
        The file.
    variables : tuple of MatVariable
        In channel order.
    layout : AxisLayout
        Axis order, slowest axis first (MATLAB's order reversed).
    dtype : numpy.dtype
        Native type.
    metadata : VideoMetadata
        Facts and origins.
    """

    stamp: FileStamp
    variables: tuple[MatVariable, ...]
    layout: AxisLayout
    dtype: np.dtype[Any]
    metadata: VideoMetadata

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape ``(T, H, W, C)``."""
        frames, height, width, channels = self.layout.video_shape
        return frames, height, width, channels * len(self.variables)

    @property
    def frames_per_chunk(self) -> int:
        """Frames of about 8 MB where compressed, since each read starts up to 8 MB before."""
        if not any(variable.compressed for variable in self.variables):
            return 1
        frame = math.prod(self.shape[1:3]) * self.dtype.itemsize
        return max(1, min(self.shape[0], 8 * 2**20 // frame))

    @property
    def description(self) -> str:
        """Short name for people."""
        names = ", ".join(variable.name for variable in self.variables)
        return f"MAT {self.stamp.path}, {names}"

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
            Damaged data.
        """
        check_frame_range(start, stop, self.shape[0], self.description)
        parts = [self._read_variable(variable, start, stop) for variable in self.variables]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=3)

    def _read_variable(self, variable: MatVariable, start: int, stop: int) -> NDArray[Any]:
        stored = np.dtype(variable.stored)
        index = self.layout.index(start, stop)
        slab_shape = self.layout.shape[1:]
        slab = math.prod(slab_shape) * stored.itemsize
        stream = _stream(self.stamp, variable)
        outer = index[0]
        rows = [outer] if isinstance(outer, int) else range(self.layout.shape[0])[outer]
        slabs = []
        for row in rows:
            try:
                raw = stream.read(variable.start + row * slab, slab)
            except (OSError, zlib.error) as error:
                raise self._damaged(variable, error) from error
            if len(raw) != slab:
                raise self._damaged(variable, "it ends too early")
            values = np.frombuffer(raw, stored).reshape(slab_shape)[index[1:]]
            slabs.append(values.astype(self.dtype))
        if not slabs:
            return np.empty((0, *self.layout.video_shape[1:]), self.dtype)
        block = slabs[0] if isinstance(outer, int) else np.stack(slabs)
        return self.layout.to_video(block, owned=True)

    def _damaged(self, variable: MatVariable, reason: object) -> UnreadableFileError:
        return UnreadableFileError(
            f"{self.stamp.path}: variable {variable.name} cannot be read ({reason}). The file is "
            "damaged; save it again."
        )

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        return {
            "kind": "MAT",
            **self.stamp.facts(),
            "datasets": [variable.name for variable in self.variables],
            "axes": self.layout.axes,
            "fixed": [list(pair) for pair in self.layout.fixed],
            "shape": list(self.shape),
            "dtype": self.dtype.str,
        }


def open_mat(
    path: str | Path,
    *,
    axes: str | None = None,
    dataset: str | Sequence[str] | None = None,
    z: int | None = None,
) -> MatSource:
    """Open a recording in a MATLAB file before v7.3; no pixel is read.

    Variables are ``(H, W, T)``, one for each channel. Compressed variables are read by pieces
    too.

    Parameters
    ----------
    path : str or Path
        The file.
    axes : str, optional
        One letter for each axis in MATLAB's order.
    dataset : str or sequence of str, optional
        Variable names, several are channels; found by :func:`choose_datasets` otherwise.
    z : int, optional
        Plane to read where ``axes`` has ``Z``.

    Returns
    -------
    MatSource
        The recording.

    Raises
    ------
    InputNotFoundError, UnreadableFileError, DatasetNotFoundError, InputError
        The file, its variables or their axes cannot be used.
    """
    stamp = stamp_file(path)
    name = str(path)
    found = list_variables(stamp.path, stamp.size)
    chosen, reason = choose_datasets({k: v.shape for k, v in found.items()}, name, dataset)
    variables = tuple(found[key] for key in chosen)
    shape = variables[0].shape
    where = f"{name}, {chosen[0]}"
    if axes is not None:
        letters, origin = parse_axes(axes, len(shape), where), "axes= argument"
    elif len(shape) == 3:
        letters, origin = "YXT", "MATLAB order (H, W, T)"
    else:
        raise InputError(
            f"{where}: a MATLAB array of shape {shape} has no documented axis order. Pass axes= in "
            'MATLAB\'s order, for example axes="YXTC".'
        )
    layout, note = resolve_layout(letters[::-1], shape[::-1], where, z=z)
    video_shape = (*layout.video_shape[:3], layout.video_shape[3] * len(variables))
    dtype = check_video(video_shape, np.result_type(*(v.dtype for v in variables)), where)
    origins = (
        ("axes", f"{letters}, {origin}" + (f"; {note}" if note else "")),
        ("dataset", f"{', '.join(chosen)} ({reason})"),
        ("shape", f"variable {chosen[0]}"),
        ("dtype", f"variable {chosen[0]}"),
    )
    names = chosen if len(chosen) > 1 else None
    return MatSource(
        stamp, variables, layout, dtype, VideoMetadata(channel_names=names, origins=origins)
    )
