"""The fields of view (FOVs) of a recording: how many a file holds, each as one source."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import nd2
import tifffile
import zarr

from scopeflow.errors import InputError, ScopeflowError
from scopeflow.store.source import open_source
from scopeflow.store.sources.protocol import Source

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


def open_fovs(recording: Any, *, z: int | None = None) -> list[Source]:
    """Open every field of view of a recording; no pixel is read.

    Parameters
    ----------
    recording : str, Path, list of them, ndarray or Source
        ND2 and OME-TIFF files hold one FOV a stage position, OME-Zarr folders one an image.
    z : int, optional
        Plane of a z stack; the first, with a warning, where there are several.

    Returns
    -------
    list of Source
        One for each FOV, of shape ``(T, H, W, C)``; sizes may differ between FOVs.

    Raises
    ------
    ScopeflowError
        As :func:`~scopeflow.store.source.open_source`.

    Examples
    --------
    >>> import numpy as np
    >>> [fov.shape for fov in open_fovs(np.zeros((3, 16, 20, 2), "uint16"))]
    [(3, 16, 20, 2)]
    """
    if not isinstance(recording, str | os.PathLike):
        return [open_source(recording, z=z)]
    path = Path(recording).expanduser()
    images = _zarr_images(path) if path.is_dir() else []
    if images:
        return [_open(path / name, None, z) for name in images]
    count = _count_positions(path)
    return [_open(path, number if count > 1 else None, z) for number in range(count)]


def _open(path: Path, position: int | None, z: int | None) -> Source:
    chosen: dict[str, Any] = {} if position is None else {"position": position}
    if z is not None:
        return open_source(path, z=z, **chosen)
    try:
        return open_source(path, **chosen)
    except InputError as error:
        if "z=" not in str(error):
            raise
        source = open_source(path, z=0, **chosen)
        logger.warning("%s holds several planes; the first is used. Choose with z.", path)
        return source


def _zarr_images(path: Path) -> list[str]:
    """Return the images of a bioformats2raw folder; none where the folder is one image itself."""
    try:
        group = zarr.open_group(str(path), mode="r")
    except Exception:  # open_source says what is wrong
        return []
    attributes = group.attrs.asdict()
    ome = attributes.get("ome", attributes)
    if "bioformats2raw.layout" not in ome and "bioformats2raw.layout" not in attributes:
        return []
    return sorted((name for name, _ in group.groups() if name.isdigit()), key=int)


def _count_positions(path: Path) -> int:
    suffix = path.suffix.lower()
    try:
        if suffix == ".nd2":
            with nd2.ND2File(path) as file:
                return int(file.sizes.get("P", 1))
        if suffix in (".tif", ".tiff"):
            with tifffile.TiffFile(path) as file:
                return len(file.series) if file.is_ome else 1
    except ScopeflowError:
        raise
    except Exception:  # open_source says what is wrong
        logger.debug("%s: positions cannot be counted", path, exc_info=True)
    return 1
