"""Cells through time by LapTrack, with gaps and divisions, where that package is installed.

Fukai and Kawaguchi, *Bioinformatics* 2023, doi 10.1093/bioinformatics/btac799 (BSD-3), after
Jaqaman et al., *Nature Methods* 2008, doi 10.1038/nmeth.1237.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError, OptionsError
from scopeflow.strict.values import shortened

__all__ = ["link_laptrack"]

_LARGEST_ID = 65535


def link_laptrack(
    tables: Sequence[NDArray[Any]],
    min_iou: float = 0.1,
    overlaps: Sequence[NDArray[np.int64]] | None = None,
    came_from: Sequence[NDArray[Any]] | None = None,
    *,
    max_gap: int = 2,
    splits: bool = True,
    split_min_iou: float = 0.2,
) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Give every region of every frame the number of its cell, over gaps and divisions.

    The cost of a link is 1 − IoU. Frame after frame is linked first, then ends of tracks to starts
    of others: after a gap, or at a division, where both daughters get numbers of their own.

    `tables`: ``(N, 6)``, regions of each frame, see
        :func:`~scopeflow.cells.methods.tracking.region_table`; boxes may be moved to common
        coordinates.
    `min_iou`: regions are linked from this intersection over union on.
    `overlaps`: ``(M, 3)``, shared pixels of each frame with the one before; then masks are
        compared, not boxes, where no frame lies between.
    `came_from`: ``(N, 6)``, the tables with boxes where they were in the frame before, if
        everything drifts.
    `max_gap`: frames in which a cell may be missing.
    `split_min_iou`: least IoU of a daughter with its parent.
    Returns `ids`: ``(N,)`` int64, numbers from 1 in the order of appearance.
    Returns `lineage`: ``(K, 2)`` int64, ``cell, parent`` of each daughter.
    Raises OptionsError: for options out of bounds.
    Raises InputError: for more than 65535 cells.
    """
    from laptrack import LapTrack

    if isinstance(max_gap, bool) or not isinstance(max_gap, int) or max_gap < 0:
        raise OptionsError(
            f"params.tracking_options: max_gap={shortened(max_gap)}; 0 or more is needed"
        )
    if not 0 <= split_min_iou <= 1:
        raise OptionsError(
            f"params.tracking_options: split_min_iou={shortened(split_min_iou)}; 0 to 1 is needed"
        )
    if sum(map(len, tables)) == 0:
        return [np.zeros(0, np.int64) for _ in tables], np.zeros((0, 2), np.int64)
    metric = _Cost(overlaps)
    # A cutoff is exclusive; regions that share nothing are never linked.
    cutoff = min(np.nextafter(1.0 - min_iou, 2.0), np.nextafter(1.0, 0.0))
    tracker = LapTrack(
        metric=metric,
        cutoff=cutoff,
        gap_closing_metric=metric,
        gap_closing_cutoff=cutoff if max_gap else False,
        gap_closing_max_frame_count=max_gap + 1,
        splitting_metric=metric,
        splitting_cutoff=min(np.nextafter(1.0 - split_min_iou, 2.0), cutoff) if splits else False,
        # An allowed link is always better than none, as in the default method; otherwise the
        # answer would depend on percentiles of all costs, and on how many there are.
        track_start_cost=1.0,
        track_end_cost=1.0,
        segment_start_cost=1.0,
        segment_end_cost=1.0,
        no_splitting_cost=1.0,
    )
    coordinates = [
        np.column_stack([np.full(len(table), t), table, back[:, 2:]]).astype(np.float64)
        for t, (table, back) in enumerate(zip(tables, came_from or tables, strict=True))
    ]
    first = next(t for t, table in enumerate(tables) if len(table))
    last = max(t for t, table in enumerate(tables) if len(table))
    graph = tracker.predict(coordinates[first : last + 1])
    after: dict[tuple[int, int], list[tuple[int, int]]] = {}
    before: dict[tuple[int, int], tuple[int, int]] = {}
    for (t, n), (later, m) in graph.edges:
        after.setdefault((int(t) + first, int(n)), []).append((int(later) + first, int(m)))
        before[int(later) + first, int(m)] = (int(t) + first, int(n))
    return _number(tables, after, before)


def _number(
    tables: Sequence[NDArray[Any]],
    after: dict[tuple[int, int], list[tuple[int, int]]],
    before: dict[tuple[int, int], tuple[int, int]],
) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    ids = [np.zeros(len(table), np.int64) for table in tables]
    lineage, cells = [], 0
    for t, table in enumerate(tables):
        for n in range(len(table)):
            parent = before.get((t, n))
            if parent is not None and len(after[parent]) == 1:
                ids[t][n] = ids[parent[0]][parent[1]]
                continue
            cells += 1
            ids[t][n] = cells
            if parent is not None:
                lineage.append((cells, int(ids[parent[0]][parent[1]])))
    if cells > _LARGEST_ID:
        raise InputError(
            f"tracking found {cells} cells, and cell numbers are 16-bit (at most {_LARGEST_ID}). "
            "Raise min_object_size, lower min_iou, or process fewer frames"
        )
    return ids, np.array(lineage, np.int64).reshape(-1, 2)


class _Cost:
    """1 − IoU of two rows ``frame, label, area, box, box as it was in the frame before``."""

    def __init__(self, overlaps: Sequence[NDArray[np.int64]] | None) -> None:
        self.shared: dict[tuple[int, int, int], int] | None = None
        if overlaps is not None:
            self.shared = {
                (t, int(label), int(previous)): int(pixels)
                for t, table in enumerate(overlaps)
                for label, previous, pixels in table
            }

    def __call__(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        if a[0] > b[0]:
            a, b = b, a
        if self.shared is not None and b[0] - a[0] == 1:
            shared = self.shared.get((int(b[0]), int(b[1]), int(a[1])), 0)
            return float(1.0 - shared / (a[2] + b[2] - shared))
        (y0, x0, y1, x1), (v0, u0, v1, u1) = a[3:7].tolist(), b[7:11].tolist()
        height, width = min(y1, v1) - max(y0, v0), min(x1, u1) - max(x0, u0)
        if height <= 0 or width <= 0:
            return 1.0
        inner = height * width
        return 1.0 - inner / ((y1 - y0) * (x1 - x0) + (v1 - v0) * (u1 - u0) - inner)
