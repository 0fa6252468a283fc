"""Recordings as one TIFF series with named axes, streamed page by page; writes, never reads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

from scopeflow.errors import InputError, OutputError
from scopeflow.io.write.protocol import StreamedFile

logger = logging.getLogger(__name__)

TiffFlavour = Literal["imagej", "ome", "shaped"]

_IMAGEJ_TYPES = ("uint8", "uint16", "float32")
_OME_TYPES = (*_IMAGEJ_TYPES, "int8", "int16", "int32", "uint32", "float64")
_SUITE2P_TYPES = ("uint8", "uint16", "int16")
# Offsets of classic TIFF have 32 bits; each page takes a directory besides its pixels.
_CLASSIC_BYTES = 2**32 - 2**25
_DIRECTORY_BYTES = 512


class TiffWriter(StreamedFile):
    """Streamed TIFF export: one series, axes ``TYX`` or ``TCYX``, uncompressed.

    Fiji shows time and channels as such. An ImageJ hyperstack is written where ImageJ can hold it
    (uint8, uint16, float32, less than 4 GB), else an OME BigTIFF; types that neither knows
    (float16, 64-bit integers) go to a plain BigTIFF with tifffile's description of the axes.
    Boolean frames are stored as uint8, 0 and 1.
    """

    _file: BinaryIO | None = None
    _flat = False
    _only: TiffFlavour | None = None  # whatever the size

    @property
    def flavour(self) -> TiffFlavour:
        """Description of the axes that the file carries."""
        if self._only is not None:
            return self._only
        stored = self._stored_dtype.name
        if stored in _IMAGEJ_TYPES:
            pages = self.shape[0] * self.shape[3]
            page_bytes = self.shape[1] * self.shape[2] * self._stored_dtype.itemsize
            if pages * (page_bytes + _DIRECTORY_BYTES) < _CLASSIC_BYTES:
                return "imagej"
        return "ome" if stored in _OME_TYPES else "shaped"

    @property
    def _stored_dtype(self) -> np.dtype[Any]:
        dtype = np.dtype(np.uint8) if self.dtype == np.bool_ else self.dtype
        return dtype.newbyteorder("<")

    def _create(self, partial: Path) -> None:
        frames, height, width, channels = self.shape
        flavour = self.flavour
        shape = (frames, height, width) if channels == 1 else (frames, channels, height, width)
        if self._flat:
            shape = (frames * channels, height, width)
        arguments = self._resolution(flavour)
        # tifffile lays out header and directories around empty pages; `_append` fills them.
        with tifffile.TiffWriter(
            partial,
            bigtiff=flavour != "imagej",
            byteorder="<",
            imagej=flavour == "imagej",
            ome=flavour == "ome",
            shaped=flavour == "shaped",
        ) as layout:
            layout.write(
                None,
                shape=shape,
                dtype=self._stored_dtype,
                photometric="minisblack",
                metadata=self._description(flavour),
                software="scopeflow",
                **arguments,
            )
        with tifffile.TiffFile(partial) as layout:
            offset = layout.series[0].dataoffset
            if offset is None or len(layout.series) != 1:
                raise OutputError(
                    f"Cannot write {self.path}: tifffile {tifffile.__version__} laid its pages out "
                    "apart. Use output_format HDF5 or ZARR"
                )
        # Without a buffer a full disk fails the write at fault.
        self._file = partial.open("r+b", buffering=0)
        self._file.seek(offset)

    def _resolution(self, flavour: TiffFlavour) -> dict[str, Any]:
        if self.metadata.pixel_size_um is None:
            return {}
        height, width = self.metadata.pixel_size_um
        if flavour == "imagej":
            # ImageJ takes the unit from its own description.
            return {"resolution": (1 / width, 1 / height)}
        return {"resolution": (1e4 / width, 1e4 / height), "resolutionunit": "CENTIMETER"}

    def _description(self, flavour: TiffFlavour) -> dict[str, Any]:
        known = self.metadata
        several = self.shape[3] > 1 and not self._flat
        description: dict[str, Any] = {"axes": "TCYX" if several else "TYX"}
        if self._flat:
            description["interleaved_channels"] = self.shape[3]
        if flavour == "ome":
            if known.pixel_size_um is not None:
                height, width = known.pixel_size_um
                description |= {"PhysicalSizeY": height, "PhysicalSizeYUnit": "µm"}
                description |= {"PhysicalSizeX": width, "PhysicalSizeXUnit": "µm"}
            if known.frame_interval_s is not None:
                description |= {"TimeIncrement": known.frame_interval_s, "TimeIncrementUnit": "s"}
            if known.channel_names is not None:
                description["Channel"] = {"Name": list(known.channel_names)}
            return description
        if flavour == "imagej":
            if known.pixel_size_um is not None:
                description["unit"] = "um"
            if known.frame_interval_s is not None:
                description["finterval"] = known.frame_interval_s
            if self.shape[3] > 1:
                description["mode"] = "composite" if self.shape[3] <= 7 else "grayscale"
            if known.channel_names is not None:
                # "Image > Show Info…"; the description itself holds ASCII only.
                description["Info"] = f"channel_names: {', '.join(known.channel_names)}\n"
            return description
        if known.pixel_size_um is not None:
            description["pixel_size_um"] = list(known.pixel_size_um)
        if known.frame_interval_s is not None:
            description["frame_interval_s"] = known.frame_interval_s
        if known.channel_names is not None:
            description["channel_names"] = list(known.channel_names)
        return description

    def _append(self, frames: NDArray[Any], start: int) -> None:  # noqa: ARG002
        assert self._file is not None
        for frame in frames:
            pages = np.ascontiguousarray(np.moveaxis(frame, -1, 0), dtype=self._stored_dtype)
            remaining = memoryview(pages.view(np.uint8).reshape(-1).data)
            while remaining:
                remaining = remaining[self._file.write(remaining) :]

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


class OmeTiffWriter(TiffWriter):
    """Streamed OME-TIFF export: one image, ``TYX`` or ``TCYX``, as BigTIFF with OME-XML.

    `InputError` for types that OME does not know (float16, 64-bit integers).

    References
    ----------
    Open Microscopy Environment, "The OME-TIFF format" and the OME schema of 2016-06.
    """

    _only = "ome"

    def _check(self) -> None:
        if self._stored_dtype.name not in _OME_TYPES:
            raise InputError(
                f"OME-TIFF has no type for {self.dtype}. Set output_typename='single' or 'double', "
                "or use output_format HDF5 or ZARR"
            )


class Suite2pTiffWriter(TiffWriter):
    """Streamed TIFF export as suite2p reads it: pages in the order frame 1 channel 1, channel 2 ….

    A plain BigTIFF, as suite2p and PyFlowReg (``deinterleave``) count pages and take the number of
    channels from their settings; we find it in the description. Suite2p computes in int16: uint16
    values are halved there. `InputError` for types other than uint8, uint16 and int16, whose values
    suite2p would cut.
    """

    _flat = True
    _only = "shaped"

    def _check(self) -> None:
        if self.dtype.name not in _SUITE2P_TYPES:
            raise InputError(
                f"suite2p holds pixels as int16 and would cut values of {self.dtype}. Set "
                "output_typename='int16' or 'uint16', or use output_format TIFF or HDF5"
            )
