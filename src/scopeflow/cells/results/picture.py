"""One picture of a field of view: cells with their numbers, and their traces; reads no file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import find_objects, maximum_filter, minimum_filter

from scopeflow._characters import visible
from scopeflow.report.pictures import draw_scale_bar

__all__ = ["save_cells_picture", "trace_columns"]

_SHOWN_PERCENTILES = (0.5, 99.5)
_MOST_PANELS = 3
_MOST_NUMBERS = 400
_LEFT_OUT = (0.62, 0.62, 0.62)


def _color(cell: int) -> NDArray[np.float64]:
    # The golden angle keeps the colours of neighbouring numbers apart.
    return np.asarray(hsv_to_rgb(((cell * 0.61803398875) % 1.0, 0.75, 1.0)), np.float64)


def trace_columns(columns: Sequence[str]) -> list[str]:
    """Return the features to draw: fluorescence before shape, totals before the others.

    Examples
    --------
    >>> trace_columns(["frame", "area_ch_0", "intensity_mean_ch_1", "intensity_total_ch_1"])
    ['intensity_total_ch_1']
    """
    for pattern in (
        r"intensity_total_ch_\d+",
        r"intensity_.*_ch_\d+",
        r"area_ch_\d+",
        r".*_ch_\d+",
    ):
        found = [name for name in columns if re.fullmatch(pattern, name)]
        if found:
            return found[:_MOST_PANELS]
    return []


def save_cells_picture(
    path: str | os.PathLike[str],
    image: NDArray[Any],
    labels: NDArray[np.integer] | None,
    traces: pd.DataFrame,
    *,
    title: str,
    frame: int,
    cells_in_frame: NDArray[np.integer] | None = None,
    times: NDArray[np.float64] | None = None,
    pixel_size_um: float | None = None,
    dpi: int = 130,
) -> None:
    """Save a frame with the outlines and numbers of its cells beside their traces, as PNG.

    Cells that are in the traces are coloured as their curves; those that filters left out are grey.

    `traces` have ``cell, frame, time`` (minutes) and features, and `frame` is marked in them;
    `cells_in_frame` is how many cells were followed in each frame, `times` are minutes. With
    `pixel_size_um` there is a scale bar.
    """
    height, width = image.shape
    columns = trace_columns(list(traces.columns)) if len(traces) else []
    panels = len(columns) + (cells_in_frame is not None)
    picture_width = 7.5
    picture_height = float(np.clip(picture_width * height / width, 3.0, 10.0))
    figure = Figure(
        figsize=(picture_width + (5.5 if panels else 0.2), max(picture_height, 1.9 * panels) + 0.6),
        layout="constrained",
        facecolor="white",
    )
    FigureCanvasAgg(figure)
    # A name with dollars is no formula.
    figure.suptitle(visible(title), fontsize=12, fontweight="bold", parse_math=False)
    grid = figure.add_gridspec(
        max(1, panels), 2 if panels else 1, width_ratios=[1.5, 1][: 1 + bool(panels)]
    )
    axis = figure.add_subplot(grid[:, 0])
    kept = set(traces["cell"].unique().tolist()) if len(traces) else set()
    axis.imshow(_overlay(image, labels, kept), interpolation="nearest")
    if labels is not None:
        _draw_numbers(axis, labels, kept)
    if pixel_size_um:
        draw_scale_bar(axis, height, width, pixel_size_um)
    axis.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    left_out = labels is not None and bool(set(np.unique(labels).tolist()) - kept - {0})
    note = "; grey: left out of the traces" if left_out else ""
    axis.set_xlabel(f"frame {frame}{note}", fontsize=9)
    hours = _in_hours(times)
    axes = [figure.add_subplot(grid[n, 1]) for n in range(panels)]
    for panel, name in zip(axes, columns, strict=False):
        for cell in sorted(kept):
            rows = traces[traces["cell"] == cell]
            shown = rows["time"] / 60.0 if hours else rows["time"]
            # White paper needs darker colours than the picture.
            panel.plot(shown, rows[name], lw=0.9, alpha=0.8, color=_color(cell) * 0.8)
        panel.set_title(f"{name}{_unit(name)}", fontsize=9.5, loc="left", parse_math=False)
    if cells_in_frame is not None:
        steps = np.arange(len(cells_in_frame)) if times is None else times
        axes[-1].step(steps / 60.0 if hours else steps, cells_in_frame, where="mid", color="0.25")
        axes[-1].set_title("cells followed in each frame", fontsize=9.5, loc="left")
        axes[-1].set_ylim(0, max(1.0, 1.15 * float(np.max(cells_in_frame, initial=0))))
    for panel in axes:
        if times is not None and frame < len(times):
            panel.axvline(times[frame] / (60.0 if hours else 1.0), color="0.7", lw=0.8, ls="--")
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    if axes:
        axes[-1].set_xlabel("time (h)" if hours else "time (min)", fontsize=9)
    figure.savefig(path, dpi=dpi, format="png")


def _unit(column: str) -> str:
    if column.startswith("intensity_"):
        return " (counts)"
    return " (px²)" if column.startswith("area_ch_") else ""


def _in_hours(times: NDArray[np.float64] | None) -> bool:
    return times is not None and len(times) > 0 and float(np.nanmax(times)) > 180.0


def _overlay(
    image: NDArray[Any], labels: NDArray[np.integer] | None, kept: set[int]
) -> NDArray[np.float64]:
    """Grey image with coloured outlines."""
    low, high = np.percentile(image, _SHOWN_PERCENTILES)
    grey = np.clip((image - low) / max(float(high - low), 1e-9), 0.0, 1.0)
    shown = np.repeat(grey[..., None], 3, axis=2)
    if labels is None or not labels.any():
        return shown
    # Wide enough to be seen when a large frame is drawn small.
    size = 2 * max(1, max(image.shape) // 700) + 1
    outline = (labels > 0) & (minimum_filter(labels, size) != maximum_filter(labels, size))
    numbers = np.unique(labels[outline])
    table = np.zeros((int(labels.max()) + 1, 3))
    for cell in numbers.tolist():
        table[cell] = _color(cell) if cell in kept else _LEFT_OUT
    shown[outline] = table[labels[outline]]
    return shown


def _draw_numbers(axis: Any, labels: NDArray[np.integer], kept: set[int]) -> None:
    boxes = find_objects(np.asarray(labels, np.int32))
    found = [(n, box) for n, box in enumerate(boxes, start=1) if box is not None]
    if len(found) > _MOST_NUMBERS:
        found = [(n, box) for n, box in found if n in kept][:_MOST_NUMBERS]
    for cell, (rows, places) in found:
        # Beside the cell, which may be smaller than its number.
        below = rows.start < 0.03 * labels.shape[0]
        axis.text(
            (places.start + places.stop - 1) / 2,
            rows.stop if below else rows.start - 1,
            str(cell),
            color=_color(cell) if cell in kept else _LEFT_OUT,
            ha="center",
            va="top" if below else "bottom",
            clip_on=True,
            fontsize=8 if len(found) < 100 else 5.5,
            fontweight="bold",
            path_effects=[withStroke(linewidth=1.6, foreground="black")],
        )
