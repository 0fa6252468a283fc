"""Readers and writers of one file format each; the format is found by content anyway."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

from scopeflow.compat.pyflowreg.util.io._base import VideoReader, VideoWriter
from scopeflow.io.formats import OutputFormat

__all__ = [
    "HDF5FileReader",
    "HDF5FileWriter",
    "MATFileReader",
    "MATFileWriter",
    "MULTICHANNELFileReader",
    "TIFFFileReader",
    "TIFFFileWriter",
]

_Path = str | os.PathLike[str]


class _FileReader(VideoReader):
    # The first argument has another name than that of `VideoReader`.
    def __init__(
        self, file_path: _Path, buffer_size: int = 500, bin_size: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(file_path, buffer_size, bin_size, **kwargs)


class _FileWriter(VideoWriter):
    _format: ClassVar[OutputFormat]

    def __init__(self, file_path: _Path) -> None:
        super().__init__(os.fspath(file_path), self._format)


class HDF5FileReader(_FileReader):
    """Reads a HDF5 file, see :class:`VideoReader`."""


class HDF5FileWriter(_FileWriter):
    """Writes a HDF5 file, see :class:`VideoWriter`."""

    _format = OutputFormat.HDF5


class MATFileReader(_FileReader):
    """Reads a MAT file, see :class:`VideoReader`."""


class MATFileWriter(_FileWriter):
    """Writes a MAT file, see :class:`VideoWriter`."""

    _format = OutputFormat.MAT


class TIFFFileReader(_FileReader):
    """Reads a TIFF file, see :class:`VideoReader`."""


class TIFFFileWriter(_FileWriter):
    """Writes a TIFF file, see :class:`VideoWriter`."""

    _format = OutputFormat.TIFF


class MULTICHANNELFileReader(VideoReader):
    """Reads several files as channels of one recording, see :class:`VideoReader`."""

    def __init__(
        self,
        file_paths: Sequence[_Path],
        buffer_size: int = 500,
        bin_size: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(list(file_paths), buffer_size, bin_size, combine="channels", **kwargs)
