"""Which reader or writer is made, under the names of PyFlowReg."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from scopeflow.compat.pyflowreg.util.io._arr import ArrayReader, ArrayWriter, NullVideoWriter
from scopeflow.compat.pyflowreg.util.io._base import STREAMED, VideoReader, VideoWriter
from scopeflow.errors import OptionsError
from scopeflow.io.formats import OutputFormat

__all__ = ["get_video_file_reader", "get_video_file_writer"]


def get_video_file_reader(
    input_source: Any, buffer_size: int = 500, bin_size: int = 1, **kwargs: Any
) -> VideoReader:
    """Open a recording.

    Parameters
    ----------
    input_source : path, list of paths, ndarray or VideoReader
        Several paths are channels of one recording. Every format that scopeflow reads.
    buffer_size, bin_size
        Frames of a batch, and frames that are averaged into one.
    **kwargs
        Choices of scopeflow, such as ``axes``, ``deinterleave`` or ``dataset_names``.

    Returns
    -------
    VideoReader
        Nothing but headers was read.
    """
    if isinstance(input_source, VideoReader):
        return input_source
    if isinstance(input_source, np.ndarray):
        return ArrayReader(input_source, buffer_size, bin_size)
    if isinstance(input_source, list | tuple):
        kwargs.setdefault("combine", "channels")
    return VideoReader(input_source, buffer_size, bin_size, **kwargs)


def get_video_file_writer(
    file_path: str | os.PathLike[str], output_format: Any, **kwargs: Any
) -> VideoWriter:
    """Make a writer.

    Parameters
    ----------
    file_path : path
        The file; not used by ``ARRAY`` and ``NULL``.
    output_format : OutputFormat or str
        A format of `OutputFormat`.
    **kwargs
        None is known.

    Returns
    -------
    VideoWriter
        Takes frames by ``write_frames``.

    Raises
    ------
    OptionsError
        For an unknown format or argument; also a ValueError.
    NotImplementedError
        For ``BEGONIA``.
    """
    if kwargs:
        raise OptionsError(f"unknown arguments of the writer: {', '.join(sorted(kwargs))}")
    try:
        name = OutputFormat(output_format)
    except ValueError:
        raise OptionsError(f"Unsupported output format: {output_format}") from None
    if name is OutputFormat.ARRAY:
        return ArrayWriter()
    if name is OutputFormat.NULL:
        return NullVideoWriter()
    if name is OutputFormat.BEGONIA:
        raise NotImplementedError("BEGONIA format not yet implemented")
    if name not in STREAMED:
        raise OptionsError(f"Unsupported output format: {name.value}; frames cannot be appended")
    return VideoWriter(os.fspath(file_path), name)
