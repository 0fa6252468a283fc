"""Registered recordings of suite2p: ``data.bin`` with the frame size in ``ops.npy``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputNotFoundError, UnreadableFileError
from scopeflow.io.addresses import expanded
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import check_video
from scopeflow.io.read.files import FileStamp, stamp_file
from scopeflow.io.read.pickled import read_plain_npy
from scopeflow.io.read.source import FileSource
from scopeflow.strict.values import excerpt, shortened

__all__ = ["Suite2pSource", "open_suite2p"]

_STORED = np.dtype("<i2")
_LONGEST_SIDE = 1 << 24


def _read_settings(path: Path) -> tuple[int, int, float | None]:
    """Return height and width, px, and the frames per second where they are known."""
    with path.open("rb") as file:
        settings = read_plain_npy(file, path.stat().st_size)
    if not isinstance(settings, dict):
        raise TypeError("it holds no dictionary")
    height, width = (_side(settings[name], name) for name in ("Ly", "Lx"))
    rate = float(settings.get("fs") or 0)
    known = math.isfinite(rate) and rate > 0 and math.isfinite(1 / rate)
    return height, width, rate if known else None


def _side(value: Any, name: str) -> int:
    side = int(value)
    if not 0 < side <= _LONGEST_SIDE:
        raise ValueError(f"{name} is {shortened(side)}; a number of pixels is needed")
    return side


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
        return {"kind": self.kind, "files": files, "shape": list(self.shape), **self._absence()}


def open_suite2p(folder: str | Path) -> Suite2pSource:
    """Open the binary file of one plane, such as ``suite2p/plane0``; no pixel is read.

    ``data.bin`` holds int16 frames without a header; their size and rate are in ``ops.npy`` beside
    it (``Ly``, ``Lx``, ``fs``). That file is a pickle: only plain values are taken from it, nothing
    in it is executed. A second channel is ``data_chan2.bin``. Suite2p halves uint16 values.

    Raises InputNotFoundError: ``ops.npy`` is missing.
    Raises UnreadableFileError: the settings cannot be read, or do not fit the size of the file.

    References
    ----------
    Suite2p documentation, "Outputs" and "Settings (ops.npy)".
    """
    base = expanded(folder)
    settings_path = base / "ops.npy"
    if not settings_path.is_file():
        raise InputNotFoundError(
            f"{base / 'data.bin'}: the frame size of suite2p's binary file stands in ops.npy, "
            "which is not beside it. Copy ops.npy of the same plane there."
        )
    try:
        height, width, rate = _read_settings(settings_path)
    except Exception as error:
        raise UnreadableFileError(
            f"{settings_path}: Ly and Lx cannot be read ({type(error).__name__}: "
            f"{excerpt(str(error))}). "
            "It is damaged or not of suite2p; copy it again."
        ) from error
    names = [name for name in ("data.bin", "data_chan2.bin") if (base / name).is_file()]
    stamps = tuple(stamp_file(base / name) for name in names)
    frame_bytes = height * width * _STORED.itemsize
    for stamp in stamps:
        if stamp.size % frame_bytes or stamp.size != stamps[0].size:
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
    interval = None if rate is None else 1 / rate
    if interval is not None:
        origins = (*origins, ("frame_interval", "ops.npy, fs"))
    return Suite2pSource(
        stamp=stamps[0],
        others=stamps[1:],
        shape=shape,
        dtype=np.dtype(np.int16),
        metadata=VideoMetadata(None, None, interval, None, origins),
    )
