"""What OME-Zarr metadata say of a recording, whatever shape of JSON they have.

What decides about pixels (which array, which axes) is refused where it is damaged; what only
describes them (sizes, names of channels) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scopeflow.errors import InputError, UnreadableFileError
from scopeflow.strict.values import excerpt

__all__ = ["Multiscale", "axis_letters", "channel_names", "first_multiscale"]

_NAMES = {"t": "T", "time": "T", "frame": "T", "frames": "T", "c": "C", "channel": "C"} | {
    "z": "Z", "y": "Y", "x": "X", "height": "Y", "width": "X", "row": "Y", "column": "X"
}  # fmt: skip


@dataclass(frozen=True)
class Multiscale:
    """The first image of an OME-Zarr group.

    `level`: path of its array of full resolution in the group.
    `axes`: what stands there as its axes; None where nothing does, as before version 0.3.
    """

    level: str
    axes: Any
    _content: Mapping[str, Any]

    def axis_names(self, where: str) -> list[str]:
        """Return the names of the axes; that of channels is free, so their type counts.

        Raises UnreadableFileError: an axis has none.
        """
        if not isinstance(self.axes, list):
            raise _damaged(where, "axes", self.axes, "a list of axes")
        names = []
        for number, axis in enumerate(self.axes):
            name = axis
            if isinstance(axis, Mapping):
                name = "c" if axis.get("type") == "channel" else axis.get("name")
            if not isinstance(name, str) or not name:
                raise _damaged(where, f"axis {number}", axis, "an axis with a name")
            names.append(name)
        return names

    def scales(self, letters: str) -> dict[str, tuple[float, str]]:
        """Return ``{letter: (step, unit)}`` of the array; 1 where there is no usable scale."""
        steps = [1.0] * len(letters)
        for owner in (self._content["datasets"][0], self._content):
            for transform in _list(owner.get("coordinateTransformations")):
                scale = _numbers(_mapping(transform).get("scale"))
                if _mapping(transform).get("type") == "scale" and len(scale) == len(steps):
                    steps = [a * b for a, b in zip(steps, scale, strict=True)]
        units = [_mapping(axis).get("unit") for axis in _list(self.axes)]
        units += [None] * (len(letters) - len(units))
        return {
            letter: (step, unit if isinstance(unit, str) else "")
            for letter, step, unit in zip(letters, steps, units, strict=False)
        }


def first_multiscale(attributes: Mapping[str, Any], where: str) -> Multiscale | None:
    """Return the first image that the attributes of a group describe; None where they do not.

    Raises UnreadableFileError: they describe one, but do not say where its pixels are.
    """
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, Mapping):
        raise _damaged(where, "ome", ome, "an object")
    scales = ome.get("multiscales")
    if scales is None or scales == []:
        return None
    if not isinstance(scales, list):
        raise _damaged(where, "multiscales", scales, "a list of images")
    if not isinstance(scales[0], Mapping):
        raise _damaged(where, "multiscales[0]", scales[0], "an image")
    levels = scales[0].get("datasets")
    if not isinstance(levels, list) or not levels or not isinstance(levels[0], Mapping):
        raise _damaged(where, "datasets", levels, "a list of arrays, of full resolution first")
    path = levels[0].get("path")
    if isinstance(path, int) and not isinstance(path, bool):
        path = str(path)
    if not isinstance(path, str) or not path.strip("/"):
        raise _damaged(where, "path", path, "the path of an array")
    if "://" in path or "\\" in path or {".", ".."} & set(path.split("/")) or "\0" in path:
        raise _damaged(where, "path", path, "the path of an array inside of the folder")
    return Multiscale(path.strip("/"), scales[0].get("axes"), scales[0])


def _damaged(where: str, key: str, given: Any, needed: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{where}: its OME metadata are damaged: {key} is {excerpt(repr(given))}, where {needed} "
        "is needed. Copy or export it again, or pass dataset= and axes= to say what they do not"
    )


def axis_letters(names: Sequence[str], where: str) -> str:
    """Return one letter for each named axis, Q where the name means nothing here.

    Raises InputError: two names mean the same.
    """
    letters = []
    for name in names:
        text = name.lower()
        letters.append(_NAMES.get(text, "Q" if len(text) != 1 else text.upper()))
    known = [letter for letter in letters if letter != "Q"]
    if len(set(known)) != len(known):
        shown = excerpt(repr(list(names)))
        raise InputError(f"{where}: axis names {shown} repeat. Pass axes= to say which is which.")
    return "".join(letters)


def channel_names(attributes: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    """Return the names of the channels; None where there are not as many."""
    ome = _mapping(attributes.get("ome", attributes))
    channels = _list(_mapping(ome.get("omero")).get("channels"))
    labels = [_mapping(channel).get("label") for channel in channels]
    names = tuple(label for label in labels if isinstance(label, str) and label)
    return names if len(names) == len(labels) == count else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _numbers(value: Any) -> list[float]:
    """Return finite numbers; an empty list where any value is none."""
    try:
        numbers = [float(number) for number in _list(value) if not isinstance(number, bool)]
    except (TypeError, ValueError, OverflowError):
        return []
    if len(numbers) != len(_list(value)):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []
