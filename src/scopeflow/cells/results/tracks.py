"""Tracks of cells as a graph: nodes are cells in frames; reads and writes no file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["TrackGraph", "track_graph"]


@dataclass(frozen=True)
class TrackGraph:
    """Nodes and edges.

    `nodes` have ``t, y, x, cell, tracklet, lineage``, sorted by cell and frame; positions are
    centres of boxes in pixels, where whole numbers are centres of pixels. `edges` are rows of
    `nodes`, earlier and later, ``(M, 2)``.
    """

    nodes: pd.DataFrame
    edges: NDArray[np.int64]


def track_graph(regions: pd.DataFrame, lineage: pd.DataFrame) -> TrackGraph:
    """Return the graph of the tracks of one field of view.

    `regions` have ``cell, frame, bbox_y0, bbox_x0, bbox_y1, bbox_x1``, `lineage` has ``cell,
    parent``, 0 where it is not known. A tracklet is a path without branches: a cell, or a cell with
    its only daughter. A lineage is all that is connected. Both have the number of their first cell.

    Examples
    --------
    >>> boxes = {"bbox_y0": 0, "bbox_x0": 2, "bbox_y1": 4, "bbox_x1": 5}
    >>> regions = pd.DataFrame({"cell": [1, 1, 2], "frame": [0, 2, 3]}).assign(**boxes)
    >>> graph = track_graph(regions, pd.DataFrame({"cell": [1, 2], "parent": [0, 1]}))
    >>> graph.edges.tolist(), graph.nodes.loc[2, ["y", "x", "tracklet"]].tolist()
    ([[0, 1], [1, 2]], [1.5, 3.0, 1.0])
    """
    rows = regions.sort_values(["cell", "frame"], ignore_index=True)
    cells = rows["cell"].to_numpy(np.int64)
    same = np.flatnonzero(cells[1:] == cells[:-1]) if len(cells) else np.zeros(0, np.int64)
    edges = [np.stack([same, same + 1], axis=1)]
    starts = dict(zip(*np.unique(cells, return_index=True), strict=True))
    ends = {cell: start + n - 1 for cell, start, n in _runs(cells)}
    parents = dict(zip(lineage["cell"].tolist(), lineage["parent"].tolist(), strict=True))
    # A parent that has no rows, such as one without crops, is no node.
    parents = {c: p for c, p in parents.items() if p and c in starts and p in starts}
    daughters: dict[int, int] = {}
    for parent in parents.values():
        daughters[parent] = daughters.get(parent, 0) + 1
    links = [(ends[parent], starts[cell]) for cell, parent in sorted(parents.items())]
    edges.append(np.array(links, np.int64).reshape(-1, 2))
    tracklet: dict[int, int] = {}
    root: dict[int, int] = {}
    # Parents are seen before their daughters.
    for cell in sorted(starts, key=lambda c: int(rows["frame"].iloc[starts[c]])):
        parent = parents.get(cell, 0)
        root[cell] = root[parent] if parent else cell
        tracklet[cell] = tracklet[parent] if parent and daughters[parent] == 1 else cell
    nodes = pd.DataFrame(
        {
            "t": rows["frame"].to_numpy(np.int64),
            "y": (rows["bbox_y0"] + rows["bbox_y1"]).to_numpy(np.float64) / 2 - 0.5,
            "x": (rows["bbox_x0"] + rows["bbox_x1"]).to_numpy(np.float64) / 2 - 0.5,
            "cell": cells,
            "tracklet": np.array([tracklet[c] for c in cells.tolist()], np.int64),
            "lineage": np.array([root[c] for c in cells.tolist()], np.int64),
        }
    )
    return TrackGraph(nodes, np.concatenate(edges).astype(np.int64))


def _runs(cells: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    found, first, counts = np.unique(cells, return_index=True, return_counts=True)
    return list(zip(found.tolist(), first.tolist(), counts.tolist(), strict=True))
