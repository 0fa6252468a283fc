"""Recordings in Nikon ND2 files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.io.metadata import VideoMetadata, stated_number
from scopeflow.io.read.axes import check_video, choose_index
from scopeflow.io.read.files import HandleCache, stamp_file
from scopeflow.io.read.source import PlaneSource

__all__ = ["Nd2Source", "open_nd2"]


TESTED_ND2 = "nd2>=0.10,<0.13"
"""Versions whose private table of images is where it is looked for; as in pyproject.toml."""

_COPY_AGAIN = "copy it again from the microscope"
_MAP_SIGNATURE = b"ND2 CHUNK MAP SIGNATURE 0000001!"


def _open_file(path: str) -> Any:
    with Path(path).open("rb") as raw:
        modern = raw.read(4) == b"\xda\xce\xbe\x0a"
        raw.seek(max(0, Path(path).stat().st_size - 40))
        complete = raw.read(32) == _MAP_SIGNATURE
    if modern and not complete:
        raise UnreadableFileError(
            f"{path}: the ND2 file breaks off, the table of its images at the end is missing. It "
            "is truncated; copy it again from the microscope."
        )
    import nd2  # here, because most runs read another format

    file = None
    try:
        file = nd2.ND2File(path)
        _ = file.sizes, file.loop_indices
    except Exception as error:
        if file is not None:
            file.close()
        raise UnreadableFileError(
            f"{path}: cannot be opened as ND2 ({type(error).__name__}: {error}). It is truncated, "
            "damaged or of another format; copy it again from the microscope."
        ) from error
    return file


_FILES: HandleCache[Any] = HandleCache(_open_file)


@dataclass(frozen=True, kw_only=True)
class Nd2Source(PlaneSource):
    """One stage position and plane of an ND2 file; ``images`` numbers the one of each frame."""

    images: tuple[int, ...]
    kind: str = "ND2"

    def _part(self) -> str:
        return f"position {self.position}, z {self.z}"

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        handle = _FILES.get(self.stamp)
        _, height, width, channels = self.shape
        video = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for n, image in enumerate(self.images[start:stop]):
            if start + n in self.missing:
                video[n] = 0
                continue
            with self._reading(f"image {image}", _COPY_AGAIN), handle.lock:
                frame = handle.value.read_frame(image)
                samples = channels // _channel_count(handle.value)
            stored = np.asarray(frame).reshape(-1, height, width, samples)
            video[n] = np.moveaxis(stored, 0, 2).reshape(height, width, channels)
        return video


def _channel_count(file: Any) -> int:
    return int(file.sizes.get("C", 1))


def open_nd2(
    path: str | Path,
    *,
    position: int | None = None,
    z: int | None = None,
    missing: Literal["error", "black"] = "error",
) -> Nd2Source:
    """Open a recording in an ND2 file; no pixel is read.

    ``position`` and ``z`` are needed where there are several. An image that was never recorded is
    an error, or black.

    Raises InputNotFoundError, UnreadableFileError: the file is missing, truncated or damaged, or
        lacks images.
    Raises InputError: several positions or planes and no choice, or a choice that does not exist.
    """
    stamp = stamp_file(path)
    name = str(path)
    handle = _FILES.get(stamp)
    with handle.lock:
        file = handle.value
        sizes = {key: int(n) for key, n in file.sizes.items()}
        names = _position_names(file) if sizes.get("P", 1) > 1 else []
        position = choose_index(
            position, sizes.get("P", 1), "position", "stage positions", names, name
        )
        z = choose_index(z, sizes.get("Z", 1), "z", "planes", [], name)
        unknown = {k: n for k, n in sizes.items() if k not in "TPZCYXS" and n > 1}
        if unknown:
            raise InputError(
                f"{name}: it has axes of unknown meaning, {unknown}; T, P, Z, C, Y, X, S are read. "
                "Export the recording as OME-TIFF."
            )
        chosen: dict[int, int] = {}
        for image, loops in enumerate(file.loop_indices):
            if loops.get("P", 0) == position and loops.get("Z", 0) == z:
                chosen[loops.get("T", 0)] = image
        images = tuple(chosen[t] for t in sorted(chosen))
        channels = sizes.get("C", 1) * sizes.get("S", 1)
        shape = (len(images), sizes["Y"], sizes["X"], channels)
        dtype = check_video(shape, file.dtype, name)
        if len(images) != sizes.get("T", 1):
            raise UnreadableFileError(
                f"{name}: it declares {sizes.get('T', 1)} frames, but lists {len(images)}. "
                "The recording is incomplete."
            )
        absent = _missing_images(file, images, stamp.size, name)
        if absent and missing == "error":
            raise UnreadableFileError(
                f"{name}: {len(images)} frames are declared, but the image of frame {absent[0]} is "
                "missing. The recording was interrupted or the file is truncated; copy it again, "
                "or export its complete part."
            )
        metadata = _metadata(file, images, shape, sizes, name)
    return Nd2Source(
        stamp=stamp,
        shape=shape,
        dtype=dtype,
        metadata=metadata,
        position=position,
        z=z,
        planes=sizes.get("Z", 1),
        missing=absent,
        images=images,
    )


def _position_names(file: Any) -> list[str]:
    points = [
        point
        for loop in file.experiment
        if loop.type == "XYPosLoop"
        for point in loop.parameters.points
    ]
    return [point.name or f"XYPos:{number}" for number, point in enumerate(points)]


def _missing_images(file: Any, images: tuple[int, ...], size: int, name: str) -> tuple[int, ...]:
    """Return the frames whose images are missing or cut off, which the reader gives as black."""
    if file.is_legacy:
        return ()
    try:
        # No public name of the package tells it.
        offsets = file._rdr._frame_offsets
    except AttributeError:
        from nd2 import __version__

        raise UnreadableFileError(
            f"{name}: nd2 {__version__} does not tell which images the file holds, and missing "
            f"ones would be read as black. Install a tested version: pip install '{TESTED_ND2}'"
        ) from None
    attributes = file.attributes
    plain = getattr(attributes, "compressionType", None) is None
    frame_bytes = (attributes.widthBytes or 0) * attributes.heightPx if plain else 0
    return tuple(
        frame
        for frame, image in enumerate(images)
        if offsets.get(image) is None or offsets[image] + frame_bytes > size
    )


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _metadata(
    file: Any,
    images: tuple[int, ...],
    shape: tuple[int, int, int, int],
    sizes: dict[str, int],
    name: str,
) -> VideoMetadata:
    origins = [
        ("axes", f"{''.join(sizes)}, ND2 attributes and experiment"),
        ("shape", "ND2 attributes"),
        ("frame_count", "ND2 experiment, checked against the images in the file"),
        ("dtype", "ND2 attributes"),
    ]
    pixel = times = interval = names = None
    voxel = file.voxel_size()
    sides = (stated_number(voxel.y, "pixel size", name), stated_number(voxel.x, "pixel size", name))
    if all(sides):
        pixel = sides
        origins.append(("pixel_size", "ND2 picture metadata"))
    try:
        stamps = file.events(orient="list").get("Time [s]", [])
    except Exception:  # times are a convenience, old files hold none
        stamps = []
    if len(stamps) > max(images) and all(_is_time(stamps[image]) for image in images):
        times = tuple(float(stamps[image]) for image in images)
        origins.append(("frame_times", "ND2 acquisition times"))
        if len(times) > 1 and times[-1] > times[0]:
            interval = (times[-1] - times[0]) / (len(times) - 1)
            origins.append(("frame_interval", "mean of the acquisition times"))
    listed = tuple(str(channel.channel.name) for channel in file.metadata.channels or ())
    if len(listed) == shape[3]:
        names = listed
        origins.append(("channels", "ND2 picture metadata"))
    return VideoMetadata(pixel, times, interval, names, tuple(origins))
