"""Cells through time: region tables in, links out; sees pixels only to make and use the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.optimize import linear_sum_assignment

from scopeflow.errors import InputError

__all__ = [
    "bbox_iou",
    "link_frames",
    "link_iou",
    "link_pair",
    "mask_iou",
    "overlap_counts",
    "region_table",
    "repaint",
]

_LARGEST_ID = 65535


def region_table(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return label, area and bounding box of every region of a frame.

    Rows are ``label, area, y0, x0, y1, x1``, int64, by ascending label; boxes are half-open.

    Examples
    --------
    >>> region_table(np.array([[0, 2, 2], [0, 2, 0]])).tolist()
    [[2, 3, 0, 1, 2, 3]]
    """
    areas = np.bincount(labels.ravel()) if labels.size else np.zeros(1, np.int64)
    rows = [
        (n, areas[n], box[0].start, box[1].start, box[0].stop, box[1].stop)
        for n, box in enumerate(find_objects(np.asarray(labels, np.int32)), start=1)
        if box is not None
    ]
    return np.array(rows, np.int64).reshape(-1, 6)


def bbox_iou(current: NDArray[Any], previous: NDArray[Any]) -> NDArray[np.float64]:
    """Return intersection over union of half-open boxes, ``(n_current, n_previous)``.

    Both are as of :func:`region_table`.

    Examples
    --------
    >>> a = np.array([[1, 100, 0, 0, 10, 10]]); b = np.array([[1, 100, 0, 5, 10, 15]])
    >>> round(float(bbox_iou(a, b)[0, 0]), 4)
    0.3333
    """
    a, b = current[:, None, 2:], previous[None, :, 2:]
    height = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    width = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    shared = np.maximum(height, 0) * np.maximum(width, 0)
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    return shared / np.maximum(area_a + area_b - shared, 1)


def overlap_counts(
    current: NDArray[np.integer], previous: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Return ``(label, previous label, pixels)`` of all regions that share pixels.

    Examples
    --------
    >>> overlap_counts(np.array([[1, 1, 2]]), np.array([[0, 3, 3]])).tolist()
    [[1, 3, 1], [2, 3, 1]]
    """
    both = (current > 0) & (previous > 0)
    a, b = current[both].astype(np.int64), previous[both].astype(np.int64)
    if a.size == 0:
        return np.zeros((0, 3), np.int64)
    stride = int(b.max()) + 1
    codes, counts = np.unique(a * stride + b, return_counts=True)
    return np.stack([codes // stride, codes % stride, counts], axis=1)


def mask_iou(
    current: NDArray[np.int64], previous: NDArray[np.int64], overlaps: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return intersection over union of masks, from two region tables and their shared pixels."""
    shared = np.zeros((len(current), len(previous)))
    if len(overlaps):
        rows = np.searchsorted(current[:, 0], overlaps[:, 0])
        columns = np.searchsorted(previous[:, 0], overlaps[:, 1])
        shared[rows, columns] = overlaps[:, 2]
    return shared / np.maximum(current[:, None, 1] + previous[None, :, 1] - shared, 1)


def link_pair(iou: NDArray[np.float64], min_iou: float) -> list[tuple[int, int]]:
    """Return the pairs ``(row, column)`` of the best assignment, each with ``iou >= min_iou``.

    Pairs below `min_iou` never push a valid pair aside.

    Examples
    --------
    >>> link_pair(np.array([[0.9, 0.2], [0.05, 0.0]]), 0.1)
    [(0, 0)]
    """
    if iou.size == 0:
        return []
    # Two empty masks of IoU 0 are no pair even where everything is allowed.
    valid = (iou >= min_iou) & (iou > 0)
    if not valid.any():
        return []
    rows, columns = linear_sum_assignment(np.where(valid, 1.0 - iou, 1.0))
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if valid[r, c]]


def link_frames(
    tables: Sequence[NDArray[Any]],
    min_iou: float = 0.1,
    overlaps: Sequence[NDArray[np.int64]] | None = None,
    came_from: Sequence[NDArray[Any]] | None = None,
) -> list[NDArray[np.int64]]:
    """Give every region of every frame the number of its cell.

    `tables` are the :func:`region_table` of each frame. Regions are linked from `min_iou`,
    intersection over union, on: that of masks where `overlaps`, the :func:`overlap_counts` of each
    frame with the one before, are given, else that of boxes, where they were in the frame before
    (`came_from`) if everything drifts. Numbers begin at 1; regions without a predecessor get new
    ones.

    Raises InputError: for more than 65535 cells.

    Examples
    --------
    >>> table = np.array([[1, 4, 0, 0, 2, 2]])
    >>> [ids.tolist() for ids in link_frames([table, table, np.zeros((0, 6), int), table])]
    [[1], [1], [], [2]]
    """
    numbers: list[NDArray[np.int64]] = []
    next_id = 1
    for frame, table in enumerate(tables):
        ids = np.zeros(len(table), np.int64)
        if frame:
            before = tables[frame - 1]
            iou = (
                bbox_iou(table if came_from is None else came_from[frame], before)
                if overlaps is None
                else mask_iou(table, before, overlaps[frame])
            )
            for row, column in link_pair(iou, min_iou):
                ids[row] = numbers[-1][column]
        new = np.flatnonzero(ids == 0)
        ids[new] = np.arange(next_id, next_id + len(new))
        next_id += len(new)
        numbers.append(ids)
    if next_id - 1 > _LARGEST_ID:
        raise InputError(
            f"tracking found {next_id - 1} cells, and cell numbers are 16-bit (at most "
            f"{_LARGEST_ID}). Raise min_object_size, lower min_iou, or process fewer frames"
        )
    return numbers


def link_iou(
    tables: Sequence[NDArray[Any]],
    min_iou: float = 0.1,
    overlaps: Sequence[NDArray[np.int64]] | None = None,
    came_from: Sequence[NDArray[Any]] | None = None,
    *,
    min_size: int = 1,
    max_size: int | None = None,
) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Link regions as :func:`link_frames` does, without those that are too small or too large.

    The bounds of the area, px, are inclusive; regions outside have the number 0. The lineage is
    empty, ``(0, 2)``, as parents are not known.

    Examples
    --------
    >>> table = np.array([[1, 4, 0, 0, 2, 2], [2, 900, 5, 5, 35, 35]])
    >>> [ids.tolist() for ids in link_iou([table, table], min_size=5)[0]]
    [[0, 1], [0, 1]]
    """
    most = np.inf if max_size is None else max_size
    inside = [(table[:, 1] >= min_size) & (table[:, 1] <= most) for table in tables]
    kept = [table[one] for table, one in zip(tables, inside, strict=True)]
    shared, moved = None, None
    if overlaps is not None:
        before = [kept[0][:0], *kept[:-1]]
        shared = [
            rows[np.isin(rows[:, 0], here[:, 0]) & np.isin(rows[:, 1], there[:, 0])]
            for rows, here, there in zip(overlaps, kept, before, strict=True)
        ]
    if came_from is not None:
        moved = [table[one] for table, one in zip(came_from, inside, strict=True)]
    numbers = [np.zeros(len(table), np.int64) for table in tables]
    for ids, one, found in zip(
        numbers, inside, link_frames(kept, min_iou, shared, moved), strict=True
    ):
        ids[one] = found
    return numbers, np.zeros((0, 2), np.int64)


def repaint(
    labels: NDArray[np.uint16], table: NDArray[np.int64], ids: NDArray[np.int64]
) -> NDArray[np.uint16]:
    """Return a frame of labels with the numbers of the cells.

    Examples
    --------
    >>> frame = np.array([[0, 1], [2, 2]], "uint16")
    >>> repaint(frame, region_table(frame), np.array([7, 5])).tolist()
    [[0, 7], [5, 5]]
    """
    numbers = np.zeros(int(labels.max(initial=0)) + 1, np.uint16)
    numbers[table[:, 0]] = ids
    return numbers[labels]
