"""The fields of view (FOVs) of a recording: how many a file holds, each as one source."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Literal

import nd2
import tifffile

from scopeflow.cells.store.folders import Field, numbered_fields, zarr_images
from scopeflow.errors import InputError, ScopeflowError
from scopeflow.io.locations import RemotePath, location
from scopeflow.io.open import file_format, open_source
from scopeflow.io.read.czi import count_scenes
from scopeflow.io.read.projection import MaximumProjection, plane_count
from scopeflow.io.read.protocol import Source
from scopeflow.strict.values import shortened

__all__ = ["open_fovs", "recording_name"]

logger = logging.getLogger(__name__)


def recording_name(recording: Any) -> str:
    """Return the name that results are called after.

    Examples
    --------
    >>> recording_name("plates/day one.ome.tif")
    'day one'
    """
    if isinstance(recording, list | tuple) and recording:
        recording = recording[0]
    if not isinstance(recording, str | os.PathLike):
        return "recording"
    name = Path(recording).name
    for ending in (".ome.tiff", ".ome.tif", ".ome.zarr"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return Path(name).stem


def open_fovs(recording: Any, *, z: int | Literal["max"] | None = None) -> list[Source]:
    """Open every field of view of a recording; no pixel is read.

    ND2 and OME-TIFF files hold one FOV a stage position, CZI files one a scene, OME-Zarr folders
    one an image, plates one a field of a well. In a folder of TIFF files, one for each plane,
    numbers after ``xy``, ``pos``, ``p``, ``s``, ``field`` or ``fov`` are FOVs. What a remote
    address names is one FOV. `z` is a plane of a z stack or the maximum of all; None is the first,
    with a warning, where there are several. Sizes may differ between FOVs. Images of ND2 and CZI
    files that were never recorded are black, with a warning.

    Raises ScopeflowError: as :func:`~scopeflow.io.open.open_source`, and for images of colours.

    Examples
    --------
    >>> import numpy as np
    >>> [fov.shape for fov in open_fovs(np.zeros((3, 16, 20, 2), "uint16"))]
    [(3, 16, 20, 2)]
    """
    if not isinstance(recording, str | os.PathLike):
        return [_open(recording, {}, z)]
    path = location(recording)
    if isinstance(path, RemotePath):
        return [_open(recording, {}, z)]
    if path.is_dir():
        images = zarr_images(path)
        if images:
            return [_open(path / name, {}, z) for name in images]
        fields = numbered_fields(path)
        return [_open(field, {}, z) for field in fields] if fields else [_open(path, {}, z)]
    choices, count = _positions(path)
    several = count > 1
    return [
        _open(path, {**choices, **({"position": n} if several else {})}, z) for n in range(count)
    ]


def _open(recording: Any, choices: dict[str, Any], z: int | Literal["max"] | None) -> Source:
    if isinstance(recording, Source):
        if z is not None:
            raise InputError(
                f"{recording.description}: z={shortened(z)} has no meaning; it is open already"
            )
        return recording
    if z is None:
        source = _open_first_plane(recording, choices)
    elif z == "max":
        source = _open_plane(recording, 0, choices)
        count = plane_count(source)
        if count > 1:
            others = [_open_plane(recording, n, choices) for n in range(1, count)]
            return MaximumProjection((source, *others))
    else:
        source = _open_plane(recording, z, choices)
    missing = getattr(source, "missing", ())
    if missing:
        logger.warning(
            "%s: %d images were never recorded, the first in frame %s; they are black",
            source.description,
            len(missing),
            missing[0][0] if isinstance(missing[0], tuple) else missing[0],
        )
    return source


def _open_plane(recording: Any, z: int, choices: dict[str, Any]) -> Source:
    if isinstance(recording, Field):
        return recording.open(z)
    return open_source(recording, z=z, **choices)


def _open_first_plane(recording: Any, choices: dict[str, Any]) -> Source:
    try:
        source = recording.open() if isinstance(recording, Field) else None
        source = source or open_source(recording, **choices)
    except InputError as error:
        if "z=" not in str(error):
            raise
        source = _open_plane(recording, 0, choices)
        logger.warning(
            "%s: it holds %d planes and the first is used; choose another with z=1 …, or z=max",
            source.description,
            plane_count(source),
        )
        return source
    if "Z (" in source.metadata.origin("axes") and "frames" in source.metadata.origin("axes"):
        logger.warning(
            "%s: planes are taken as frames, as it has no others; choose one with z=0 …, or z=max",
            source.description,
        )
    return source


def _colours(path: Path) -> InputError:
    return InputError(
        f"{path}: its pixels are colours (red, green, blue), and cells are measured in channels of "
        "grey images. Export it again without merging channels, or save each colour as a channel "
        "of its own"
    )


def _positions(path: Path) -> tuple[dict[str, Any], int]:
    """Return what `open_source` has to know, and how many stage positions a file holds."""
    if not path.is_file():
        return {}, 1  # open_source says what is wrong
    kind = file_format(path)
    try:
        if kind == "nd2":
            with nd2.ND2File(path) as file:
                if file.sizes.get("S", 1) > 1:
                    raise _colours(path)
                return {"missing": "black"}, int(file.sizes.get("P", 1))
        if kind == "czi":
            return {"missing": "black"}, count_scenes(path)
        if kind == "tiff":
            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages.first
                rgb = page.photometric == tifffile.PHOTOMETRIC.RGB and page.samplesperpixel > 2
                # Planar samples are what some writers make of three frames or channels.
                if rgb and page.planarconfig == tifffile.PLANARCONFIG.CONTIG:
                    raise _colours(path)
                return {}, len(tiff.series) if tiff.is_ome else 1
    except ScopeflowError:
        raise
    except Exception:  # open_source says what is wrong
        logger.debug("%s: positions cannot be counted", path, exc_info=True)
    return {}, 1
