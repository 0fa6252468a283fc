"""Readers and writers under the names of PyFlowReg, on the readers and writers of scopeflow."""

from __future__ import annotations

from scopeflow.compat.pyflowreg.util.io._arr import ArrayReader, ArrayWriter
from scopeflow.compat.pyflowreg.util.io._base import VideoReader, VideoWriter
from scopeflow.compat.pyflowreg.util.io._null import NullVideoWriter
from scopeflow.compat.pyflowreg.util.io.factory import (
    get_video_file_reader,
    get_video_file_writer,
)

__all__ = [
    "ArrayReader",
    "ArrayWriter",
    "NullVideoWriter",
    "VideoReader",
    "VideoWriter",
    "get_video_file_reader",
    "get_video_file_writer",
]
