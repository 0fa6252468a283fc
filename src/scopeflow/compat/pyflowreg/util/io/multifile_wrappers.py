"""Recordings of several files, one for each channel, under their documented module path."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from scopeflow.compat.pyflowreg.util.io._base import VideoReader

__all__ = ["MULTICHANNELFileReader"]


class MULTICHANNELFileReader(VideoReader):
    """Reads several files as channels of one recording, see :class:`VideoReader`."""

    def __init__(
        self,
        file_paths: Sequence[str | os.PathLike[str]],
        buffer_size: int = 500,
        bin_size: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(list(file_paths), buffer_size, bin_size, combine="channels", **kwargs)
