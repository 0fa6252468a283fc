"""Recordings in Zeiss CZI files: scenes, frames, channels and planes; needs ``pylibCZIrw``."""

from __future__ import annotations

import logging
import math
import struct
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, ScopeflowError, UnreadableFileError
from scopeflow.io.metadata import VideoMetadata, seconds, stated_number
from scopeflow.io.read.axes import check_video, choose_index
from scopeflow.io.read.files import HandleCache, stamp_file
from scopeflow.io.read.source import PlaneSource

__all__ = ["CziSource", "count_scenes", "open_czi"]

logger = logging.getLogger(__name__)

_COPY_AGAIN = "copy it again from the microscope"
_TYPES = {"Gray8": "uint8", "Gray16": "uint16", "Gray32Float": "float32"}


@dataclass(frozen=True)
class _Block:
    """One stored piece of a plane at full resolution."""

    scene: int
    place: tuple[int, int, int]
    box: tuple[int, int, int, int]


class _File:
    """An open CZI file, and what its directory lists."""

    def __init__(self, path: str) -> None:
        from pylibCZIrw.czi import CziReader

        self.reader = CziReader(path)
        self.blocks: list[_Block] = []
        self.has_scenes = False
        self.others: dict[str, set[int]] = {}
        self.types: dict[int, str] = {}
        self.reader.enumerate_subblocks(self._add)

    def _add(self, number: int, info: Any) -> bool:  # noqa: ARG002 - called by the library
        if info.get_zoom() < 1:  # a smaller copy for viewers
            return True
        at = {str(axis): int(index) for axis, index in info.coordinate.to_dict().items()}
        box = info.logicalRect
        place = (at.pop("T", 0), at.pop("C", 0), at.pop("Z", 0))
        self.has_scenes |= "S" in at
        scene = at.pop("S", 0)
        self.blocks.append(_Block(scene, place, (box.x, box.y, box.x + box.w, box.y + box.h)))
        self.types[place[1]] = str(info.pixelType).rpartition(".")[2]
        for axis, index in at.items():
            self.others.setdefault(axis, set()).add(index)
        return True

    def scenes(self) -> list[int]:
        """Numbers of all scenes."""
        return sorted({block.scene for block in self.blocks})

    def close(self) -> None:
        """Close the file."""
        self.reader.close()


def _open_file(path: str) -> _File:
    try:
        import pylibCZIrw  # noqa: F401
    except ImportError:
        raise UnreadableFileError(
            f"{path}: reading Zeiss CZI files needs the package pylibCZIrw, which is not "
            "installed; install it with pip install 'scopeflow[czi]', or export the recording as "
            "OME-TIFF."
        ) from None
    try:
        file = _File(path)
    except Exception as error:
        raise UnreadableFileError(
            f"{path}: cannot be opened as CZI ({type(error).__name__}: {error}). It is truncated, "
            "damaged or of another format; copy it again from the microscope."
        ) from error
    if not file.blocks:
        file.close()
        raise UnreadableFileError(f"{path}: the CZI file holds no image.")
    return file


_FILES: HandleCache[_File] = HandleCache(_open_file)


@dataclass(frozen=True, kw_only=True)
class CziSource(PlaneSource):
    """One scene and plane of a CZI file.

    ``scene`` is its number in the file, ``position`` its place among the scenes. ``box`` is
    ``x, y, width, height`` of the scene on the stage, px; ``first`` the first frame, channel and
    plane in the numbering of the file. ``missing`` lists pairs of frame and channel.
    """

    scene: int
    box: tuple[int, int, int, int]
    first: tuple[int, int, int]
    kind: str = "CZI"

    def _part(self) -> str:
        return f"scene {self.position}, z {self.z}"

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        handle = _FILES.get(self.stamp)
        scene = self.scene if handle.value.has_scenes else None
        absent = set(self.missing)
        video = np.zeros((stop - start, *self.shape[1:]), self.dtype)
        for t, c in product(range(start, stop), range(self.shape[3])):
            if (t, c) in absent:
                continue
            place = {"T": t + self.first[0], "C": c + self.first[1], "Z": self.z + self.first[2]}
            # The library holds one place in the file: no two threads read at once.
            with self._reading(f"frame {t}, channel {c}", _COPY_AGAIN), handle.lock:
                plane = handle.value.reader.read(roi=self.box, plane=place, scene=scene)
            video[t - start, :, :, c] = plane[:, :, 0]
        return video


def count_scenes(path: str | Path) -> int:
    """Return how many scenes a CZI file holds.

    Raises InputNotFoundError, UnreadableFileError: the file is missing or damaged, or
        ``pylibCZIrw`` is not installed.
    """
    handle = _FILES.get(stamp_file(path))
    return len(handle.value.scenes())


def open_czi(
    path: str | Path,
    *,
    position: int | None = None,
    z: int | None = None,
    missing: Literal["error", "black"] = "error",
) -> CziSource:
    """Open a recording in a CZI file; no pixel is read.

    Scenes are stage positions, and may differ in size. The tiles of a scene are put together as
    they lie on the stage. Times are those of the list ``TimeStamps`` in the file, else of the
    interval in its metadata.

    ``position`` (the scene, from 0) and ``z`` are needed where there are several. An image that was
    never recorded is an error, or black.

    Raises InputNotFoundError, UnreadableFileError: the file is missing, truncated or damaged, lacks
        images, or ``pylibCZIrw`` is not installed.
    Raises InputError: several scenes or planes and no choice, a choice that does not exist, or
        colour images.
    """
    stamp = stamp_file(path)
    name = str(path)
    handle = _FILES.get(stamp)
    with handle.lock:
        file = handle.value
        scenes = file.scenes()
        position = choose_index(position, len(scenes), "position", "scenes", (), name)
        unknown = {axis: len(found) for axis, found in file.others.items() if len(found) > 1}
        if unknown:
            raise InputError(
                f"{name}: it has axes of unknown meaning, {unknown}; T, S, Z, C, Y, X are read. "
                "Export the recording as OME-TIFF."
            )
        colour = sorted({kind for kind in file.types.values() if kind not in _TYPES})
        if colour:
            raise InputError(
                f"{name}: its pixels are {', '.join(colour)}; {', '.join(_TYPES)} are read. "
                "Export the channels as separate grey images."
            )
        blocks = [block for block in file.blocks if block.scene == scenes[position]]
        starts = tuple(min(block.place[axis] for block in file.blocks) for axis in range(3))
        ends = tuple(max(block.place[axis] for block in file.blocks) + 1 for axis in range(3))
        first = (starts[0], starts[1], starts[2])
        frames, channels, planes = (ends[axis] - starts[axis] for axis in range(3))
        z = choose_index(z, planes, "z", "planes", (), name)
        held = {block.place for block in blocks}
        absent = tuple(
            (t, c)
            for t, c in product(range(frames), range(channels))
            if (t + first[0], c + first[1], z + first[2]) not in held
        )
        if absent and missing == "error":
            raise UnreadableFileError(
                f"{name}: scene {position} has {frames} frames of {channels} channels, but "
                f"{len(absent)} images are missing, the first in frame {absent[0][0]}, channel "
                f"{absent[0][1]}. The recording was interrupted; export its complete part."
            )
        left, top = (min(block.box[axis] for block in blocks) for axis in (0, 1))
        right, bottom = (max(block.box[axis] for block in blocks) for axis in (2, 3))
        shape = (frames, bottom - top, right - left, channels)
        kinds = [np.dtype(_TYPES[kind]) for kind in file.types.values()]
        dtype = check_video(shape, np.result_type(*kinds), name)
        metadata = _metadata(str(path), file, shape, first[1], planes)
    return CziSource(
        stamp=stamp,
        shape=shape,
        dtype=dtype,
        metadata=metadata,
        position=position,
        z=z,
        planes=planes,
        missing=absent,
        scene=scenes[position],
        box=(left, top, right - left, bottom - top),
        first=first,
    )


def _metadata(
    path: str, file: _File, shape: tuple[int, int, int, int], first_channel: int, planes: int
) -> VideoMetadata:
    letters = f"{'S' if len(file.scenes()) > 1 else ''}T{'Z' if planes > 1 else ''}CYX"
    origins = [
        ("axes", f"{letters}, CZI directory of images"),
        ("shape", "CZI directory of images"),
        ("frame_count", "CZI directory of images"),
        ("dtype", "CZI directory of images"),
    ]
    pixel = names = interval = None
    try:
        document = ElementTree.fromstring(file.reader.raw_metadata)
    except Exception as error:  # facts are a convenience, and the library raises many kinds
        logger.warning("%s: its metadata cannot be read (%s); sizes are unknown.", path, error)
        document = ElementTree.Element("none")
    steps = {
        str(item.get("Id")): stated_number(item.findtext("Value"), "Scaling", path)
        for item in document.iterfind("./Metadata/Scaling/Items/Distance")
    }
    if steps.get("X", 0) > 0 and steps.get("Y", 0) > 0:
        sides = (round(steps["Y"] * 1e6, 12), round(steps["X"] * 1e6, 12))
        pixel = sides if all(0 < side < math.inf for side in sides) else None
    if pixel is not None:
        origins.append(("pixel_size", "CZI metadata, Scaling"))
    image = "./Metadata/Information/Image/Dimensions"
    listed = [str(one.get("Name") or "") for one in document.iterfind(f"{image}/Channels/Channel")]
    listed = listed[first_channel : first_channel + shape[3]]
    if len(listed) == shape[3] and all(listed):
        names = tuple(listed)
        origins.append(("channels", "CZI metadata, Channels"))
    times = _time_stamps(path, shape[0])
    if times is not None:
        origins.append(("frame_times", "CZI list TimeStamps"))
        if len(times) > 1 and times[-1] > times[0]:
            interval = (times[-1] - times[0]) / (len(times) - 1)
            origins.append(("frame_interval", "mean of the acquisition times"))
    else:
        step = document.findtext(f"{image}/T/Positions/Interval/Increment")
        interval = seconds(stated_number(step, "interval of T", path), "s")
        if interval is not None:
            origins.append(("frame_interval", "CZI metadata, interval of T"))
    return VideoMetadata(pixel, times, interval, names, tuple(origins))


def _time_stamps(path: str, frames: int) -> tuple[float, ...] | None:
    """Return seconds since the first frame, from the attachment that the library does not give.

    The layout is that of the published ZISRAW format: the header points to the directory of
    attachments, whose entries of 128 bytes point to segments with 256 bytes before their data.
    """
    try:
        with Path(path).open("rb") as file:
            # 32 bytes of segment head; versions, identifiers, part and two places stand before.
            file.seek(32 + 72)
            (directory,) = struct.unpack("<q", file.read(8))
            if directory <= 0:
                return None
            file.seek(directory)
            if not file.read(16).startswith(b"ZISRAWATTDIR"):
                return None
            file.seek(directory + 32)
            (count,) = struct.unpack("<i", file.read(4))
            file.seek(directory + 32 + 256)
            for entry in [file.read(128) for _ in range(min(max(count, 0), 10_000))]:
                if entry[48:].split(b"\0")[0] != b"TimeStamps":
                    continue
                (place,) = struct.unpack("<q", entry[12:20])
                file.seek(place + 32 + 256)
                _, number = struct.unpack("<ii", file.read(8))
                if number != frames:
                    return None
                stamps = struct.unpack(f"<{number}d", file.read(8 * number))
                times = tuple(stamp - stamps[0] for stamp in stamps)
                return times if all(map(math.isfinite, times)) else None
    except (OSError, ValueError, struct.error, ScopeflowError):  # times are a convenience
        return None
    return None
