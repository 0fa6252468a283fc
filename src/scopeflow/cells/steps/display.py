"""Step 7 of the cell workflow: pictures of 8 bits and half the size, for viewers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.cells.methods.display import (
    COUNTED,
    ValueCounts,
    count_within_bins,
    halve_sample,
    percentile_range,
    small_display,
    to_display_labels,
)
from scopeflow.cells.run import Fov, FovFailed
from scopeflow.cells.steps.crop import crop_groups, crop_names
from scopeflow.cells.store.arrays import (
    CELLS,
    IMAGES,
    halved,
    read_array,
    read_frames,
    remove_incomplete,
    write_array,
    write_frames,
)
from scopeflow.engine.ledger import Form
from scopeflow.engine.pieces import Piece, Result

__all__ = ["display"]

_COUNTING_PARTS = 16
"""Counts of a stack come in so many pieces: what is kept of them does not grow with its length."""

Blocks = Sequence[tuple[int, int]]
Range = tuple[float, float]
"""What becomes black and white; both ends of labels."""


def display(fov: Fov) -> None:
    """Make the display levels of all stacks and crops.

    Raises FovFailed: some could not be made; of these stacks no level is left, since viewers show
        the frames that it lacks as black.
    """
    stacks = [name for name in fov.plan.made if name not in ("crops", "measure", "traces")]
    try:
        _make_levels(fov, stacks)
    except FovFailed:
        for name in stacks:
            remove_incomplete(fov.plan.folder / IMAGES, f"{name}/1")
        raise


def _make_levels(fov: Fov, stacks: Sequence[str]) -> None:
    plan = fov.plan
    frames, height, width = plan.shape
    for name in stacks:
        fov.create(name, "1", np.uint8, (frames, *halved(height, width)))
    _count_the_rest(fov)
    ranges = {name: counts.range() for name, counts in fov.counts.items()}
    ranges |= {
        name: (0.0, float(fov.cells[:, 1 if name == plan.labelled else 7].max(initial=1)))
        for name in (plan.labelled, plan.tracked)
        if name is not None
    }
    pieces: list[Piece] = []
    for name in stacks:
        work = partial(display_block, plan.folder, name, ranges[name])
        pieces += fov.blocks(name, f"display-{name}", work, partial(fov.form, f"{name}/1"))
    if plan.tracked is not None:
        mask, crops = crop_names(plan)
        for rows in crop_groups(fov):
            cells = np.unique(rows[:, 7]).tolist()
            names = [f"{n}/{cell}" for n in (mask, *(s for s, _ in crops)) for cell in cells]
            shrink = partial(display_crops, plan.folder, names, mask)
            pieces.append(fov.piece("crops", f"display-crops-{cells[0]:06d}", shrink, Form()))
    fov.do(pieces)


def _count_the_rest(fov: Fov) -> None:
    """Count what was not counted while it was written.

    Those are stacks of results of earlier versions, and floats: these were counted in bins, and in
    the few bins that percentiles need each value is counted as well.
    """
    uncounted = [name for name, counts in fov.counts.items() if not counts.complete]
    for name in uncounted:
        fov.counts[name] = ValueCounts()
    pieces = [piece for name in uncounted for piece in _counting(fov, "count", name, count_blocks)]
    fov.do(pieces, lambda piece, one: fov.counts[_stack(piece)].add(one.arrays))
    pieces = []
    for name, counts in fov.counts.items():
        if name.startswith("fl_background_"):
            count = partial(count_bins_blocks, bins=counts.needed())
            pieces += _counting(fov, "keys", name, count)
    fov.do(pieces, lambda piece, one: fov.counts[_stack(piece)].refine(one.arrays))


def _counting(
    fov: Fov, mark: str, name: str, count: Callable[[Path, str, Blocks], Result]
) -> list[Piece]:
    blocks = fov.plan.blocks
    each = -(-len(blocks) // _COUNTING_PARTS)
    parts = [blocks[n : n + each] for n in range(0, len(blocks), each)]
    return [
        fov.piece(
            name,
            f"{mark}-{name}-{n:02d}",
            partial(count, fov.plan.folder, name, part),
            Form((), arrays=COUNTED),
        )
        for n, part in enumerate(parts)
    ]


def _stack(piece: Piece) -> str:
    return piece.name.split("-")[1]


def count_blocks(fov: Path, stack: str, blocks: Blocks) -> Result:
    """Count the values of frames; see :class:`ValueCounts`."""
    counts = ValueCounts()
    for start, stop in blocks:
        counts.add(ValueCounts.of(read_frames(fov / IMAGES, f"{stack}/0", start, stop)))
    return Result(arrays=counts.arrays())


def count_bins_blocks(fov: Path, stack: str, blocks: Blocks, bins: tuple[int, ...]) -> Result:
    """Count how often each value of some bins of :class:`ValueCounts` occurs, by sort keys."""
    counts = np.zeros((len(bins), 65536), np.int64)
    for start, stop in blocks:
        counts += count_within_bins(read_frames(fov / IMAGES, f"{stack}/0", start, stop), bins)
    rows, lower = np.nonzero(counts)
    keys = np.array(bins, np.int64)[rows] * 65536 + lower
    return Result(arrays={"values": keys, "counts": counts[rows, lower]})


def display_block(fov: Path, stack: str, black_white: Range, start: int, stop: int) -> Result:
    """Write frames at half resolution in 8 bits."""
    frames = read_frames(fov / IMAGES, f"{stack}/0", start, stop)
    small = _small(frames, black_white, labels=stack.startswith("seg_"))
    return Result(write_frames(fov / IMAGES, f"{stack}/1", start, small))


def _small(frames: NDArray[Any], black_white: Range, *, labels: bool) -> NDArray[np.uint8]:
    low, high = black_white
    if labels:
        greys = to_display_labels(np.arange(int(high) + 1), int(high))
        small: NDArray[np.uint8] = greys[halve_sample(frames)]
        return small
    return small_display(frames, low, high)


def display_crops(fov: Path, names: Sequence[str], mask_name: str) -> Result:
    """Write crops at half resolution in 8 bits."""
    files: list[str] = []
    for name in names:
        crop = read_array(fov / CELLS, f"{name}/0")
        is_mask = name.startswith(f"{mask_name}/")
        black_white = (0.0, 1.0) if is_mask else percentile_range(crop)
        small = _small(crop, black_white, labels=is_mask)
        files += write_array(fov / CELLS, f"{name}/1", small)
    return Result(files)
