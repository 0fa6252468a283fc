"""Registered recordings of suite2p: ``data.bin`` with the frame size in ``ops.npy``."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, InputNotFoundError, UnreadableFileError
from scopeflow.io.addresses import expanded
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import check_video
from scopeflow.io.read.files import FileStamp, stamp_file
from scopeflow.io.read.gaps import absent_or_refused
from scopeflow.io.read.pickled import read_plain_npy
from scopeflow.io.read.source import FileSource
from scopeflow.strict.values import excerpt, shortened

__all__ = ["Suite2pSource", "open_suite2p"]

logger = logging.getLogger(__name__)

_STORED = np.dtype("<i2")
_LONGEST_SIDE = 1 << 24


class _Settings(NamedTuple):
    """What ``ops.npy`` says of a recording; px, frames per second, frames; None: unknown."""

    height: int
    width: int
    rate: float | None
    declared: int | None


def _read_settings(path: Path) -> _Settings:
    with path.open("rb") as file:
        settings = read_plain_npy(file, path.stat().st_size)
    if not isinstance(settings, dict):
        raise TypeError("it holds no dictionary")
    height, width = (_side(settings[name], name) for name in ("Ly", "Lx"))
    rate = float(settings.get("fs") or 0)
    known = math.isfinite(rate) and rate > 0 and math.isfinite(1 / rate)
    # Without it, or before suite2p has written all frames, the size of the file alone counts.
    declared = int(settings.get("nframes") or 0)
    return _Settings(height, width, rate if known else None, declared if declared > 0 else None)


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
            held = stamp.size // (math.prod(self.shape[1:3]) * _STORED.itemsize)
            stored = np.memmap(stamp.path, _STORED, "r", shape=(held, *self.shape[1:3]))
            block[..., channel] = stored[start:stop]
        return block

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        files = [stamp.facts() for stamp in self._stamps]
        return {"kind": self.kind, "files": files, "shape": list(self.shape), **self._absence()}


def open_suite2p(
    folder: str | Path, *, missing: Literal["error", "mask"] = "error"
) -> Suite2pSource:
    """Open the binary file of one plane, such as ``suite2p/plane0``; no pixel is read.

    ``data.bin`` holds int16 frames without a header; their size, rate and number are in ``ops.npy``
    beside it (``Ly``, ``Lx``, ``fs``, ``nframes``). That file is a pickle: only plain values are
    taken from it, nothing in it is executed. A second channel is ``data_chan2.bin``. Suite2p halves
    uint16 values.

    A file that holds fewer frames than ``nframes`` was cut off; with ``missing="mask"`` those that
    are not there are ``absent``.

    Raises InputNotFoundError: ``ops.npy`` is missing.
    Raises InputError: another `missing`.
    Raises UnreadableFileError: the settings cannot be read, or do not fit the size of the file.

    References
    ----------
    Suite2p documentation, "Outputs" and "Settings (ops.npy)".
    """
    base = expanded(folder)
    if missing not in ("error", "mask"):
        raise InputError(
            f'{base}: missing={missing!r} is not for suite2p; use missing="mask" to mark frames '
            "that its binary file lacks as invalid"
        )
    settings_path = base / "ops.npy"
    if not settings_path.is_file():
        raise InputNotFoundError(
            f"{base / 'data.bin'}: the frame size of suite2p's binary file stands in ops.npy, "
            "which is not beside it. Copy ops.npy of the same plane there."
        )
    try:
        settings = _read_settings(settings_path)
    except Exception as error:
        raise UnreadableFileError(
            f"{settings_path}: Ly and Lx cannot be read ({type(error).__name__}: "
            f"{excerpt(str(error))}). "
            "It is damaged or not of suite2p; copy it again."
        ) from error
    names = [name for name in ("data.bin", "data_chan2.bin") if (base / name).is_file()]
    stamps = tuple(stamp_file(base / name) for name in names)
    height, width, rate, _ = settings
    frames, absent = _frames(stamps, settings, missing)
    shape = (frames, height, width, len(stamps))
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
        absent=absent,
    )


def _frames(
    stamps: Sequence[FileStamp], settings: _Settings, missing: str
) -> tuple[int, tuple[int, ...]]:
    """Return how many frames a recording has, and those of them that its files lack."""
    frame_bytes = settings.height * settings.width * _STORED.itemsize
    shortest = min(stamps, key=lambda stamp: stamp.size)
    held, declared = shortest.size // frame_bytes, settings.declared
    if declared is not None and held < declared:
        gap = f"ops.npy names nframes={declared}, but {held} are there"
        lost = [(held, declared)]
        return declared, absent_or_refused(shortest.path, gap, lost, declared, missing)
    for stamp in stamps:
        if stamp.size % frame_bytes or stamp.size != stamps[0].size:
            raise UnreadableFileError(
                f"{stamp.path}: {stamp.size} bytes are no whole number of frames of "
                f"{settings.height} × {settings.width} px (Ly × Lx in ops.npy), or another number "
                "than of the other channel. It is truncated, or ops.npy is of another plane."
            )
    if declared is not None and held > declared:
        logger.warning(
            "%s holds %d frames, and ops.npy names nframes=%d; all that are there are read.",
            stamps[0].path,
            held,
            declared,
        )
    return held, ()
