"""OME-NGFF 0.5 metadata of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scopeflow.io.metadata import VideoMetadata


def ngff_attributes(
    name: str, path: str, metadata: VideoMetadata, display_ranges: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """Return the OME-NGFF 0.5 attributes of a group that holds a recording.

    ``path`` names its array in the group. Sizes are 1 without unit where unknown.
    ``display_ranges`` are the intensities ``(low, high)`` that viewers show as black and white, for
    each channel.
    """
    y, x = metadata.pixel_size_um or (1.0, 1.0)
    time_axis: dict[str, str] = {"name": "t", "type": "time"}
    if metadata.frame_interval_s:
        time_axis["unit"] = "second"
    space = {"unit": "micrometer"} if metadata.pixel_size_um else {}
    axes = [
        time_axis,
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space", **space},
        {"name": "x", "type": "space", **space},
    ]
    transform = {"type": "scale", "scale": [metadata.frame_interval_s or 1.0, 1.0, y, x]}
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [
            {
                "name": name,
                "axes": axes,
                "datasets": [{"path": path, "coordinateTransformations": [transform]}],
            }
        ],
    }
    names = metadata.channel_names or [f"channel {n + 1}" for n in range(len(display_ranges))]
    ome["omero"] = {
        "channels": [
            {
                "label": label,
                "color": color,
                "active": True,
                "window": {"min": low, "max": high, "start": low, "end": high},
            }
            for label, color, (low, high) in zip(
                names, _channel_colors(len(names)), display_ranges, strict=True
            )
        ]
    }
    return {"ome": ome}


def motion_attributes(
    name: str,
    path: str,
    frame_shape: tuple[int, int],
    grid_shape: tuple[int, int],
    metadata: VideoMetadata,
) -> dict[str, Any]:
    """Return the OME-NGFF attributes of a group that holds displacements only.

    The array is an NGFF 0.5 image whose scale and translation lay the solver's grid ``(h, w)`` over
    the frames ``(H, W)``; sizes are pixels where unknown. How it moves points is said in the words
    of the NGFF coordinate transformations (0.6): a field of displacements, in pixels, ``u`` (x)
    before ``v`` (y), from the registered to the raw frames. Version 0.6 itself has no fields that
    change with time; `components` says which axes the two values move along.
    """
    sizes = metadata.pixel_size_um or (1.0, 1.0)
    space = {"unit": "micrometer"} if metadata.pixel_size_um else {}
    time = {
        "name": "t",
        "type": "time",
        **({"unit": "second"} if metadata.frame_interval_s else {}),
    }
    plane = [{"name": axis, "type": "space", **space} for axis in ("y", "x")]
    steps = [frame / grid for frame, grid in zip(frame_shape, grid_shape, strict=True)]
    interval = metadata.frame_interval_s or 1.0
    scale = [interval, 1.0, *(step * size for step, size in zip(steps, sizes, strict=True))]
    # The first point of the grid is the centre of its first cell.
    offset = [0.0, 0.0, *((step - 1) / 2 * size for step, size in zip(steps, sizes, strict=True))]
    pixels = [time, {"name": "y", "type": "array"}, {"name": "x", "type": "array"}]
    return {
        "ome": {
            "version": "0.5",
            "multiscales": [
                {
                    "name": name,
                    "axes": [time, {"name": "component", "type": "channel"}, *plane],
                    "datasets": [
                        {
                            "path": path,
                            "coordinateTransformations": [
                                {"type": "scale", "scale": scale},
                                {"type": "translation", "translation": offset},
                            ],
                        }
                    ],
                }
            ],
            "coordinateSystems": [
                {"name": "registered", "axes": pixels},
                {"name": "raw", "axes": pixels},
            ],
            "coordinateTransformations": [
                {
                    "type": "displacements",
                    "path": path,
                    "input": {"name": "registered"},
                    "output": {"name": "raw"},
                    "interpolation": "cubic",
                    "components": ["x", "y"],
                }
            ],
        }
    }


def _channel_colors(count: int) -> Sequence[str]:
    if count == 1:
        return ("FFFFFF",)
    wheel = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")
    return [wheel[i % len(wheel)] for i in range(count)]
