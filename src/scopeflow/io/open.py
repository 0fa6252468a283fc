"""Opening a recording: from any supported file, folder, list or array to one kind of object."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

from scopeflow.errors import InputError, UnreadableFileError, nearest_name
from scopeflow.io.locations import Location, RemotePath, location, reaching
from scopeflow.io.read.boundary import understood
from scopeflow.io.read.czi import open_czi
from scopeflow.io.read.files import not_found, refuse_remote, stamp_file
from scopeflow.io.read.folders import (
    combination,
    matching,
    results_in,
    tiff_files,
    video_files,
)
from scopeflow.io.read.hdf5 import open_hdf5
from scopeflow.io.read.mat import open_mat
from scopeflow.io.read.memory import open_array
from scopeflow.io.read.nd2 import open_nd2
from scopeflow.io.read.protocol import Source, describe
from scopeflow.io.read.source import PlaneSource
from scopeflow.io.read.suite2p import open_suite2p
from scopeflow.io.read.tiff import open_tiff
from scopeflow.io.read.video import open_video_file
from scopeflow.io.read.views import (
    BinnedSource,
    ChannelSelection,
    ConcatenatedFrames,
    FrameSelection,
    StackedChannels,
)
from scopeflow.io.read.zarr import is_zarr, open_zarr
from scopeflow.strict.values import excerpt, shortened

__all__ = [
    "BinnedSource",
    "ChannelSelection",
    "ConcatenatedFrames",
    "FrameSelection",
    "Source",
    "SourceLike",
    "StackedChannels",
    "describe",
    "file_format",
    "open_source",
]

SourceLike: TypeAlias = "str | os.PathLike[str] | NDArray[Any] | Source | Sequence[Any]"
"""What ``open_source`` takes."""

SUPPORTED = (
    "TIFF, BigTIFF, OME-TIFF, ImageJ and ScanImage (.tif, .tiff), HDF5 (.h5, .hdf5, .hdf), "
    "MATLAB (.mat), zarr and OME-Zarr folders, Nikon ND2 (.nd2), Zeiss CZI (.czi), "
    "AVI, MP4, MKV and MOV video, a folder of TIFF or video files, folders of suite2p with "
    "data.bin, numpy arrays"
)


_MISSING = ("error", "mask", "fill", "black")


def _of_images(opener: Callable[..., PlaneSource], path: Path, **choices: Any) -> Source:
    """Open a file of images, some of which may be missing: ND2 and CZI."""
    missing = choices.pop("missing", "error")
    if missing == "fill":
        raise InputError(
            f'{path}: missing="fill" is for zarr and HDF5 archives. Use missing="mask" to mark '
            'frames whose images were never recorded as invalid, or missing="black".'
        )
    if missing != "mask":
        return opener(path, missing=missing, **choices)
    source = opener(path, missing="black", **choices)
    lacking = {int(np.ravel(gap)[0]) for gap in source.missing}  # frames, or (frame, channel)
    return replace(source, absent=tuple(sorted(lacking)))


# Read from files of this machine only.
_NAMES = {
    "video": "AVI, MP4, MKV and MOV",
    "suite2p": "suite2p",
    "mat": "MATLAB",
    "czi": "CZI",
    "nd2": "ND2",
}
_OPENERS: dict[str, tuple[Callable[..., Source], tuple[str, ...]]] = {
    "tiff": (open_tiff, ("axes", "dataset", "position", "z", "deinterleave", "missing")),
    "hdf5": (open_hdf5, ("axes", "dataset", "z", "missing")),
    "mat": (open_mat, ("axes", "dataset", "z")),
    "nd2": (partial(_of_images, open_nd2), ("position", "z", "missing")),
    "czi": (partial(_of_images, open_czi), ("position", "z", "missing")),
    "video": (open_video_file, ("missing",)),
    "suite2p": (lambda path, **choices: open_suite2p(path.parent, **choices), ("missing",)),
}


def open_source(
    source: Any,
    *,
    axes: str | None = None,
    dataset: str | int | Sequence[str] | None = None,
    position: int | None = None,
    z: int | None = None,
    combine: Literal["frames", "channels"] | None = None,
    deinterleave: int | None = None,
    missing: Literal["error", "mask", "fill", "black"] = "error",
) -> Source:
    """Open a recording without reading its pixels.

    Paths may be addresses of remote stores that fsspec opens, such as ``s3://bucket/movie.zarr``:
    zarr (chunks are fetched side by side), TIFF and HDF5 (ranges of bytes are fetched), and folders
    of TIFF files. Credentials and endpoints are those of fsspec and of the environment, on every
    machine that computes.

    The format is told by the content of a file, not by its name alone. A list of files is

    * channels of one recording where the names differ only in a number after ``ch``, ``chan``,
      ``channel`` or ``c`` (``movie_ch1.tif``, ``movie_ch2.tif``),
    * successive frames where the names differ only in another number, in natural order
      (``t2`` before ``t10``),
    * an error otherwise, unless ``combine`` says what they are. ``combine="channels"`` keeps the
      given order, ``combine="frames"`` sorts naturally.

    `source`: ``(path or address)``, the recording.
    `axes`: one letter for each stored axis, ``T`` frames, ``Y`` (or ``H``) rows, ``X`` (or ``W``)
        columns, ``C`` channels, ``Z`` planes; overrides what the file says.
    `dataset`: dataset (HDF5, MAT, zarr), one for each channel where several, or series number
        (TIFF).
    `position`: stage position (ND2, OME-TIFF) or scene (CZI).
    `combine`: ``{"frames", "channels"}``, what a list of files is.
    `deinterleave`: so many successive TIFF pages are the channels of one frame.
    `missing`: what pixels are that the file lacks: ``"error"``; ``"mask"``, frames that lack any
        are named by ``absent`` of the recording and read as zeros (zarr, HDF5,
        TIFF, ND2, CZI, video, suite2p);
        ``"fill"``, chunks that were never written are the fill value of the archive (zarr, HDF5);
        ``"black"``, images that were never recorded are zeros (ND2, CZI).
    Returns: the recording, ``(T, H, W, C)``.
    Raises InputNotFoundError: a path does not exist.
    Raises UnreadableFileError: a file is empty, truncated, damaged or of an unknown format.
    Raises DatasetNotFoundError: the file has no such dataset.
    Raises InputError: axes, shape, type or a choice among several positions cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> recording = open_source(np.zeros((5, 2, 16, 20), "uint16"), axes="TCYX")
    >>> recording.shape, recording.read(1, 3).shape
    ((5, 16, 20, 2), (2, 16, 20, 2))
    """
    choices = {
        "axes": axes,
        "dataset": dataset,
        "position": position,
        "z": z,
        "deinterleave": deinterleave,
        "missing": _checked_missing(missing),
    }
    with understood(_name(source)):
        return _opened(source, choices, combine)


def _checked_missing(missing: Any) -> str | None:
    if missing not in _MISSING:
        raise InputError(
            f"missing={excerpt(repr(missing))} is not known.{nearest_name(str(missing), _MISSING)} "
            f"Use one of {', '.join(_MISSING)}"
        )
    return None if missing == "error" else str(missing)


def _name(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    if isinstance(source, list | tuple):
        return ", ".join(_name(item) for item in source[:3]) + ("…" if len(source) > 3 else "")
    return str(source) if isinstance(source, RemotePath) else f"the {type(source).__name__}"


def _opened(source: Any, choices: dict[str, Any], combine: str | None) -> Source:
    axes, z = choices["axes"], choices["z"]
    if isinstance(source, zarr.Array):
        return _open_zarr_object(source, axes, z, choices["missing"])
    if isinstance(source, h5py.Dataset):
        missing = choices["missing"] or "error"
        return open_hdf5(source.file.filename, axes=axes, dataset=source.name, z=z, missing=missing)
    if isinstance(source, np.ndarray):
        _refuse(f"array of shape {source.shape}", choices, ("axes", "z"))
        return open_array(source, axes=axes, z=z)
    if isinstance(source, str | os.PathLike | RemotePath):
        return _open_path(location(source), choices, combine)
    if isinstance(source, list | tuple):
        return _open_list(list(source), choices, combine)
    if isinstance(source, Source):
        _refuse(source.description, choices, ())
        return source
    raise InputError(
        f"An object of type {type(source).__name__} cannot be opened as a recording. "
        f"Supported: {SUPPORTED}."
    )


def _refuse(name: str, choices: dict[str, Any], understood: Sequence[str]) -> None:
    for key, value in choices.items():
        if value is not None and key not in understood:
            raise InputError(
                f"{name}: {key}={shortened(value)} has no meaning for this kind of "
                "recording. Leave it out."
            )


def _open_zarr_object(
    array: zarr.Array, axes: str | None, z: int | None, missing: str | None
) -> Source:
    root = getattr(array.store, "root", None)
    if root is None:
        raise InputError(
            f"A zarr array in {type(array.store).__name__} cannot be opened by other processes. "
            "Give a zarr array in a folder, its address such as s3://bucket/movie.zarr, or its "
            "values as a numpy array."
        )
    return open_zarr(location(root) / array.path, axes=axes, z=z, missing=missing or "error")


def _open_list(items: list[Any], choices: dict[str, Any], combine: str | None) -> Source:
    if not items:
        raise InputError("The list of recordings is empty; give at least one.")
    if combine not in (None, "frames", "channels"):
        raise InputError(f'combine={shortened(combine)} is not known; use "frames" or "channels".')
    if len(items) == 1:
        return open_source(items[0], **_without_none(choices))
    given = [item for item in items if isinstance(item, str | os.PathLike | RemotePath)]
    if len(given) == len(items):
        how, paths = combination([location(item) for item in given], combine)
        items = list(paths)
    elif combine is None:
        raise InputError(
            f"A list of {len(items)} recordings may be successive frames or channels. "
            'Say which with combine="frames" or combine="channels".'
        )
    else:
        how = combine
    sources = tuple(open_source(item, **_without_none(choices)) for item in items)
    return StackedChannels(sources) if how == "channels" else ConcatenatedFrames(sources)


def _without_none(choices: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in choices.items() if value is not None}


def _open_path(path: Location, choices: dict[str, Any], combine: str | None) -> Source:
    # First: servers of web pages have no folders, whose existence could be asked for.
    if is_zarr(path):
        taken: tuple[str, ...] = ("axes", "dataset", "z", "missing")
        _refuse(str(path), choices, taken)
        return open_zarr(path, **_without_none({key: choices[key] for key in taken}))
    if not path.exists():
        files = matching(path)
        if files:
            return _open_list(list(files), choices, combine)
        raise not_found(path)
    if path.is_dir():
        return _open_folder(path, choices, combine)
    kind = file_format(path)
    opener, taken = _OPENERS[kind]
    if kind in _NAMES:
        path = refuse_remote(path, _NAMES[kind])
    _refuse(str(path), choices, taken)
    return opener(path, **_without_none({key: choices[key] for key in taken}))


def _open_folder(path: Location, choices: dict[str, Any], combine: str | None) -> Source:
    results = results_in(path)
    if len(results) > 1:
        raise InputError(
            f"{path}: the folder holds several results: {', '.join(r[0].name for r in results)}. "
            "Give the path of one of them."
        )
    if results:
        return _open_list(list(results[0]), choices, combine)
    if (path / "data.bin").is_file():
        opener, taken = _OPENERS["suite2p"]
        _refuse(str(path), choices, taken)
        place = refuse_remote(path / "data.bin", _NAMES["suite2p"])
        return opener(place, **_without_none({key: choices[key] for key in taken}))
    files: Sequence[Location] = tiff_files(path) or video_files(path)
    if not files:
        raise UnreadableFileError(
            f"{path}: the folder is neither zarr nor a folder of results, TIFF or video files. "
            f"Supported: {SUPPORTED}."
        )
    return _open_list(list(files), choices, combine)


def file_format(path: Location) -> str:
    """Tell the format by the first bytes, as extensions are often wrong.

    One of ``"tiff"``, ``"hdf5"``, ``"mat"``, ``"nd2"``, ``"czi"``, ``"video"`` and ``"suite2p"``.

    Raises UnreadableFileError: another format, or an empty file.
    """
    stamp_file(path)
    with reaching(path), path.open("rb") as file:
        head = file.read(2048)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520], head[1024:1032]):
        return "hdf5"
    if head[:6] == b"MATLAB" or (path.suffix.lower() == ".mat" and head[126:128] in (b"IM", b"MI")):
        return "mat"
    if head[:4] == b"\xda\xce\xbe\x0a" or head[:12] == b"\0\0\0\x0cjP  \r\n\x87":
        return "nd2"
    if (
        (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or head[4:8] == b"ftyp"
        or head[:4] == b"\x1aE\xdf\xa3"
    ):
        return "video"
    if path.name in ("data.bin", "data_chan2.bin"):
        return "suite2p"
    if head[:10] == b"ZISRAWFILE":
        return "czi"
    named = {".tif", ".tiff", ".h5", ".hdf5", ".hdf", ".mat", ".nd2", ".czi"}
    named |= {".avi", ".mp4", ".mkv", ".mov"}
    if path.suffix.lower() in named:
        raise UnreadableFileError(
            f"{path}: named {path.suffix}, but its content is not of that format. It is damaged "
            f"or of another format. Supported: {SUPPORTED}."
        )
    raise UnreadableFileError(f"{path}: the format is unknown. Supported: {SUPPORTED}.")
