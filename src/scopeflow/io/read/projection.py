"""Several planes of one recording as one: their brightest pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.protocol import Source, absent_frames
from scopeflow.io.read.states import state_of

__all__ = ["MaximumProjection", "plane_count"]


@dataclass(frozen=True)
class MaximumProjection:
    """The maximum over z of a recording, from one source for each plane.

    Raises InputError: without planes, or for planes of different shape or type.

    Examples
    --------
    >>> from scopeflow.io.open import open_source
    >>> planes = [np.full((2, 16, 20), n, "uint8") for n in (3, 7)]
    >>> int(MaximumProjection(tuple(open_source(p) for p in planes)).read(0, 1).min())
    7
    """

    planes: tuple[Source, ...]

    def __post_init__(self) -> None:
        kinds = {(plane.shape, plane.dtype) for plane in self.planes}
        if len(kinds) != 1:
            raise InputError(
                f"a projection over {len(self.planes)} planes needs planes of one shape and type; "
                f"they are {sorted(map(str, kinds))}"
            )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape ``(T, H, W, C)``."""
        return self.planes[0].shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Native type."""
        return self.planes[0].dtype

    @property
    def metadata(self) -> VideoMetadata:
        """Facts of the first plane."""
        return self.planes[0].metadata

    @property
    def frames_per_chunk(self) -> int:
        """As of each plane."""
        return self.planes[0].frames_per_chunk

    @property
    def description(self) -> str:
        """Short name for people."""
        return f"{self.planes[0].description} to {len(self.planes) - 1}, maximum"

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file, once."""
        return tuple(dict.fromkeys(path for plane in self.planes for path in plane.paths))

    @cached_property
    def absent(self) -> tuple[int, ...]:
        """Frames that lack pixels in any plane."""
        return tuple(sorted({n for plane in self.planes for n in absent_frames(plane)}))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return frames ``start`` to ``stop``, shape ``(n, H, W, C)``; NaN counts as lowest."""
        video = self.planes[0].read(start, stop)
        for plane in self.planes[1:]:
            # Plane by plane, so that a stack needs the memory of two.
            np.fmax(video, plane.read(start, stop), out=video)
        video[[frame - start for frame in self.absent if start <= frame < stop]] = 0
        return video

    def state(self, start: int, stop: int) -> dict[str, str]:
        """Return what the files that hold some frames look like now."""
        parts = (state_of(plane, start, stop) for plane in self.planes)
        return {path: text for part in parts for path, text in part.items()}

    def identity(self) -> dict[str, object]:
        """Return what changes when the data change."""
        return {"kind": "maximum over z", "planes": [plane.identity() for plane in self.planes]}


def plane_count(source: Source) -> int:
    """Return how many planes the file of a source holds, of which the source is one.

    1 where there is no z axis.
    """
    planes = getattr(source, "planes", None)
    if isinstance(planes, int):
        return planes
    layout = getattr(source, "layout", None)
    if layout is None:
        inner = getattr(source, "sources", None)
        return plane_count(inner[0]) if inner else 1
    fixed = dict(layout.fixed)
    for axis, letter in enumerate(layout.axes):
        if letter == "Z" and axis in fixed:
            return int(layout.shape[axis])
    return 1
