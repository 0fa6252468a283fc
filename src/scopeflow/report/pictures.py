"""Pictures of a result for people: mean images before and after, as PNG, PDF or SVG files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from scopeflow.errors import InputError
from scopeflow.report.metrics import crispness

_HIGHLIGHT = "#ffb000"
_SHOWN_PERCENTILES = (0.5, 99.5)
_BAR_LENGTHS_UM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def save_before_after(
    path: str | os.PathLike[str],
    raw_mean: ArrayLike,
    corrected_mean: ArrayLike,
    *,
    title: str = "Mean image before and after motion correction",
    caption: str = "",
    pixel_size_um: float | None = None,
    border: int = 0,
    zoom: bool = True,
    dpi: int = 150,
) -> Path:
    """Save the mean image before and after correction side by side, with an enlarged detail.

    Both are shown in grey with one intensity range. Their crispness, see
    `scopeflow.report.metrics.crispness`, stands above each. The detail is the square in which
    sharpness changed most.

    `path`: file to write; its suffix (.png, .pdf, .svg) decides the format. Its folder is made.
    `raw_mean`, `corrected_mean`: ``(H, W)`` or ``(H, W, 1)``, mean images on the same intensity
        scale; one channel.
    `caption`: line below the pictures, for numbers such as correlations.
    `pixel_size_um`: pixel size in micrometres; draws a scale bar.
    `border`: pixels left out along each edge when crispness is measured; they are shown all the
        same.
    Raises InputError: images of different shapes, of more than one channel or not finite, or a
        pixel size that is not positive.

    Examples
    --------
    >>> import tempfile
    >>> image = np.random.default_rng(0).random((64, 64))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_before_after(f"{folder}/picture.png", image, image).name
    'picture.png'
    """
    before, after = _plane(raw_mean, "raw_mean"), _plane(corrected_mean, "corrected_mean")
    if before.shape != after.shape:
        raise InputError(
            f"Images of {before.shape} and {after.shape} pixels: both need the same shape."
        )
    if pixel_size_um is not None and not pixel_size_um > 0:
        raise InputError(f"pixel_size_um={pixel_size_um}: a positive size is needed, or None.")
    low, high = np.percentile(np.stack([before, after]), _SHOWN_PERCENTILES)
    crisp = [crispness(image, border=border) for image in (before, after)]
    gain = f" ({100 * (crisp[1] / crisp[0] - 1):+.0f} %)" if crisp[0] > 0 else ""

    height, width = before.shape
    figure, axes = _panels(height, width, zoom=zoom)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    # Clipped as shown, or one saturated cell would always win.
    shown_range = [np.clip(image, low, high) for image in (before, after)]
    detail = _sharpest_change(*shown_range) if zoom else None
    headings = (
        f"Before: crispness {_readable(crisp[0])}",
        f"After: crispness {_readable(crisp[1])}{gain}",
    )
    grey: dict[str, Any] = {"cmap": "gray", "vmin": low, "vmax": high}
    for column, image in enumerate((before, after)):
        axis = axes[0, column]
        picture = axis.imshow(image, interpolation="nearest", **grey)
        axis.set_title(headings[column], fontsize=10.5)
        if pixel_size_um is not None:
            draw_scale_bar(axis, height, width, pixel_size_um)
        if detail is not None:
            _draw_detail(axis, axes[1, column], image, detail, grey)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    bar = figure.colorbar(picture, ax=axes, shrink=0.6, aspect=40, pad=0.015)
    bar.set_label("mean intensity", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    if caption:
        figure.supxlabel(caption, fontsize=9.5, color="0.25")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=dpi)
    return target


def _panels(height: int, width: int, *, zoom: bool) -> tuple[Figure, NDArray[Any]]:
    """Make a figure of two columns: whole images, and below them a detail of each."""
    panel_width = 4.2
    panel_height = float(np.clip(panel_width * height / width, 1.5, 9.0))
    rows = 2 if zoom else 1
    figure = Figure(
        figsize=(2 * panel_width + 1.1, panel_height + (rows - 1) * panel_width + 1.0),
        layout="constrained",
        facecolor="white",
    )
    FigureCanvasAgg(figure)
    ratios = [panel_height, panel_width][:rows]
    return figure, figure.subplots(rows, 2, squeeze=False, height_ratios=ratios)


def _draw_detail(
    axis: Any,
    enlarged: Any,
    image: NDArray[np.float64],
    detail: tuple[int, int, int],
    grey: dict[str, Any],
) -> None:
    top, left, size = detail
    corner = (left - 0.5, top - 0.5)
    axis.add_patch(Rectangle(corner, size, size, fill=False, ec=_HIGHLIGHT, lw=1.3))
    # Bicubic display: what is compared is structure, not the pixel grid.
    part = image[top : top + size, left : left + size]
    enlarged.imshow(part, interpolation="bicubic", **grey)
    for spine in enlarged.spines.values():
        spine.set(color=_HIGHLIGHT, linewidth=1.6)


def _plane(image: ArrayLike, name: str) -> NDArray[np.float64]:
    values = np.asarray(image, np.float64)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or min(values.shape) < 2:
        raise InputError(
            f"{name} has shape {values.shape}: one channel of at least 2 × 2 pixels is needed. "
            "Select one, such as image[..., 0]."
        )
    if not np.isfinite(values).all():
        raise InputError(f"{name} holds NaN or infinite values: replace them before drawing.")
    return values


def _sharpest_change(
    before: NDArray[np.float64], after: NDArray[np.float64]
) -> tuple[int, int, int]:
    """Top, left and side of the square whose sharpness changed most."""
    height, width = before.shape
    size = max(2, min(height, width) // 4)
    change = sum(
        sign * (np.square(np.gradient(image)).sum(axis=0))
        for sign, image in ((1.0, after), (-1.0, before))
    )
    margin = min(height, width) // 16  # moved frames are least certain at the edge
    table = np.pad(np.cumsum(np.cumsum(change, axis=0), axis=1), ((1, 0), (1, 0)))
    sums = table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]
    inner = sums[margin : sums.shape[0] - margin, margin : sums.shape[1] - margin]
    row, column = np.unravel_index(int(np.abs(inner).argmax()), inner.shape)
    return int(row) + margin, int(column) + margin, size


def _readable(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def draw_scale_bar(axis: Any, height: int, width: int, pixel_size_um: float) -> None:
    """Draw a bar of a round length, µm, into the lower left of an image of this size."""
    wanted = 0.25 * width * pixel_size_um
    length_um = max((bar for bar in _BAR_LENGTHS_UM if bar <= wanted), default=_BAR_LENGTHS_UM[0])
    length = length_um / pixel_size_um
    thickness = max(1.0, 0.012 * height)
    left, top = 0.05 * width, height - 0.05 * height - thickness
    axis.add_patch(Rectangle((left, top), length, thickness, color="white", ec="black", lw=0.4))
    axis.text(
        left + length / 2,
        top - 0.01 * height,
        f"{length_um} µm",
        color="white",
        ha="center",
        va="bottom",
        fontsize=9,
    )
