"""Recordings of drifting cells whose every number is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scopeflow.cells.config import WorkflowConfig


@dataclass(frozen=True)
class CellMovie:
    phase: np.ndarray  # (T, H, W) uint16
    fluorescence: np.ndarray  # (T, H, W) uint16
    truth: np.ndarray  # (T, H, W) labels
    background: np.ndarray  # (H, W) float, what lies under the cells


def cell_movie(n_frames=8, height=200, width=240, n_cells=4, seed=0, late=True) -> CellMovie:
    """Textured discs of radius 16 that drift by a pixel a frame; the last one comes at frame 2."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    background = 200.0 + 0.05 * x + 0.02 * y
    phase = rng.normal(1000, 6, (n_frames, height, width))
    truth = np.zeros((n_frames, height, width), np.uint16)
    centres = [(40 + 56 * (n // 3), 45 + 62 * (n % 3)) for n in range(n_cells)]
    fluorescence = np.repeat(background[None], n_frames, axis=0)
    for t in range(n_frames):
        for n, (cy, cx) in enumerate(centres):
            if late and n == n_cells - 1 and t < 2:
                continue
            inside = (y - cy - t) ** 2 + (x - cx - t) ** 2 <= 16**2
            truth[t][inside] = n + 1
            phase[t][inside] += rng.normal(0, 150, inside.sum())
            fluorescence[t][inside] += 100.0 * (n + 1)
    return CellMovie(
        np.rint(np.clip(phase, 0, 65535)).astype(np.uint16),
        np.rint(fluorescence).astype(np.uint16),
        truth,
        background,
    )


def cell_config(**params) -> WorkflowConfig:
    defaults = {"min_frames": 3, "border_margin": 5, "background_tile_size": 50}
    return WorkflowConfig(channels={"pc": 0, "fl": [1]}, params={**defaults, **params})
