"""Seconds a frame of the cell numerics on one 2048 × 2048 frame with 100 cells, one core.

Run: python benchmarks/cells.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from scopeflow.kernels.cells_background import (
    fill_tiles,
    foreground,
    surface,
    tile_medians,
    tiles_of,
)
from scopeflow.kernels.cells_features import measure_frame, resolve_features
from scopeflow.kernels.cells_segmentation import segment
from scopeflow.kernels.cells_tracking import link_frames, region_table

SIZE = 2048


def frame() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    phase = rng.normal(1000, 6, (SIZE, SIZE))
    light = rng.normal(200, 14, (SIZE, SIZE))
    y, x = np.mgrid[-30:31, -30:31]
    disc = y**2 + x**2 <= 30**2
    for n in range(100):
        top, left = 60 + 195 * (n // 10), 60 + 195 * (n % 10)
        box = np.s_[top : top + 61, left : left + 61]
        phase[box][disc] += rng.normal(0, 150, disc.sum())
        light[box][disc] += 300
    return phase.astype(np.uint16), light.astype(np.uint16)


def best(function: Callable[[], Any], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    phase, light = frame()
    labels, _, _ = segment(phase)
    table = region_table(labels)
    tiles = tiles_of(SIZE, SIZE)

    def background() -> np.ndarray:
        medians = tile_medians(light, foreground(labels), tiles)
        return surface(fill_tiles(medians), tiles)

    level = background()
    features = resolve_features(["intensity_mean", "intensity_total"], "fluorescence")
    print(f"{len(table)} cells of {SIZE} x {SIZE} px")
    for name, function in (
        ("segmentation", lambda: segment(phase)),
        ("regions and link", lambda: link_frames([region_table(labels), table])),
        ("background", background),
        (
            "extraction",
            lambda: measure_frame(
                labels, table, light, features, background=level, background_weight=1.0
            ),
        ),
    ):
        print(f"{name:18s} {best(function):.4f} s")


if __name__ == "__main__":
    main()
