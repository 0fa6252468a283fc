"""Step 7 of the cell workflow: pictures of 8 bits and half the size, for viewers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.cells.methods.display import needed_bins, values_of_keys
from scopeflow.cells.run import Fov, Run
from scopeflow.cells.steps import blocks as steps
from scopeflow.cells.steps.results import crop_groups, crop_names
from scopeflow.engine.pieces import Outcome

__all__ = ["cache"]

_COUNTING_PARTS = 16
"""Counts of a stack come in so many pieces: what is kept of them does not grow with its length."""

Key = tuple[int, str]
"""Number of a field of view and name of a stack."""

Counts = tuple[NDArray[Any], NDArray[np.int64]]
"""Ascending values, and how often each occurs."""


def cache(run: Run, step: str, fovs: list[Fov]) -> None:
    """Make the display levels of all stacks and crops."""
    for fov in run.alive(fovs):
        frames, height, width = fov.plan.shape
        for name in _stacks(fov):
            small = (frames, max(1, height // 2), max(1, width // 2))
            run.guarded(fov, fov.create, name, "1", np.uint8, small)
    ranges = _ranges(run, step, fovs)
    pieces = []
    for fov in run.alive(fovs):
        plan = fov.plan
        for name in _stacks(fov):
            labels = name.startswith("seg_")
            low, high = _label_range(fov, name) if labels else ranges[plan.fov, name]
            for start, stop in plan.blocks:
                what: tuple[Any, ...] = (plan.folder, name, start, stop, low, high, labels)
                mark = f"display-{name}-{start:06d}"
                pieces.append(fov.piece(name, mark, _display_block, *what, frames=stop - start))
        if plan.tracked is not None:
            mask, stacks = crop_names(plan)
            for rows in crop_groups(fov):
                cells = np.unique(rows[:, 7]).tolist()
                crops = [f"{n}/{cell}" for n in (mask, *(s for s, _ in stacks)) for cell in cells]
                mark = f"display-crops-{cells[0]:06d}"
                what = (plan.folder, crops, mask)
                pieces.append(fov.piece("crops", mark, steps.display_crops, *what))
    run.do(step, pieces)


def _display_block(
    folder: Path, name: str, start: int, stop: int, low: float, high: float, labels: bool
) -> steps.Result:
    return steps.display_block(folder, name, start, stop, low, high, labels=labels)


def _stacks(fov: Fov) -> list[str]:
    return [name for name in fov.made if name not in ("crops", "measure", "traces")]


def _label_range(fov: Fov, name: str) -> tuple[float, float]:
    column = 1 if name == fov.plan.labelled else 7
    return 0.0, float(fov.cells[:, column].max(initial=1))


def _ranges(run: Run, step: str, fovs: list[Fov]) -> dict[Key, tuple[float, float]]:
    """Return what is black and white in each stack of intensities: exact percentiles."""
    every: dict[Key, tuple[Any, ...]] = {
        (fov.plan.fov, name): () for fov in fovs for name in _stacks(fov) if name[:4] != "seg_"
    }
    counted = _counted(run, step, fovs, "count", steps.count_blocks, every)
    # Floats are counted in bins; in those that percentiles need, each value is counted as well.
    floats = {key: counted[key] for key in counted if key[1].startswith("fl_background_")}
    needed = {key: needed_bins(*counts) for key, counts in floats.items()}
    wanted: dict[Key, tuple[Any, ...]] = {key: (bins,) for key, bins in needed.items()}
    exact = _counted(run, step, fovs, "keys", steps.count_bins_blocks, wanted)
    for key in exact:
        counted[key] = _refined(counted[key], exact[key], needed[key])
    return {key: steps.display_range(*counts) for key, counts in counted.items()}


def _counted(
    run: Run,
    step: str,
    fovs: list[Fov],
    mark: str,
    function: Any,
    wanted: Mapping[Key, tuple[Any, ...]],
) -> dict[Key, Counts]:
    pieces, owners = [], []
    for fov in run.alive(fovs):
        blocks = fov.plan.blocks
        each = -(-len(blocks) // _COUNTING_PARTS)
        parts = [blocks[n : n + each] for n in range(0, len(blocks), each)]
        for name in _stacks(fov):
            key = (fov.plan.fov, name)
            for n, part in enumerate(parts if key in wanted else ()):
                what = (fov.plan.folder, name, part, *wanted[key])
                pieces.append(fov.piece(name, f"{mark}-{name}-{n:02d}", function, *what))
                owners.append(key)
    outcomes: dict[Key, list[Outcome]] = {}
    for key, outcome in zip(owners, run.do(step, pieces), strict=True):
        if outcome.failure is None:
            outcomes.setdefault(key, []).append(outcome)
    return {key: _summed(found) for key, found in outcomes.items()}


def _summed(outcomes: list[Outcome]) -> Counts:
    values = np.concatenate([one.arrays["values"] for one in outcomes])
    counts = np.concatenate([one.arrays["counts"] for one in outcomes])
    unique, index = np.unique(values, return_inverse=True)
    return unique, np.bincount(index, counts).astype(np.int64)


def _refined(coarse: Counts, exact: Counts, needed: tuple[int, ...]) -> Counts:
    """Put exact values in the place of some bins; the others only take up ranks."""
    bins, numbers = coarse
    keys, counts = exact
    rest = ~np.isin(bins, needed)
    places = np.concatenate([keys, bins[rest] * 65536])
    order = np.argsort(places, kind="stable")
    return values_of_keys(places[order]), np.concatenate([counts, numbers[rest]])[order]
