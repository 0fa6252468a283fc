"""Names of the formats that results are written in."""

from __future__ import annotations

from enum import StrEnum


class _OptionName(StrEnum):
    """A string enum whose members are found by name or value, in any letter case."""

    @classmethod
    def _missing_(cls, value: object) -> _OptionName | None:
        if not isinstance(value, str):
            return None
        wanted = value.strip().casefold().replace("-", "_")
        for member in cls:
            if wanted in (member.value.casefold(), member.name.casefold()):
                return member
        return None


class OutputFormat(_OptionName):
    """Where the registered recording goes.

    ``ZARR`` is the native result, ``ARRAY`` keeps it in memory, ``NULL`` keeps nothing (callbacks
    only). The others are streamed exports: ``TIFF``, ``HDF5`` and ``MAT``; ``OME_TIFF`` (always
    OME-XML); ``SUITE2P_TIFF`` (channels interleaved, types that suite2p holds); ``MULTIFILE_…``
    (one file a channel) and ``CAIMAN_HDF5`` (the same, dataset ``mov``). ``BEGONIA`` is a name that
    option files may hold; a run refuses it.

    Examples
    --------
    >>> OutputFormat("hdf5") is OutputFormat.HDF5
    True
    """

    ZARR = "ZARR"
    TIFF = "TIFF"
    OME_TIFF = "OME_TIFF"
    HDF5 = "HDF5"
    MAT = "MAT"
    MULTIFILE_TIFF = "MULTIFILE_TIFF"
    MULTIFILE_MAT = "MULTIFILE_MAT"
    MULTIFILE_HDF5 = "MULTIFILE_HDF5"
    CAIMAN_HDF5 = "CAIMAN_HDF5"
    BEGONIA = "BEGONIA"
    SUITE2P_TIFF = "SUITE2P_TIFF"
    ARRAY = "ARRAY"
    NULL = "NULL"
