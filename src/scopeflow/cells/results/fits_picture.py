"""One picture of fitted traces: points and curves of cells, by quality; reads no file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scopeflow._characters import visible

__all__ = ["FittedTrace", "quality", "save_fits_picture"]

_COLUMNS = 5
_MOST_PANELS = 20
_COLORS = {"good": "#1b7f4b", "fair": "#c77700", "poor": "#b3261e", "not fitted": "0.5"}


@dataclass(frozen=True)
class FittedTrace:
    """A trace and its fit.

    Times are in hours; without `success` there is no fit.
    """

    name: str
    time_h: NDArray[np.float64]
    values: NDArray[np.float64]
    fitted: NDArray[np.float64]
    success: bool
    r_squared: float


def quality(trace: FittedTrace) -> str:
    """Return the class of a fit: R² above 0.9 is good, above 0.7 fair, else it is poor.

    Examples
    --------
    >>> some = np.zeros(2)
    >>> quality(FittedTrace("cell 1", some, some, some, True, 0.8))
    'fair'
    """
    if not trace.success:
        return "not fitted"
    return "good" if trace.r_squared > 0.9 else "fair" if trace.r_squared > 0.7 else "poor"


def save_fits_picture(
    path: str | os.PathLike[str], traces: Sequence[FittedTrace], *, title: str, dpi: int = 110
) -> None:
    """Save points and curves of up to 20 cells as PNG, from the worst fit to the best.

    Of more than 20, ranks at equal distances are shown, with both extremes. The numbers of good,
    fair and poor fits follow the `title`.
    """
    ranked = sorted(traces, key=lambda one: (one.success, one.r_squared))
    places = np.unique(np.linspace(0, len(ranked) - 1, min(len(ranked), _MOST_PANELS)).round())
    shown = [ranked[int(n)] for n in places]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(
        figsize=(max(5.0, 2.7 * columns), 2.1 * rows + 0.8), layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    kinds = [quality(one) for one in ranked]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in _COLORS if kind in kinds)
    said = f"{visible(title)}\n{counts}; from the worst to the best"
    figure.suptitle(said, fontsize=11, parse_math=False)
    for n, trace in enumerate(shown):
        axis = figure.add_subplot(rows, columns, n + 1)
        kind = quality(trace)
        axis.plot(trace.time_h, trace.values, ".", ms=3, color="0.55")
        if trace.success:
            axis.plot(trace.time_h, trace.fitted, lw=1.4, color=_COLORS[kind])
        said = f"R² {trace.r_squared:.3f}" if trace.success else kind
        axis.set_title(f"{trace.name}: {said}", fontsize=8.5, loc="left", color=_COLORS[kind])
        axis.tick_params(labelsize=7)
        axis.yaxis.get_offset_text().set_fontsize(7)
        axis.spines[["top", "right"]].set_visible(False)
        if n >= len(shown) - columns:
            axis.set_xlabel("time (h)", fontsize=8)
    figure.savefig(path, dpi=dpi, format="png")
