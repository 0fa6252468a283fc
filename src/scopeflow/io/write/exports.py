"""Which writer makes which file: registered recordings, displacements, valid pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scopeflow.errors import InputError, OptionsError
from scopeflow.io.formats import OutputFormat
from scopeflow.io.locations import Location
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.write.hdf5 import CaimanWriter, Hdf5Writer, MatWriter
from scopeflow.io.write.multifile import ChannelFiles, channel_paths
from scopeflow.io.write.protocol import FrameWriter, StreamedFile
from scopeflow.io.write.tiff import OmeTiffWriter, Suite2pTiffWriter, TiffWriter

_WRITERS: dict[OutputFormat, type[StreamedFile]] = {
    OutputFormat.HDF5: Hdf5Writer,
    OutputFormat.TIFF: TiffWriter,
    OutputFormat.OME_TIFF: OmeTiffWriter,
    OutputFormat.SUITE2P_TIFF: Suite2pTiffWriter,
    OutputFormat.MAT: MatWriter,
}
_CHANNEL_WRITERS: dict[OutputFormat, type[StreamedFile]] = {
    OutputFormat.MULTIFILE_HDF5: Hdf5Writer,
    OutputFormat.MULTIFILE_TIFF: TiffWriter,
    OutputFormat.MULTIFILE_MAT: MatWriter,
    OutputFormat.CAIMAN_HDF5: CaimanWriter,
}

STREAMED_FORMATS = (*_WRITERS, *_CHANNEL_WRITERS)
"""Formats that `open_writer` writes."""


def video_paths(path: Path, format: OutputFormat, channels: int) -> list[Path]:  # noqa: A002
    """Return the files that `open_writer` makes of a recording.

    Examples
    --------
    >>> [each.name for each in video_paths(Path("a.hdf5"), OutputFormat.CAIMAN_HDF5, 1)]
    ['a_ch1.hdf5']
    """
    return channel_paths(path, channels) if format in _CHANNEL_WRITERS else [path]


def open_writer(
    path: str | Path,
    format: OutputFormat | str,  # noqa: A002
    *,
    shape: tuple[int, int, int, int],
    dtype: DTypeLike,
    metadata: VideoMetadata | None = None,
) -> FrameWriter:
    """Open a streamed export of a recording ``(T, H, W, C)``, to be used in a ``with`` statement.

    The file appears at its end. ``path`` is used as given; formats of one file a channel add
    ``_ch1`` … to its stem. ``dtype`` is that of every block of frames.

    Raises OptionsError: for a format that is no streamed export.
    Raises InputError: for a shape or dtype that the format cannot hold.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "compensated.HDF5"
    ...     with open_writer(path, "HDF5", shape=(4, 8, 9, 1), dtype="uint8") as writer:
    ...         writer.write(np.zeros((4, 8, 9, 1), np.uint8))
    ...         before = path.exists()
    ...     before, path.exists()
    (False, True)
    """
    name = OutputFormat(format)
    if name in _CHANNEL_WRITERS:
        return ChannelFiles(path, shape, dtype, metadata, _CHANNEL_WRITERS[name])
    if name not in _WRITERS:
        raise OptionsError(
            f"{name.value} is no streamed export. Use one of {', '.join(sorted(STREAMED_FORMATS))}"
        )
    return _WRITERS[name](path, shape, dtype, metadata)


def open_displacement_writer(path: str | Location, shape: tuple[int, int, int]) -> FrameWriter:
    """Open ``w.h5``: datasets ``u`` (x) and ``v`` (y), each ``(T, H, W)`` float32, pixels.

    The writer takes displacements ``(n, H, W, 2)``, float32.
    """
    return Hdf5Writer(path, (*shape, 2), np.float32, dataset_names=("u", "v"))


class ValidIndexWriter(Hdf5Writer):
    """The file ``idx.hdf``: dataset ``ch1``, ``(T, H, W)`` uint8, 255 where a pixel is valid."""

    def __init__(self, path: str | Location, shape: tuple[int, int, int]) -> None:
        super().__init__(path, (*shape, 1), np.uint8)

    def write(self, valid: NDArray[Any]) -> None:
        """Append boolean masks ``(n, H, W)`` or ``(n, H, W, 1)``."""
        if valid.dtype != np.bool_:
            raise InputError(f"valid pixels are {valid.dtype}; they must be bool")
        masks = valid[..., np.newaxis] if valid.ndim == 3 else valid
        super().write(masks.view(np.uint8) * np.uint8(255))
