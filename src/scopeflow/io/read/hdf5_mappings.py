"""The parts of virtual HDF5 datasets: which files and datasets they name, and where HDF5 looks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import h5py
from h5py import h5d, h5o, h5s

from scopeflow.io.read.boxes import Box, selected

__all__ = [
    "MOST_SOURCES",
    "Mapping",
    "address",
    "candidates",
    "fits",
    "folders",
    "mappings",
    "member",
]

MOST_SOURCES = 100_000
_PRINTF = re.compile(r"%%|%b")


@dataclass(frozen=True)
class Mapping:
    """Where a virtual dataset has a part of its values."""

    file: str
    dataset: str
    target: Any
    source: Any

    @property
    def is_numbered(self) -> bool:
        """Whether names hold %b, the number of a block, so that any number of sources is meant."""
        if "%b" not in _PRINTF.findall(self.file) + _PRINTF.findall(self.dataset):
            return False
        is_regular = self.target.get_select_type() == h5s.SEL_HYPERSLABS
        is_regular = is_regular and self.target.is_regular_hyperslab()
        return is_regular and h5s.UNLIMITED in self.target.get_regular_hyperslab()[2]

    def names(self, number: int) -> tuple[str, str]:
        """Return the names of the file and of the dataset of one block."""

        def written(match: re.Match[str]) -> str:
            return "%" if match[0] == "%%" else str(number)

        return _PRINTF.sub(written, self.file), _PRINTF.sub(written, self.dataset)

    def all_names(self) -> Iterator[tuple[str, str]]:
        """Yield the names of every source, very many where blocks are numbered."""
        for number in range(MOST_SOURCES if self.is_numbered else 1):
            yield self.names(number)

    def number_pattern(self) -> tuple[bool, str, re.Pattern[str]]:
        """Return whether files are numbered, else datasets; their folder; what fits their names."""
        is_file = "%b" in _PRINTF.findall(self.file)
        folder, pattern = os.path.split(self.file if is_file else self.dataset)
        parts = [re.escape(part.replace("%%", "%")) for part in pattern.split("%b")]
        return is_file, folder, re.compile(r"(\d+)".join(parts))


def mappings(data: Any) -> list[Mapping]:
    """Return the parts of a virtual dataset; empty for others."""
    plist = data.id.get_create_plist()
    if plist.get_layout() != h5d.VIRTUAL:
        return []
    return [
        Mapping(
            plist.get_virtual_filename(n),
            plist.get_virtual_dsetname(n),
            plist.get_virtual_vspace(n),
            plist.get_virtual_srcspace(n),
        )
        for n in range(plist.get_virtual_count())
    ]


def member(file: Any, name: str) -> Any:
    """Return what a file holds under a name; None where that is nothing, or in another file."""
    place = file
    for part in name.strip("/").split("/"):
        if not part:
            continue
        if not isinstance(place, h5py.Group):
            return None
        try:
            link = place.get(part, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                return None
            if isinstance(link, h5py.SoftLink):
                start = place.file if link.path.startswith("/") else place
                place = member(start, link.path)
            else:
                place = place[part]
        except (KeyError, RuntimeError, OSError, RecursionError):
            return None
    return place


def address(data: Any) -> int:
    """Return where a dataset stands in its file, the same by whatever name it was opened."""
    return int(h5o.get_info(data.id).addr)


def folders(path: str, folder: str, file: str) -> list[str]:
    """Return where HDF5 looks for the sources of a virtual dataset."""
    home = os.path.dirname(os.path.abspath(path))
    prefix = os.environ.get("HDF5_VDS_PREFIX", "").replace("${ORIGIN}", home)
    above = [one for one in prefix.split(os.pathsep) if one]
    above += [home, os.getcwd(), os.path.dirname(os.path.realpath(path))]
    if os.path.isabs(file):
        return [folder, *above]
    return [os.path.join(one, folder) for one in above]


def candidates(path: str, file: str) -> list[str]:
    """Return the paths that HDF5 tries for a source, one after the other."""
    folder, name = os.path.split(file)
    return [os.path.join(one, name) for one in folders(path, folder, file)]


def fits(space: Any, shape: tuple[int, ...], target: list[Box]) -> bool:
    """Whether a source of a shape holds what is taken from it."""
    wanted = sum(prod(high - low for low, high in box) for box in target)
    if space.get_select_type() == h5s.SEL_ALL:
        sides = [n for n in shape if n != 1]
        needed = [b - a for a, b in target[0] if b - a != 1] if len(target) == 1 else []
        grown = len(sides) == len(needed) and sides[1:] == needed[1:]
        return prod(shape) == wanted or (grown and prod(shape) > wanted)
    taken = selected(space, shape)
    if any(len(box) != len(shape) for box in taken):
        return False
    inside = all(high <= n for box in taken for (_, high), n in zip(box, shape, strict=True))
    return inside and sum(prod(high - low for low, high in box) for box in taken) >= wanted
