"""Registered recordings of suite2p: ``data.bin`` with the frame size in ``ops.npy``."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from scopeflow.errors import InputNotFoundError, UnreadableFileError
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import check_video
from scopeflow.io.read.files import FileStamp, stamp_file
from scopeflow.io.read.source import FileSource

__all__ = ["Suite2pSource", "open_suite2p"]

_STORED = np.dtype("<i2")
_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
}


class _Ignored:
    """Stands for every object of the settings that is neither a number nor an array."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


class _SettingsUnpickler(pickle.Unpickler):
    # A pickle may call any function by name; only those that make arrays are let through.
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        return _Ignored


def _read_settings(file: BinaryIO) -> dict[str, Any]:
    if npy.read_magic(file) == (1, 0):
        npy.read_array_header_1_0(file)
    else:
        npy.read_array_header_2_0(file)
    stored = _SettingsUnpickler(file).load()
    settings = stored.item() if isinstance(stored, np.ndarray) else stored
    if not isinstance(settings, dict):
        raise TypeError("holds no dictionary")
    return settings


@dataclass(frozen=True, kw_only=True)
class Suite2pSource(FileSource):
    """Frames that suite2p registered, int16: ``data.bin``, in ``others`` ``data_chan2.bin``."""

    kind: str = "suite2p"
    others: tuple[FileStamp, ...] = ()

    @property
    def _stamps(self) -> tuple[FileStamp, ...]:
        return (self.stamp, *self.others)

    @property
    def paths(self) -> tuple[str, ...]:
        """The binary files."""
        return tuple(stamp.path for stamp in self._stamps)

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        block = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for channel, stamp in enumerate(self._stamps):
            # A mapped file that shrank would end the process, so look first.
            stamp.check_unchanged()
            stored = np.memmap(stamp.path, _STORED, "r", shape=self.shape[:3])
            block[..., channel] = stored[start:stop]
        return block

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        files = [stamp.facts() for stamp in self._stamps]
        return {"kind": self.kind, "files": files, "shape": list(self.shape)}


def open_suite2p(folder: str | Path) -> Suite2pSource:
    """Open the binary file of one plane, such as ``suite2p/plane0``; no pixel is read.

    ``data.bin`` holds int16 frames without a header; their size and rate are in ``ops.npy`` beside
    it (``Ly``, ``Lx``, ``fs``). That file is a pickle: only numbers and arrays are taken from it,
    nothing in it is executed. A second channel is ``data_chan2.bin``. Suite2p halves uint16 values.

    Raises InputNotFoundError: ``ops.npy`` is missing.
    Raises UnreadableFileError: the settings cannot be read, or do not fit the size of the file.

    References
    ----------
    Suite2p documentation, "Outputs" and "Settings (ops.npy)".
    """
    base = Path(folder).expanduser()
    settings_path = base / "ops.npy"
    if not settings_path.is_file():
        raise InputNotFoundError(
            f"{base / 'data.bin'}: the frame size of suite2p's binary file stands in ops.npy, "
            "which is not beside it. Copy ops.npy of the same plane there."
        )
    try:
        with settings_path.open("rb") as file:
            settings = _read_settings(file)
        height, width = int(settings["Ly"]), int(settings["Lx"])
        rate = float(settings.get("fs") or 0)
    except Exception as error:
        raise UnreadableFileError(
            f"{settings_path}: Ly and Lx cannot be read ({type(error).__name__}: {error}). "
            "It is damaged or not of suite2p; copy it again."
        ) from error
    names = [name for name in ("data.bin", "data_chan2.bin") if (base / name).is_file()]
    stamps = tuple(stamp_file(base / name) for name in names)
    frame_bytes = height * width * _STORED.itemsize
    for stamp in stamps:
        if frame_bytes <= 0 or stamp.size % frame_bytes or stamp.size != stamps[0].size:
            raise UnreadableFileError(
                f"{stamp.path}: {stamp.size} bytes are no whole number of frames of {height} × "
                f"{width} px (Ly × Lx in ops.npy), or another number than of the other channel. "
                "It is truncated, or ops.npy is of another plane."
            )
    shape = (stamps[0].size // frame_bytes, height, width, len(stamps))
    check_video(shape, np.int16, stamps[0].path)
    origins: tuple[tuple[str, str], ...] = (
        ("axes", "TYX, suite2p binary file"),
        ("shape", "ops.npy, size of the file"),
        ("dtype", "suite2p binary file; suite2p halves uint16 values"),
    )
    interval = 1 / rate if rate > 0 else None
    if interval is not None:
        origins = (*origins, ("frame_interval", "ops.npy, fs"))
    return Suite2pSource(
        stamp=stamps[0],
        others=stamps[1:],
        shape=shape,
        dtype=np.dtype(np.int16),
        metadata=VideoMetadata(None, None, interval, None, origins),
    )
