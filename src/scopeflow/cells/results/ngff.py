"""Stacks of one field of view as an OME-NGFF 0.5 image with labels; knows no run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from scopeflow.cells.methods.display import halve_mean, halve_sample
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.zarr.ngff import ngff_attributes

__all__ = ["sampled_range", "write_image"]

_SMALLEST = 256
_LARGEST_CHUNK = 1024
_LOOKED_AT = 5


def write_image(
    folder: Path,
    name: str,
    channels: Sequence[Any],
    metadata: VideoMetadata,
    labels: Mapping[str, Any],
    *,
    grey_first: bool = False,
) -> None:
    """Write an image pyramid and its labels, frame by frame.

    Levels are halved until both sides are at most 256 px: means of 2 × 2 pixels for the image, the
    upper left one of them for labels, so that no number is invented.

    The `folder` is empty before. `channels` and `labels` are arrays of the same shape ``(T, H,
    W)``.
    """
    shape, dtype = tuple(channels[0].shape), np.dtype(channels[0].dtype)
    ranges = [sampled_range(one) for one in channels]
    root = zarr.open_group(str(folder), mode="a", zarr_format=3)
    sides = _levels(*shape[1:])
    attributes = ngff_attributes(name, "0", metadata, ranges)
    if grey_first:
        attributes["ome"]["omero"]["channels"][0]["color"] = "FFFFFF"
    scale = attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]
    pyramid = _datasets(scale["scale"], len(sides))
    axes = attributes["ome"]["multiscales"][0]["axes"]
    attributes["ome"]["multiscales"][0]["datasets"] = pyramid
    attributes["ome"]["multiscales"][0]["type"] = "mean"
    root.attrs.update(attributes)
    arrays = _create(root, (shape[0], len(channels)), sides, dtype, "tcyx")
    for t in range(shape[0]):
        for c, one in enumerate(channels):
            for level, plane in enumerate(_pyramid(np.asarray(one[t]), len(sides), mean=True)):
                arrays[level][t, c] = plane
    if not labels:
        return
    group = root.create_group(
        "labels", attributes={"ome": {"version": "0.5", "labels": sorted(labels)}}
    )
    for label, stack in sorted(labels.items()):
        multiscale = {
            "name": label,
            "type": "sample",
            "axes": [axis for axis in axes if axis["type"] != "channel"],
            "datasets": _datasets([n for i, n in enumerate(scale["scale"]) if i != 1], len(sides)),
        }
        facts = {
            "version": "0.5",
            "multiscales": [multiscale],
            "image-label": {"source": {"image": "../../"}},
        }
        child = group.create_group(label, attributes={"ome": facts})
        arrays = _create(child, shape[:1], sides, np.dtype(stack.dtype), "tyx")
        for t in range(shape[0]):
            for level, plane in enumerate(_pyramid(np.asarray(stack[t]), len(sides), mean=False)):
                arrays[level][t] = plane


def _levels(height: int, width: int) -> list[tuple[int, int]]:
    """Return the sides of all levels.

    Examples
    --------
    >>> _levels(1000, 600)
    [(1000, 600), (500, 300), (250, 150)]
    """
    sides = [(height, width)]
    while max(sides[-1]) > _SMALLEST and min(sides[-1]) > 1:
        sides.append((sides[-1][0] // 2, sides[-1][1] // 2))
    return sides


def _datasets(scale: Sequence[float], count: int) -> list[dict[str, Any]]:
    made = []
    for level in range(count):
        factor = 2**level
        # A pixel of a lower level covers factor² pixels: its centre lies between theirs.
        shift = (factor - 1) / 2
        still = [0.0] * (len(scale) - 2)
        made.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*scale[:-2], *(n * factor for n in scale[-2:])]},
                    {
                        "type": "translation",
                        "translation": [*still, *(n * shift for n in scale[-2:])],
                    },
                ],
            }
        )
    return made


def _create(
    group: Any,
    leading: tuple[int, ...],
    sides: list[tuple[int, int]],
    dtype: np.dtype[Any],
    names: str,
) -> list[Any]:
    return [
        group.create_array(
            str(level),
            shape=(*leading, *side),
            chunks=(*(1 for _ in leading), *(min(_LARGEST_CHUNK, n) for n in side)),
            dtype=dtype,
            dimension_names=tuple(names),
        )
        for level, side in enumerate(sides)
    ]


def _pyramid(plane: NDArray[Any], count: int, *, mean: bool) -> list[NDArray[Any]]:
    planes = [plane]
    for _ in range(count - 1):
        last = planes[-1]
        smaller = np.rint(halve_mean(last)).astype(plane.dtype) if mean else halve_sample(last)
        planes.append(smaller)
    return planes


def sampled_range(stack: Any) -> tuple[float, float]:
    """Return the 1st and 99.8th percentile of five frames, for display; never equal.

    Examples
    --------
    >>> sampled_range(np.zeros((2, 4, 4)))
    (0.0, 1.0)
    """
    frames = np.unique(np.linspace(0, stack.shape[0] - 1, _LOOKED_AT).astype(int))
    pixels = np.stack([np.asarray(stack[int(t)]) for t in frames])
    low, high = (round(float(one), 3) for one in np.percentile(pixels, (1, 99.8)))
    return low, high if high > low else low + 1
