"""What a recording is to the rest of the program, whatever file it comes from."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from scopeflow.io.metadata import VideoMetadata

__all__ = ["Source", "absent_frames", "describe"]


@runtime_checkable
class Source(Protocol):
    """A recording that can be read by frames.

    Implementations are frozen dataclasses: hashable, picklable, without open handles. Each process
    opens the files when it first reads. ``read`` may be called from many threads.

    A source whose file lacks pixels may have an attribute ``absent`` too, see
    :func:`absent_frames`.
    """

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape ``(T, H, W, C)``: frames, rows, columns, channels."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels in native byte order."""
        ...

    @property
    def metadata(self) -> VideoMetadata:
        """Pixel size, times, channel names, and where each fact was read."""
        ...

    @property
    def frames_per_chunk(self) -> int:
        """Frames that are stored, and so best read, together; 1 where it does not matter."""
        ...

    @property
    def description(self) -> str:
        """Short name for people, such as ``"OME-TIFF movie.ome.tif, series 0"``."""
        ...

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file that is read."""
        ...

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames ``start`` to ``stop``, shape ``(stop - start, H, W, C)``, own memory."""
        ...

    def identity(self) -> dict[str, object]:
        """Return JSON-able facts that change when the data change."""
        ...

    # Sources of scopeflow also have ``state(start, stop) -> dict[str, str]``: file to a short text
    # of its size and time now, of the files that hold these frames. Ask for it with
    # `scopeflow.io.read.states.state_of`: sources of others may lack it.


def absent_frames(source: Source) -> tuple[int, ...]:
    """Return the frames that lack pixels in the file, in ascending order; they are read as zeros.

    There are none unless the recording was opened with ``missing="mask"``.

    Examples
    --------
    >>> import numpy as np
    >>> from scopeflow.io.open import open_source
    >>> absent_frames(open_source(np.zeros((5, 16, 20), "uint8")))
    ()
    """
    # No part of the protocol: recordings of other programs' classes need not know of it.
    return tuple(getattr(source, "absent", ()))


def describe(source: Source) -> list[tuple[str, str, str]]:
    """List what is known of a recording as rows ``(name, value, where it was read)``.

    Examples
    --------
    >>> import numpy as np
    >>> from scopeflow.io.open import open_source
    >>> describe(open_source(np.zeros((5, 16, 20), "uint8")))[1]
    ('frames', '5', 'array')
    """
    metadata, absent = source.metadata, absent_frames(source)
    frames, height, width, channels = source.shape
    shape_origin = metadata.origin("shape")
    gibibytes = float(np.prod(source.shape, dtype=float)) * source.dtype.itemsize / 2**30
    rows = [
        ("recording", source.description, ""),
        ("frames", str(frames), metadata.origin("frame_count") or shape_origin),
        ("height × width", f"{height} × {width} px", shape_origin),
        ("channels", str(channels), shape_origin),
        ("axes in the file", *_split(metadata.origin("axes"))),
        ("dtype", str(source.dtype), metadata.origin("dtype")),
        ("size in memory", f"{gibibytes:.3g} GiB", "shape × dtype"),
        ("frames per chunk", str(source.frames_per_chunk), "storage layout"),
    ]
    if absent:
        rows.append(("frames that lack pixels", f"{len(absent)}, the first {absent[0]}", "files"))
    if metadata.channel_names is not None:
        rows.append(
            ("channel names", ", ".join(metadata.channel_names), metadata.origin("channels"))
        )
    if metadata.pixel_size_um is not None:
        y, x = metadata.pixel_size_um
        rows.append(("pixel size", f"{y:.6g} × {x:.6g} µm", metadata.origin("pixel_size")))
    if metadata.frame_interval_s is not None:
        interval = f"{metadata.frame_interval_s:.6g} s"
        rows.append(("frame interval", interval, metadata.origin("frame_interval")))
    if metadata.frame_times_s is not None:
        first, last = metadata.frame_times_s[0], metadata.frame_times_s[-1]
        rows.append(("frame times", f"{first:.6g} to {last:.6g} s", metadata.origin("frame_times")))
    shown = {"axes", "shape", "dtype", "frame_count", "channels", "pixel_size"}
    shown |= {"frame_interval", "frame_times"}
    rows += [(fact, *_split(origin)) for fact, origin in metadata.origins if fact not in shown]
    rows += [("file", path, "") for path in source.paths[:3]]
    if len(source.paths) > 3:
        rows.append(("file", f"… {len(source.paths)} files", ""))
    return rows


def _split(origin: str) -> tuple[str, str]:
    value, _, where = origin.partition(", ")
    return value, where
