"""Recordings in Zeiss CZI files: scenes, frames, channels and planes; needs ``pylibCZIrw``."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, ScopeflowError, UnreadableFileError
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import check_frame_range, check_video, choose_index
from scopeflow.io.read.files import FileStamp, HandleCache, stamp_file

__all__ = ["CziSource", "count_scenes", "open_czi"]

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


@dataclass(frozen=True)
class CziSource:
    """One scene and plane of a CZI file.

    Attributes
    ----------
    stamp : FileStamp
        The file.
    scene : int
        Number of the scene in the file.
    box : tuple of int
        ``x, y, width, height`` of the scene on the stage, px.
    first : tuple of int
        First frame, channel and plane in the numbering of the file.
    shape : tuple of int
        ``(T, H, W, C)``.
    dtype : numpy.dtype
        Native type.
    metadata : VideoMetadata
        Facts and origins.
    position : int
        Place of the scene among those of the file, from 0.
    z : int
        Plane, from 0.
    planes : int
        Planes of the file.
    missing : tuple of tuple of int
        ``(frame, channel)`` that the file lacks; they are read as black.
    """

    stamp: FileStamp
    scene: int
    box: tuple[int, int, int, int]
    first: tuple[int, int, int]
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    metadata: VideoMetadata
    position: int
    z: int
    planes: int = 1
    missing: tuple[tuple[int, int], ...] = ()

    @property
    def frames_per_chunk(self) -> int:
        """One: each frame is stored by itself."""
        return 1

    @property
    def description(self) -> str:
        """Short name for people."""
        return f"CZI {self.stamp.path}, scene {self.position}, z {self.z}"

    @property
    def paths(self) -> tuple[str, ...]:
        """The file."""
        return (self.stamp.path,)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames ``start`` to ``stop``, shape ``(n, H, W, C)``.

        Raises
        ------
        InputError
            A range outside the recording, or a file that changed.
        UnreadableFileError
            A damaged image.
        """
        check_frame_range(start, stop, self.shape[0], self.description)
        self.stamp.check_unchanged()
        handle = _FILES.get(self.stamp)
        scene = self.scene if handle.value.has_scenes else None
        absent = set(self.missing)
        video = np.zeros((stop - start, *self.shape[1:]), self.dtype)
        for t, c in product(range(start, stop), range(self.shape[3])):
            if (t, c) in absent:
                continue
            place = {"T": t + self.first[0], "C": c + self.first[1], "Z": self.z + self.first[2]}
            try:
                # The library holds one place in the file: no two threads read at once.
                with handle.lock:
                    plane = handle.value.reader.read(roi=self.box, plane=place, scene=scene)
            except Exception as error:
                raise UnreadableFileError(
                    f"{self.stamp.path}: frame {t}, channel {c} cannot be read "
                    f"({type(error).__name__}: {error}). The file is damaged; copy it again from "
                    "the microscope."
                ) from error
            video[t - start, :, :, c] = plane[:, :, 0]
        return video

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        return {
            "kind": "CZI",
            **self.stamp.facts(),
            "position": self.position,
            "z": self.z,
            "shape": list(self.shape),
            "dtype": self.dtype.str,
        }


def count_scenes(path: str | Path) -> int:
    """Return how many scenes a CZI file holds.

    Raises
    ------
    InputNotFoundError, UnreadableFileError
        The file is missing or damaged, or ``pylibCZIrw`` is not installed.
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

    Parameters
    ----------
    path : str or Path
        The file.
    position : int, optional
        Scene, from 0, needed where there are several.
    z : int, optional
        Plane, needed where there are several.
    missing : {"error", "black"}, optional
        What an image that was never recorded is.

    Returns
    -------
    CziSource
        The recording.

    Raises
    ------
    InputNotFoundError, UnreadableFileError
        The file is missing, truncated or damaged, lacks images, or ``pylibCZIrw`` is not installed.
    InputError
        Several scenes or planes and no choice, a choice that does not exist, or colour images.
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
    box = (left, top, right - left, bottom - top)
    scene = scenes[position]
    return CziSource(stamp, scene, box, first, shape, dtype, metadata, position, z, planes, absent)


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
    except ElementTree.ParseError:  # facts are a convenience, the pixels are whole
        document = ElementTree.Element("none")
    steps = {
        item.get("Id"): float(item.findtext("Value") or 0)
        for item in document.iterfind("./Metadata/Scaling/Items/Distance")
    }
    if steps.get("X", 0) > 0 and steps.get("Y", 0) > 0:
        pixel = (round(steps["Y"] * 1e6, 12), round(steps["X"] * 1e6, 12))
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
        interval = float(step) if step and float(step) > 0 else None
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
                return tuple(stamp - stamps[0] for stamp in stamps)
    except (OSError, ValueError, struct.error, ScopeflowError):  # times are a convenience
        return None
    return None
