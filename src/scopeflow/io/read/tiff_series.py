"""Which pages of a TIFF file are the recording, and which axes they run over."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from scopeflow.errors import DatasetNotFoundError, InputError, UnreadableFileError
from scopeflow.io.read.axes import parse_axes
from scopeflow.io.read.tiff_metadata import scanimage_axes

__all__ = ["PageAxes", "choose_series", "page_axes"]

# More channels than ImageJ can show: a stack written without saying what its axes are.
IMAGEJ_CHANNELS = 7


class PageAxes(NamedTuple):
    """The axes of all pages; the first ``outer`` of them run over pages, the others inside one.

    ``origin`` tells where they were read, ``note`` what was inferred.
    """

    letters: str
    shape: tuple[int, ...]
    outer: int
    origin: str
    note: str = ""


def page_axes(
    file: Any,
    chosen: list[Any],
    kind: str,
    name: str,
    *,
    axes: str | None,
    deinterleave: int | None,
) -> PageAxes:
    """Return the axes of the chosen series, which follow each other in time.

    Raises InputError, UnreadableFileError: the axes mean nothing, or pages are missing.
    """
    first = chosen[0]
    letters, shape, outer = _stored_axes(first, name)
    origin = f"{kind} metadata" if kind != "TIFF" else f"{first.kind} TIFF pages"
    note = ""
    keyframe = first.keyframe
    if kind == "ScanImage TIFF":
        page_letters, page_shape = scanimage_axes(keyframe, len(first.pages), name)
        letters = page_letters + str(keyframe.axes)
        shape = (*page_shape, *keyframe.shape)
        outer = len(page_shape)
    elif letters == "SYX" and outer == 0 and int(keyframe.planarconfig) == 2:
        letters, note = "TYX", "planar samples of one page taken as frames"
    elif kind == "ImageJ TIFF" and letters == "CYX" and shape[0] > IMAGEJ_CHANNELS:
        letters = "TYX"
        note = f"{shape[0]} channels taken as frames, ImageJ has at most {IMAGEJ_CHANNELS}"
    if len(chosen) > 1:
        letters, shape, outer = _in_a_row(chosen, letters, shape, outer, name)
        note = f"{len(chosen)} series of equal pages taken as successive frames"
    said = "deinterleave= argument"
    if deinterleave is None and kind == "TIFF" and axes is None and len(chosen) == 1:
        deinterleave = _interleaved_channels(file)
        said = "interleaved_channels in the description"
    if deinterleave is not None:
        letters, shape, outer = _deinterleave(letters, shape, outer, deinterleave, name)
        origin, note = said, ""
    if axes is not None:
        letters, origin, note = parse_axes(axes, len(shape), name), "axes= argument", ""
    return PageAxes(letters, shape, outer, origin, note)


def _in_a_row(
    chosen: list[Any], letters: str, shape: tuple[int, ...], outer: int, name: str
) -> tuple[str, tuple[int, ...], int]:
    """Return the axes of series of equal pages as one, from those of the first."""
    first = chosen[0]
    if _is_stack(first):
        frames = sum(int(series.shape[0]) for series in chosen)
        return "T" + letters[1:], (frames, *shape[1:]), 1
    if "T" in letters[:outer] and letters[0] == "T":
        return letters, (shape[0] * len(chosen), *shape[1:]), outer
    if "T" in letters:
        raise InputError(
            f"{name}: {len(chosen)} series with axes {letters} each; choose one with "
            "dataset=0, dataset=1 ….",
        )
    return "T" + letters, (len(chosen), *shape), outer + 1


def choose_series(
    series: list[Any], kind: str, name: str, dataset: int | str | None, position: int | None
) -> list[int]:
    """Return the numbers of the series to read; several of equal pages follow each other in time.

    Raises DatasetNotFoundError, InputError: there is no such series, or several differ and none is
        chosen.
    """
    listing = ", ".join(
        f"{number}: {item.axes} {item.shape} {item.dtype}"
        for number, item in list(enumerate(series))[:12]
    )
    if len(series) > 12:
        listing += f" … {len(series)} in all"
    if dataset is not None and position is not None:
        raise InputError(f"{name}: give either dataset= or position=, both name a series.")
    choice = dataset if dataset is not None else position
    if choice is not None:
        text = str(choice).strip()
        if not text.isdecimal() or int(text) >= len(series):
            raise DatasetNotFoundError(
                f"{name}: there is no series {choice!r}. Series: {listing}. Give its number."
            )
        return [int(text)]
    if len(series) == 1:
        return [0]
    if kind == "OME-TIFF":
        raise InputError(
            f"{name}: it holds {len(series)} images (stage positions): {listing}. "
            f"Choose one with position=0 … position={len(series) - 1}."
        )
    if len({(item.axes, tuple(item.shape), str(item.dtype)) for item in series}) == 1:
        return list(range(len(series)))
    if kind == "TIFF" and all(_is_stack(item) for item in series):
        first = series[0]
        wanted = (first.axes, tuple(first.shape[1:]), str(first.dtype))
        if all((s.axes, tuple(s.shape[1:]), str(s.dtype)) == wanted for s in series):
            return list(range(len(series)))
    raise InputError(
        f"{name}: it holds {len(series)} series of different shape or type: {listing}. "
        "Choose one with dataset=0, dataset=1 …."
    )


def _interleaved_channels(file: Any) -> int | None:
    """Return the number of channels that our suite2p export notes."""
    described: dict[str, Any] = (file.shaped_metadata or ({},))[0]
    count = described.get("interleaved_channels")
    return count if isinstance(count, int) and count > 1 else None


def _is_stack(series: Any) -> bool:
    """Whether a series is pages one after the other, without a meaning of their axis but time."""
    shape = tuple(series.shape)
    return (
        len(shape) > 2
        and series.axes[0] in "QIT"
        and len(series.pages) == shape[0]
        and math.prod(series.keyframe.shape) == math.prod(shape[1:])
    )


def _stored_axes(series: Any, name: str) -> tuple[str, tuple[int, ...], int]:
    """Return axes and shape of a series and how many of its leading axes run over pages."""
    letters = str(series.axes)
    shape = tuple(int(n) for n in series.shape)
    pages = len(series.pages)
    inner = math.prod(series.keyframe.shape)
    for axis in range(len(shape) + 1):
        if math.prod(shape[:axis]) == pages and math.prod(shape[axis:]) == inner:
            return letters, shape, axis
    if series.dataoffset is not None:
        return letters, shape, 0
    raise UnreadableFileError(
        f"{name}: its metadata declare axes {letters} {shape}, but it holds {pages} pages of "
        f"{series.keyframe.shape}. Pages are missing; copy or save the file again."
    )


def _deinterleave(
    letters: str, shape: tuple[int, ...], page_axes: int, channels: int, name: str
) -> tuple[str, tuple[int, ...], int]:
    frames = [axis for axis, letter in enumerate(letters) if letter not in "CSYX"]
    if len(frames) != 1 or "C" in letters:
        raise InputError(
            f"{name}: deinterleave={channels} splits successive pages, but the file already says "
            f"axes {letters}, shape {shape}. Leave deinterleave out."
        )
    axis = frames[0]
    if channels < 1 or shape[axis] % channels:
        raise InputError(
            f"{name}: {shape[axis]} pages cannot be split into frames of deinterleave={channels} "
            "channels. Check the number of channels; pages may be missing."
        )
    split = (shape[axis] // channels, channels)
    letters = letters[:axis] + "TC" + letters[axis + 1 :]
    return letters, shape[:axis] + split + shape[axis + 1 :], page_axes + (axis < page_axes)
