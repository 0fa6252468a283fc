"""Sizes of the coarse-to-fine pyramid: integers and scale factors only, no images."""

from __future__ import annotations

from dataclasses import dataclass

from scopeflow.errors import InputError
from scopeflow.flow.parameters import FlowParameters

SMALLEST_FRAME = 10
"""Rows and columns that a frame needs at least, in pixels."""


@dataclass(frozen=True)
class Level:
    """One level of the pyramid.

    Attributes
    ----------
    index : int
        Number of scale steps from full resolution; 0 is full resolution.
    rows, cols : int
        Size in level pixels.
    h_row, h_col : float
        Full-resolution pixels per level pixel along rows and columns.
    alpha_scale : float
        Factor on the smoothness weights at this level.
    """

    index: int
    rows: int
    cols: int
    h_row: float
    h_col: float
    alpha_scale: float


def _depth(length: int, levels: int, eta: float) -> int:
    """Count scale steps until fewer than 10 px are left; the failing step counts as well."""
    size, depth = float(length), 0
    for _ in range(levels):
        depth += 1
        size *= eta
        if round(size) < SMALLEST_FRAME:
            break
    return depth


def pyramid_levels(shape: tuple[int, int], params: FlowParameters) -> tuple[Level, ...]:
    """Levels from the coarsest to the finest that is solved.

    A short axis stops shrinking while the long one continues, at most four times as deep.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the full-resolution frame.
    params : FlowParameters
        ``levels``, ``min_level`` and ``eta`` are used.

    Returns
    -------
    tuple of Level
        Coarsest first.

    Raises
    ------
    InputError
        When the frame is smaller than 10 × 10 px.

    Examples
    --------
    >>> from scopeflow.flow.parameters import FlowParameters
    >>> levels = pyramid_levels((512, 512), FlowParameters(min_level=4))
    >>> levels[0].rows, levels[-1].rows, levels[-1].index
    (9, 210, 4)
    """
    height, width = int(shape[0]), int(shape[1])
    if min(height, width) < SMALLEST_FRAME:
        raise InputError(
            f"Frames of {height} × {width} px were given, but motion needs at least "
            f"{SMALLEST_FRAME} × {SMALLEST_FRAME} px. Use larger frames."
        )
    deep_rows = _depth(height, params.levels, params.eta)
    deep_cols = _depth(width, params.levels, params.eta)
    cap = 4 * min(deep_rows, deep_cols)
    deep_rows, deep_cols = min(deep_rows, cap), min(deep_cols, cap)
    top = max(deep_rows, deep_cols)
    finest = max(top - 1 if top <= params.min_level else params.min_level, 0)
    levels = []
    for index in range(top, finest - 1, -1):
        rows = round(height * params.eta ** min(index, deep_rows))
        cols = round(width * params.eta ** min(index, deep_cols))
        scale = 1.0 if index == finest else params.eta ** (-0.5 * index)
        levels.append(Level(index, rows, cols, height / rows, width / cols, scale))
    return tuple(levels)


def motion_grid_shape(shape: tuple[int, int], params: FlowParameters) -> tuple[int, int]:
    """Rows and columns of the finest level, the grid that motion is solved and stored on.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the full-resolution frame.
    params : FlowParameters
        ``levels``, ``min_level`` and ``eta`` are used.

    Returns
    -------
    tuple of int
        ``(h, w)``.

    Examples
    --------
    >>> from scopeflow.flow.parameters import FlowParameters
    >>> motion_grid_shape((512, 512), FlowParameters(min_level=4))
    (210, 210)
    """
    finest = pyramid_levels(shape, params)[-1]
    return finest.rows, finest.cols
