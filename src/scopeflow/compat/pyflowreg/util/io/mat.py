"""MAT files under their documented module path."""

from __future__ import annotations

import os
from typing import Any

from scopeflow.compat.pyflowreg.util.io._base import VideoReader, VideoWriter
from scopeflow.io.formats import OutputFormat

__all__ = ["MATFileReader", "MATFileWriter"]


class MATFileReader(VideoReader):
    """Reads a MAT file, see :class:`VideoReader`."""

    def __init__(
        self,
        file_path: str | os.PathLike[str],
        buffer_size: int = 500,
        bin_size: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(file_path, buffer_size, bin_size, **kwargs)


class MATFileWriter(VideoWriter):
    """Writes a MAT file, see :class:`VideoWriter`."""

    def __init__(self, file_path: str | os.PathLike[str]) -> None:
        super().__init__(os.fspath(file_path), OutputFormat.MAT)
