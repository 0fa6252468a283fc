"""Folders that hold several fields of view (FOVs): OME-Zarr images, and TIFF files of planes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from scopeflow.errors import InputError
from scopeflow.io.open import open_source
from scopeflow.io.read.folders import natural_key, tiff_files
from scopeflow.io.read.protocol import Source
from scopeflow.io.read.views import ConcatenatedFrames, StackedChannels

__all__ = ["Field", "numbered_fields", "zarr_images"]

_WORDS = {
    "t": ("time", "frame", "t"),
    "p": ("position", "field", "stage", "fov", "pos", "xy", "s", "p"),
    "c": ("channel", "chan", "ch", "c", "w"),
    "z": ("plane", "slice", "z"),
}
_KIND = {word: kind for kind, words in _WORDS.items() for word in words}
_NUMBER = re.compile(
    rf"(?<![a-z])({'|'.join(sorted(_KIND, key=len, reverse=True))})[_=-]?(\d+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Field:
    """The files of one FOV: one for each frame, channel and plane.

    `number` is that of the FOV in the names; `files` are pairs of ``(frame, channel, plane)`` and
    path.
    """

    folder: Path
    number: int
    files: tuple[tuple[tuple[int, int, int], Path], ...]

    def open(self, z: int | None = None) -> Source:
        """Return one plane as a recording.

        Raises InputError: a file is missing, or there are several planes and none is chosen.
        """
        where = f"{self.folder}, field {self.number}"
        times, channels, planes = (
            sorted({key[axis] for key, _ in self.files}) for axis in range(3)
        )
        if z is None and len(planes) > 1:
            raise InputError(
                f"{where}: it holds {len(planes)} planes, and a video has one. Choose one with z=0 "
                f"… z={len(planes) - 1}."
            )
        if not 0 <= (z or 0) < len(planes):
            raise InputError(f"{where}: z={z} is not one of its {len(planes)} planes")
        plane = planes[z or 0]
        found = dict(self.files)
        missing = [(t, c) for t in times for c in channels if (t, c, plane) not in found]
        if missing:
            raise InputError(
                f"{where}: of {len(times)} frames and {len(channels)} channels {len(missing)} "
                f"files are missing, the first for frame {missing[0][0]}, channel {missing[0][1]}. "
                "Add them, or take the incomplete frames out."
            )
        stacks: list[Source] = []
        for c in channels:
            frames = tuple(open_source(found[t, c, plane]) for t in times)
            stacks.append(frames[0] if len(frames) == 1 else ConcatenatedFrames(frames))
        return stacks[0] if len(stacks) == 1 else StackedChannels(tuple(stacks))


def numbered_fields(folder: Path) -> list[Field]:
    """Return the FOVs of a folder of TIFF files whose names number more than frames or channels.

    Such as ``t1xy0401c2.tif`` or ``exp_pos3_time010_channel1.tif``. None where names number one
    thing alone, so that the folder is one recording.

    Raises InputError: two files of one name pattern have the same numbers.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("t1xy4c1", "t1xy4c2", "t2xy4c1", "t2xy4c2", "t1xy5c1"):
    ...     (folder / f"{name}.tif").touch()
    >>> [(field.number, len(field.files)) for field in numbered_fields(folder)]
    [(4, 4), (5, 1)]
    """
    if (folder / "zarr.json").exists() or (folder / ".zgroup").exists():
        return []
    keys: dict[tuple[int, int, int, int], Path] = {}
    patterns = set()
    for path in sorted(tiff_files(folder), key=lambda one: natural_key(one.name)):
        numbers = _numbers(path.stem)
        patterns.add((_NUMBER.sub("#", path.stem).lower(), tuple(numbers)))
        key = (numbers.get("p", 0), *(numbers.get(kind, 0) for kind in "tcz"))
        if key in keys and len(numbers) > 1:
            raise InputError(f"{path}: its numbers are those of {keys[key].name}; rename one")
        keys[key[0], key[1], key[2], key[3]] = path
    varying = [kind for n, kind in enumerate("ptcz") if len({key[n] for key in keys}) > 1]
    if len(patterns) != 1 or not (len(varying) > 1 or varying in (["p"], ["z"])):
        return []
    return [
        Field(
            folder, number, tuple((key[1:], path) for key, path in keys.items() if key[0] == number)
        )
        for number in sorted({key[0] for key in keys})
    ]


def _numbers(stem: str) -> dict[str, int]:
    """Return the number of each kind in a name; the last one where a kind occurs twice."""
    found: dict[str, int] = {}
    for match in _NUMBER.finditer(stem):
        found[_KIND[match[1].lower()]] = int(match[2])
    return dict(sorted(found.items()))


def zarr_images(path: Path) -> list[str]:
    """Return the images of an OME-Zarr folder of several; none where it is one image itself.

    Written by bioformats2raw, or a plate; paths below it are ``"0"``, ``"1"`` …, or ``"A/1/0"`` …
    in the order of the plate.
    """
    try:
        group = zarr.open_group(str(path), mode="r")
    except Exception:  # open_source says what is wrong
        return []
    attributes = _ome(group)
    if "plate" in attributes:
        wells = [str(well["path"]) for well in attributes["plate"].get("wells", [])]
        return [
            f"{well}/{image['path']}"
            for well in wells
            for image in _ome(group[well]).get("well", {}).get("images", [])
        ]
    if "bioformats2raw.layout" not in attributes:
        return []
    names = [name for name, _ in group.groups() if name.isdigit()]
    return sorted(names, key=int)


def _ome(group: Any) -> Mapping[str, Any]:
    attributes = group.attrs.asdict()
    return {**attributes, **attributes.get("ome", {})}
