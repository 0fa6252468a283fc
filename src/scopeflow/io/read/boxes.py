"""Boxes of items along each axis: what selections of HDF5 hold, and what they leave uncovered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np
from h5py import h5s

__all__ = ["Box", "TooManyPartsError", "cut", "mapped", "selected", "uncovered", "whole"]

Box: TypeAlias = "tuple[tuple[int, int], ...]"
"""Pairs of first item and the one after the last, one for each axis."""

_MOST_BLOCKS = 100_000
_MOST_CELLS = 2**24
_MOST_GAPS = 4096


class TooManyPartsError(Exception):
    """A selection of more pieces than are looked at one by one."""


def whole(shape: Sequence[int]) -> Box:
    """Return the box of an array."""
    return tuple((0, size) for size in shape)


def cut(a: Box, b: Box) -> Box | None:
    """Return what two boxes have in common; None where that is nothing."""
    common = tuple((max(p[0], q[0]), min(p[1], q[1])) for p, q in zip(a, b, strict=True))
    return common if all(low < high for low, high in common) else None


def selected(space: Any, shape: tuple[int, ...], number: int | None = None) -> list[Box]:
    """Return the boxes that a selection of HDF5 holds of an array.

    Unlimited ones end with the array; `number` takes one block of a selection that has unlimited
    blocks.

    Raises TooManyPartsError: there are too many, or of a kind that is not known.
    """
    kind = space.get_select_type()
    if kind == h5s.SEL_ALL:
        return [whole(shape)]
    if kind == h5s.SEL_NONE:
        return []
    if kind == h5s.SEL_POINTS:
        if space.get_select_elem_npoints() > _MOST_BLOCKS:
            raise TooManyPartsError
        points = space.get_select_elem_pointlist().tolist()
        return [tuple((n, n + 1) for n in point) for point in points]
    if space.is_regular_hyperslab():
        boxes = _regular(space.get_regular_hyperslab(), shape, number)
    else:
        if space.get_select_hyper_nblocks() > _MOST_BLOCKS:
            raise TooManyPartsError
        boxes = iter(
            tuple((low, high + 1) for low, high in zip(first, last, strict=True))
            for first, last in space.get_select_hyper_blocklist().tolist()
        )
    return list(boxes)


def _regular(hyperslab: Any, shape: tuple[int, ...], number: int | None) -> Iterator[Box]:
    ranges = []
    for start, stride, count, block, size in zip(*hyperslab, shape, strict=True):
        if block == h5s.UNLIMITED:
            pieces = [(start, max(size, start))]
        elif count == h5s.UNLIMITED and number is not None:
            pieces = [(start + number * stride, start + number * stride + block)]
        else:
            if count == h5s.UNLIMITED:
                count = max(0, -(-(size - start) // stride))
            if stride == block or count == 1:
                pieces = [(start, start + count * block)]
            elif count > _MOST_BLOCKS:
                raise TooManyPartsError
            else:
                firsts = range(start, start + count * stride, stride)
                pieces = [(first, first + block) for first in firsts]
        ranges.append(pieces)
    if prod(map(len, ranges)) > _MOST_BLOCKS:
        raise TooManyPartsError
    return product(*ranges)


def uncovered(shape: tuple[int, ...], boxes: Iterable[Box]) -> list[Box]:
    """Return boxes of an array that others leave out, or few larger ones that hold these.

    Raises TooManyPartsError: the boxes divide the array into too many.

    Examples
    --------
    >>> uncovered((9, 4), [((0, 3), (0, 4)), ((5, 9), (0, 4))])
    [((3, 5), (0, 4))]
    """
    full = whole(shape)
    inside = [box for one in boxes if (box := cut(one, full)) is not None]
    edges = [
        np.unique([edge for box in [full, *inside] for edge in box[axis]])
        for axis in range(len(shape))
    ]
    if prod(len(each) for each in edges) > _MOST_CELLS:
        raise TooManyPartsError
    covered = np.zeros([len(each) - 1 for each in edges], bool)
    for box in inside:
        cells = [np.searchsorted(each, pair) for each, pair in zip(edges, box, strict=True)]
        covered[tuple(slice(low, high) for low, high in cells)] = True
    gaps = np.argwhere(~covered)
    if len(gaps) > _MOST_GAPS:
        first, last = gaps.min(0), gaps.max(0)
        pairs = zip(edges, first, last, strict=True)
        return [tuple((int(each[a]), int(each[b + 1])) for each, a, b in pairs)]
    return [
        tuple((int(each[n]), int(each[n + 1])) for each, n in zip(edges, gap, strict=True))
        for gap in gaps
    ]


def mapped(lost: Box, source: Sequence[Box], target: Sequence[Box]) -> list[Box]:
    """Return where a box of a source lies in the array that it is a part of.

    `source`, `target`: what is taken from the source, and where it goes. Where both are one box of
    the same sides the place is exact, else all that is taken counts where any of it is lost.
    """
    common = [part for box in source if (part := cut(lost, box)) is not None]
    if not common:
        return []
    if len(source) != 1 or len(target) != 1:
        return list(target)
    from_axes = [n for n, (low, high) in enumerate(source[0]) if high - low > 1]
    to_axes = [n for n, (low, high) in enumerate(target[0]) if high - low > 1]
    sides = [[b - a for a, b in box[0] if b - a > 1] for box in (source, target)]
    if sides[0] != sides[1]:
        return list(target)
    place = list(target[0])
    for old, new in zip(from_axes, to_axes, strict=True):
        offset = target[0][new][0] - source[0][old][0]
        place[new] = (common[0][old][0] + offset, common[0][old][1] + offset)
    return [tuple(place)]
