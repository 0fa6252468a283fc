"""Which of the datasets in a container are the recording."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod

from scopeflow.errors import DatasetNotFoundError, InputError, nearest_name

__all__ = ["choose_datasets"]

_CHANNEL = re.compile(r"(.*?)(?:channel|chan|ch)[\s_.]*(\d+)", re.IGNORECASE)
_COMMON = ("mov", "data", "dataset")


def choose_datasets(
    shapes: Mapping[str, tuple[int, ...]],
    name: str,
    dataset: str | Sequence[str] | None = None,
) -> tuple[tuple[str, ...], str]:
    """Choose the datasets that hold a recording, one dataset or one for each channel.

    In this order: the names given; names that end in ``ch<N>``, ``chan<N>`` or ``channel<N>`` with
    a common prefix, the largest group, ordered by number; a dataset ``mov``, ``data`` or
    ``dataset``; all datasets of the shape with the most elements. The second value tells people
    why these.

    Raises DatasetNotFoundError: a given name does not exist, or nothing has 3 or 4 axes.
    Raises InputError: channel datasets of different shape.

    Examples
    --------
    >>> choose_datasets({"ch2": (9, 32, 32), "ch1": (9, 32, 32), "w": (9,)}, "movie.h5")[0]
    ('ch1', 'ch2')
    """
    listing = ", ".join(f"{key} {shape}" for key, shape in sorted(shapes.items())) or "none"
    if dataset is not None:
        wanted = (dataset,) if isinstance(dataset, str) else tuple(dataset)
        if not wanted:
            raise DatasetNotFoundError(f"{name}: dataset= is empty. Datasets: {listing}.")
        known = {key.strip("/"): key for key in shapes}
        for given in wanted:
            if given.strip("/") not in known:
                raise DatasetNotFoundError(
                    f"{name}: there is no dataset {given!r}.{nearest_name(given, known)} "
                    f"Datasets: {listing}."
                )
        chosen = tuple(known[given.strip("/")] for given in wanted)
        _check_equal(chosen, shapes, name)
        return chosen, "dataset= argument"
    videos = {key: shape for key, shape in shapes.items() if len(shape) in (3, 4)}
    if not videos:
        raise DatasetNotFoundError(
            f"{name}: no dataset has 3 or 4 axes, as a video must. Datasets: {listing}. "
            "If one of them is the video, name it with dataset= and describe it with axes=."
        )
    groups: dict[str, list[tuple[int, str]]] = {}
    for key in videos:
        match = _CHANNEL.fullmatch(key)
        if match:
            groups.setdefault(match[1].lower(), []).append((int(match[2]), key))
    if groups:
        prefix = max(groups, key=lambda prefix: len(groups[prefix]))
        members = [key for _, key in sorted(groups[prefix])]
        _check_equal(members, shapes, name)
        return tuple(members), "named as channels" + _others(videos, members)
    for key in videos:
        if key.strip("/").lower() in _COMMON:
            return (key,), "usual name" + _others(videos, [key])
    largest = max(videos.values(), key=prod)
    members = [key for key, shape in videos.items() if shape == largest]
    return tuple(members), "largest shape" + _others(videos, members)


def _check_equal(
    names: Sequence[str], shapes: Mapping[str, tuple[int, ...]], file_name: str
) -> None:
    if len({shapes[key] for key in names}) > 1:
        listing = ", ".join(f"{key} {shapes[key]}" for key in names)
        raise InputError(
            f"{file_name}: the channels have different shapes: {listing}. All channels of a "
            "recording need one shape; name the right datasets with dataset=."
        )


def _others(videos: Mapping[str, tuple[int, ...]], chosen: Sequence[str]) -> str:
    rest = [f"{key} {shape}" for key, shape in videos.items() if key not in chosen]
    return f"; not used: {', '.join(rest)}" if rest else ""
