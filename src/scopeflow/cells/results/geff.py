"""Graphs of tracks in the Graph Exchange File Format (GEFF 1.3); knows no run and no cell.

Written to the published specification (live-image-tracking-tools/geff, MIT), with zarr alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from scopeflow.errors import InputError

__all__ = ["Axis", "Property", "write_geff"]

GEFF_VERSION = "1.3"


@dataclass(frozen=True)
class Property:
    """Values of all nodes.

    `missing` are nodes without a value.
    """

    values: NDArray[Any]
    unit: str | None = None
    missing: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Axis:
    """A property that is a place or a time.

    `kind` is ``time`` or ``space``, `unit` is ``frame``, ``pixel`` or a unit of OME-NGFF; `scale`
    is the factor to the `scaled_unit`.
    """

    name: str
    kind: str
    unit: str
    scale: float | None = None
    scaled_unit: str | None = None


def write_geff(
    folder: Path,
    nodes: Mapping[str, Property],
    edges: NDArray[np.integer],
    axes: Sequence[Axis],
    *,
    track_props: Mapping[str, str] | None = None,
    related: Sequence[Mapping[str, str]] = (),
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a directed graph; nodes are numbered from 0 in their order.

    The `folder` is empty before. `edges` are from, to, ``(M, 2)``; `axes` are the properties that
    are places and times, `track_props` those that hold the ``tracklet`` and ``lineage`` of a node.
    `related` has ``type``, ``path`` and ``node_prop`` of images and labels.

    Raises InputError: if properties differ in length, or an edge leads to a node that does not
        exist.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> t = Property(np.array([0, 1]))
    >>> write_geff(folder, {"t": t}, np.array([[0, 1]]), [Axis("t", "time", "frame")])
    >>> zarr.open_group(folder, mode="r")["edges/ids"][:].tolist()
    [[0, 1]]
    """
    count = len(next(iter(nodes.values())).values)
    lengths = {name: len(one.values) for name, one in nodes.items()}
    if set(lengths.values()) != {count}:
        raise InputError(f"properties of nodes differ in length: {lengths}")
    edges = np.asarray(edges, np.int64).reshape(-1, 2)
    if edges.size and (edges.min() < 0 or edges.max() >= count):
        raise InputError(f"edges name nodes {edges.min()} to {edges.max()}; there are {count}")
    root = zarr.open_group(str(folder), mode="a", zarr_format=3)
    _array(root, "nodes/ids", np.arange(count, dtype=np.uint64))
    root.require_group("nodes/props")
    for name, one in nodes.items():
        _array(root, f"nodes/props/{name}/values", one.values)
        if one.missing is not None:
            _array(root, f"nodes/props/{name}/missing", one.missing)
    _array(root, "edges/ids", edges.astype(np.uint64))
    root.require_group("edges/props")
    root.attrs["geff"] = {
        "geff_version": GEFF_VERSION,
        "directed": True,
        "axes": [_axis(axis, nodes[axis.name].values) for axis in axes],
        "node_props_metadata": {
            name: {
                "identifier": name,
                "dtype": str(one.values.dtype),
                "varlength": False,
                **({} if one.unit is None else {"unit": one.unit}),
            }
            for name, one in nodes.items()
        },
        "edge_props_metadata": {},
        "track_node_props": dict(track_props) if track_props else None,
        "related_objects": [dict(one) for one in related] or None,
        "display_hints": None,
        "extra": dict(extra or {}),
    }


def _axis(axis: Axis, values: NDArray[Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"name": axis.name, "type": axis.kind, "unit": axis.unit}
    if len(values):
        described |= {"min": float(values.min()), "max": float(values.max())}
    if axis.scale is not None:
        described |= {"scale": axis.scale, "scaled_unit": axis.scaled_unit}
    return described


def _array(root: Any, name: str, values: NDArray[Any]) -> None:
    shape = tuple(max(1, n) for n in values.shape)
    array = root.create_array(name, shape=values.shape, dtype=values.dtype, chunks=shape)
    if values.size:
        array[...] = values
