"""Names of files: which belong together, and in which order."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from scopeflow.errors import InputError
from scopeflow.io.locations import Location, RemotePath

__all__ = ["combination", "matching", "natural_key", "results_in", "tiff_files", "video_files"]

_CHANNEL = re.compile(r"(.*(?:^|[\W_\d]))(?:channel|chan|ch|c)[\s_.]*(\d+)", re.IGNORECASE)
_RESULTS = {".zarr", ".hdf5", ".h5", ".hdf", ".tiff", ".tif", ".mat"}
_RESULT_STEM = re.compile(r"compensated(\.ome)?")
_CHANNEL_STEM = re.compile(r"compensated_ch\d+")
_VIDEOS = (".avi", ".mp4", ".mkv", ".mov")


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return a sort key that puts ``t2`` before ``t10``.

    Examples
    --------
    >>> sorted(["t10.tif", "t2.tif", "t1.tif"], key=natural_key)
    ['t1.tif', 't2.tif', 't10.tif']
    """
    return tuple(
        (0, int(part)) if part.isdecimal() else (1, part.lower())
        for part in re.split(r"(\d+)", name)
        if part
    )


def _entries(folder: Location) -> list[Location]:
    return [*folder.iterdir()]


@overload
def tiff_files(folder: Path) -> list[Path]: ...
@overload
def tiff_files(folder: RemotePath) -> list[RemotePath]: ...
def tiff_files(folder: Location) -> Sequence[Location]:
    """Return the TIFF files of a folder in natural order, hidden files left out."""
    return _named(folder, (".tif", ".tiff"))


def video_files(folder: Location) -> list[Location]:
    """Return the AVI, MP4, MKV and MOV files of a folder in natural order, hidden ones left out."""
    return _named(folder, _VIDEOS)


def _named(folder: Location, suffixes: tuple[str, ...]) -> list[Location]:
    files = [
        path
        for path in _entries(folder)
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    ]
    return sorted(files, key=lambda path: natural_key(path.name))


def matching(pattern: Location) -> list[Location]:
    """Return the files that a pattern with ``*``, ``?`` or ``[…]`` names, in natural order.

    Wildcards may stand in its last parts, such as ``session/movie_ch*.h5``. Empty where nothing
    matches, or the path has no wildcard.
    """
    if not any(mark in str(pattern) for mark in "*?["):
        return []
    found: list[Location] = []
    if isinstance(pattern, RemotePath):
        root = RemotePath(pattern.root)
        found += root.glob(str(pattern).removeprefix(f"{root}/"))
    else:
        found += [Path(name) for name in glob.glob(str(pattern))]
    return sorted(found, key=lambda path: (natural_key(str(path.parent)), natural_key(path.name)))


def results_in(folder: Location) -> list[tuple[Location, ...]]:
    """Return the corrected recordings in a folder of results, each as its files.

    ``compensated.*`` is one file; ``compensated_ch1.*``, ``compensated_ch2.*`` … of one ending are
    the channels of one recording.
    """
    results: list[tuple[Location, ...]] = []
    channels: dict[str, list[Location]] = {}
    for path in sorted(_entries(folder), key=lambda path: natural_key(path.name)):
        if path.suffix.lower() not in _RESULTS:
            continue
        if _RESULT_STEM.fullmatch(path.stem):
            results.append((path,))
        elif _CHANNEL_STEM.fullmatch(path.stem):
            channels.setdefault(path.suffix, []).append(path)
    return results + [tuple(files) for files in channels.values()]


def combination(paths: Sequence[Location], combine: str | None) -> tuple[str, list[Location]]:
    """Decide whether files are ``"frames"`` or ``"channels"`` of one recording, and their order.

    ``combine`` is the choice of the user, or None.

    Raises InputError: the names do not tell, or a file is listed twice.

    Examples
    --------
    >>> combination([Path("m_ch2.tif"), Path("m_ch1.tif")], None)[0]
    'channels'
    """
    if len(set(paths)) != len(paths):
        twice = next(path for path in paths if list(paths).count(path) > 1)
        raise InputError(f"{twice}: the file is listed more than once. List each file once.")
    if combine == "channels":
        return "channels", list(paths)
    natural = sorted(
        paths, key=lambda path: (natural_key(str(path.parent)), natural_key(path.name))
    )
    if combine == "frames":
        return "frames", natural
    matches = [_CHANNEL.fullmatch(path.stem) for path in paths]
    if all(matches) and len({match[1].lower() for match in matches if match}) == 1:
        numbers = {int(match[2]): path for match, path in zip(matches, paths, strict=True) if match}
        if len(numbers) == len(paths):
            return "channels", [numbers[number] for number in sorted(numbers)]
    if len({re.sub(r"\d+", "#", path.stem).lower() for path in paths}) == 1 and all(
        re.search(r"\d", path.stem) for path in paths
    ):
        if any(matches):
            raise InputError(
                f"{paths[0]} …: the names of {len(paths)} files number both channels and something "
                "else, which cannot be told apart safely. List the files of one channel, or open "
                'each channel with combine="frames" and join them with combine="channels".'
            )
        return "frames", natural
    raise InputError(
        f"{paths[0].name}, {paths[1].name} …: the names of {len(paths)} files do not tell whether "
        'they are successive frames or channels. Say which with combine="frames" or '
        'combine="channels".'
    )
