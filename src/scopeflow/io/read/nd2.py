"""Recordings in Nikon ND2 files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.axes import check_frame_range, check_video, choose_index
from scopeflow.io.read.files import FileStamp, HandleCache, stamp_file

__all__ = ["Nd2Source", "open_nd2"]


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


@dataclass(frozen=True)
class Nd2Source:
    """One stage position and plane of an ND2 file.

    Attributes
    ----------
    stamp : FileStamp
        The file.
    images : tuple of int
        Number of the stored image of each frame.
    shape : tuple of int
        ``(T, H, W, C)``.
    dtype : numpy.dtype
        Native type.
    metadata : VideoMetadata
        Facts and origins.
    position : int
        Stage position.
    z : int
        Plane.
    planes : int
        Planes of the file.
    missing : tuple of int
        Frames that the file lacks; they are read as black.
    """

    stamp: FileStamp
    images: tuple[int, ...]
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    metadata: VideoMetadata
    position: int
    z: int
    planes: int = 1
    missing: tuple[int, ...] = ()

    @property
    def frames_per_chunk(self) -> int:
        """One: each frame is stored by itself."""
        return 1

    @property
    def description(self) -> str:
        """Short name for people."""
        return f"ND2 {self.stamp.path}, position {self.position}, z {self.z}"

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
        # The file is mapped, and a mapped file that shrank would end the process.
        self.stamp.check_unchanged()
        handle = _FILES.get(self.stamp)
        _, height, width, channels = self.shape
        video = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for n, image in enumerate(self.images[start:stop]):
            if start + n in self.missing:
                video[n] = 0
                continue
            try:
                with handle.lock:
                    frame = handle.value.read_frame(image)
                    samples = channels // _channel_count(handle.value)
            except Exception as error:
                raise UnreadableFileError(
                    f"{self.stamp.path}: image {image} cannot be read ({type(error).__name__}: "
                    f"{error}). The file is damaged; copy it again from the microscope."
                ) from error
            stored = np.asarray(frame).reshape(-1, height, width, samples)
            video[n] = np.moveaxis(stored, 0, 2).reshape(height, width, channels)
        return video

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        return {
            "kind": "ND2",
            **self.stamp.facts(),
            "position": self.position,
            "z": self.z,
            "shape": list(self.shape),
            "dtype": self.dtype.str,
        }


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

    Parameters
    ----------
    path : str or Path
        The file.
    position : int, optional
        Stage position, needed where there are several.
    z : int, optional
        Plane, needed where there are several.
    missing : {"error", "black"}, optional
        What an image that was never recorded is.

    Returns
    -------
    Nd2Source
        The recording.

    Raises
    ------
    InputNotFoundError, UnreadableFileError
        The file is missing, truncated or damaged, or lacks images.
    InputError
        Several positions or planes and no choice, or a choice that does not exist.
    """
    stamp = stamp_file(path)
    name = str(path)
    handle = _FILES.get(stamp)
    with handle.lock:
        file = handle.value
        sizes = {key: int(n) for key, n in file.sizes.items()}
        names = list(file._position_names()) if sizes.get("P", 1) > 1 else []
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
        absent = _missing_images(file, images, stamp.size)
        if absent and missing == "error":
            raise UnreadableFileError(
                f"{name}: {len(images)} frames are declared, but the image of frame {absent[0]} is "
                "missing. The recording was interrupted or the file is truncated; copy it again, "
                "or export its complete part."
            )
        metadata = _metadata(file, images, shape, sizes)
    planes = sizes.get("Z", 1)
    return Nd2Source(stamp, images, shape, dtype, metadata, position, z, planes, absent)


def _missing_images(file: Any, images: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Return the frames whose images are missing or cut off, which the reader gives as black."""
    offsets = getattr(getattr(file, "_rdr", None), "_frame_offsets", None)
    if offsets is None:
        return ()
    attributes = file.attributes
    plain = getattr(attributes, "compressionType", None) is None
    frame_bytes = (attributes.widthBytes or 0) * attributes.heightPx if plain else 0
    return tuple(
        frame
        for frame, image in enumerate(images)
        if offsets.get(image) is None or offsets[image] + frame_bytes > size
    )


def _metadata(
    file: Any, images: tuple[int, ...], shape: tuple[int, int, int, int], sizes: dict[str, int]
) -> VideoMetadata:
    origins = [
        ("axes", f"{''.join(sizes)}, ND2 attributes and experiment"),
        ("shape", "ND2 attributes"),
        ("frame_count", "ND2 experiment, checked against the images in the file"),
        ("dtype", "ND2 attributes"),
    ]
    pixel = times = interval = names = None
    voxel = file.voxel_size()
    if voxel.x > 0 and voxel.y > 0:
        pixel = (float(voxel.y), float(voxel.x))
        origins.append(("pixel_size", "ND2 picture metadata"))
    try:
        stamps = file.events(orient="list").get("Time [s]", [])
    except Exception:  # times are a convenience, old files hold none
        stamps = []
    if len(stamps) > max(images):
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
