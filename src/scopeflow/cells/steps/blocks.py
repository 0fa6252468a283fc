"""The steps of the cell workflow for one block of frames or one group of cells; no dask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.cells.methods import background, display
from scopeflow.cells.methods.features import Feature, grow_labels, measure_frame
from scopeflow.cells.methods.segmentation import LogStdOptions, segment
from scopeflow.cells.methods.tracking import (
    overlap_counts,
    region_table,
    repaint,
)
from scopeflow.cells.store.arrays import (
    CELLS,
    IMAGES,
    read_array,
    read_frames,
    write_array,
    write_frames,
)
from scopeflow.cells.store.counts import to_counts
from scopeflow.engine.pieces import Result
from scopeflow.errors import InputError
from scopeflow.io.read.protocol import Source

__all__ = ["Result"]

_LARGEST = 65535

Blocks = Sequence[tuple[int, int]]


def copy_block(
    fov: Path,
    source: Source,
    channel: int,
    name: str,
    start: int,
    stop: int,
    convert: str,
    factor: float = 1.0,
) -> Result:
    """Copy frames of one channel into its stack, as 16-bit counts."""
    frames = source.read(start, stop)[..., channel]
    where = f"{source.description}, channel {channel}"
    counts, clipped = to_counts(frames, convert, where, factor)
    files = write_frames(fov / IMAGES, f"{name}/0", start, counts)
    return Result(files, {"max": int(counts.max(initial=0)), "clipped": clipped})


def segment_block(
    fov: Path,
    pc: str,
    out: str,
    start: int,
    stop: int,
    method: Callable[[NDArray[Any]], NDArray[Any]] | LogStdOptions,
    preprocessors: Sequence[Any] = (),
) -> Result:
    """Find cells in frames; the tables of regions go to tracking."""
    frames = read_frames(fov / IMAGES, f"{pc}/0", start, stop)
    labels = np.zeros(frames.shape, np.uint16)
    rows, small, large = [], 0, 0
    for n, frame in enumerate(frames):
        image: NDArray[Any] = frame
        for preprocessor in preprocessors:
            image = np.asarray(preprocessor.process(image))
            if image.shape != frame.shape:
                raise InputError(
                    f"the preprocessor {type(preprocessor).__name__} made an image of shape "
                    f"{image.shape} from one of shape {frame.shape}; it has to keep the shape"
                )
        if isinstance(method, LogStdOptions):
            labels[n], too_small, too_large = segment(image, method)
            small, large = small + too_small, large + too_large
        else:
            labels[n] = _checked_labels(method(image), frame.shape)
        rows.append(_with_frame(start + n, region_table(labels[n])))
    files = write_frames(fov / IMAGES, f"{out}/0", start, labels)
    table = np.concatenate(rows)
    return Result(files, {"too_small": small, "too_large": large}, {"regions": table})


def _with_frame(frame: int, table: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.column_stack([np.full(len(table), frame, np.int64), table])


def _checked_labels(given: Any, shape: tuple[int, ...]) -> NDArray[np.uint16]:
    labels = np.asarray(given)
    if labels.shape != shape or labels.dtype.kind not in "iub":
        raise InputError(
            f"the segmentation method gave {labels.dtype} of shape {labels.shape}; it has to give "
            f"integer labels of shape {shape}"
        )
    if labels.size and (labels.min() < 0 or labels.max() > _LARGEST):
        raise InputError(
            f"the segmentation method gave labels {labels.min()} to {labels.max()}; labels are "
            f"0 for background and 1 to {_LARGEST}"
        )
    return labels.astype(np.uint16)


def overlap_block(fov: Path, labelled: str, start: int, stop: int) -> Result:
    """Count the pixels that regions share with those of the frame before."""
    first = max(0, start - 1)
    frames = read_frames(fov / IMAGES, f"{labelled}/0", first, stop)
    rows = [
        _with_frame(t, overlap_counts(frames[t - first], frames[t - first - 1]))
        for t in range(max(1, start), stop)
    ]
    table = np.concatenate(rows) if rows else np.zeros((0, 4), np.int64)
    return Result(arrays={"overlaps": table})


def repaint_block(
    fov: Path, labelled: str, out: str, start: int, stop: int, cells: NDArray[np.int64]
) -> Result:
    """Write frames of labels with the numbers of the cells."""
    frames = read_frames(fov / IMAGES, f"{labelled}/0", start, stop)
    tracked = np.empty_like(frames)
    for n, frame in enumerate(frames):
        rows = cells[cells[:, 0] == start + n]
        tracked[n] = repaint(frame, rows[:, 1:7], rows[:, 7])
    return Result(write_frames(fov / IMAGES, f"{out}/0", start, tracked))


def medians_block(
    fov: Path, fl: str, labelled: str | None, start: int, stop: int, tile: int, radius: int
) -> Result:
    """Take the medians of the background in tiles; 5th percentiles where a frame has none."""
    frames = read_frames(fov / IMAGES, f"{fl}/0", start, stop)
    labels = None if labelled is None else read_frames(fov / IMAGES, f"{labelled}/0", start, stop)
    tiles = background.tiles_of(frames.shape[1], frames.shape[2], tile)
    medians, low = np.empty((len(frames), *tiles.shape)), np.full(len(frames), np.nan)
    for n, frame in enumerate(frames):
        mask = np.zeros(frame.shape, bool)
        if labels is not None:
            mask = background.foreground(labels[n], radius)
        medians[n] = background.tile_medians(frame, mask, tiles)
        if np.isnan(medians[n]).all():
            low[n] = np.percentile(frame, 5)
    return Result(arrays={"medians": medians, "low": low})


def surface_block(
    fov: Path, out: str, start: int, medians: NDArray[np.float64], tiles: background.Tiles
) -> Result:
    """Write the background of frames from their tile medians."""
    frames = np.stack([background.surface(background.fill_tiles(one), tiles) for one in medians])
    return Result(write_frames(fov / IMAGES, f"{out}/0", start, frames))


@dataclass(frozen=True)
class MeasuredChannel:
    """One channel to measure: its stack, its number and its features."""

    name: str
    channel: int
    features: Mapping[str, Feature]
    background: str | None = None
    weight: float = 0.0
    margin: int = 0


def measure_block(
    fov: Path,
    tracked: str,
    channels: Sequence[MeasuredChannel],
    start: int,
    stop: int,
    cells: NDArray[np.int64],
) -> Result:
    """Measure the features of all channels in frames; one value a row of ``cells``."""
    columns: dict[str, list[NDArray[np.float64]]] = {}
    failures: dict[str, int] = {}
    for t in range(start, stop):
        rows = cells[cells[:, 0] == t]
        rows = rows[np.argsort(rows[:, 7])]
        table = np.column_stack([rows[:, 7], rows[:, 2:7]])
        labels = read_frames(fov / IMAGES, f"{tracked}/0", t, t + 1)[0]
        for one in channels:
            if not one.features:
                continue
            image = read_frames(fov / IMAGES, f"{one.name}/0", t, t + 1)[0]
            level = (
                None
                if one.background is None
                else read_frames(fov / IMAGES, f"{one.background}/0", t, t + 1)[0]
            )
            masks, boxes = labels, table
            if one.margin:
                masks = grow_labels(labels, one.margin)
                boxes = region_table(masks)
            values, failed = measure_frame(
                masks,
                boxes,
                image,
                one.features,
                background=level,
                background_weight=one.weight,
                frame=t,
            )
            for name, numbers in values.items():
                columns.setdefault(f"{name}_ch_{one.channel}", []).append(numbers)
            for name, count in failed.items():
                key = f"{name}_ch_{one.channel}"
                failures[key] = failures.get(key, 0) + count
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Result(values={"failures": failures}, arrays=arrays)


@dataclass(frozen=True)
class CropChannel:
    """One stack to cut crops from: its name, that of the crops, and the scale to 0..1."""

    stack: str
    name: str
    scale: float
    minus: str | None = None
    weight: float = 0.0


def crop_cells(
    fov: Path,
    tracked: str,
    mask_name: str,
    channels: Sequence[CropChannel],
    cells: NDArray[np.int64],
    n_frames: int,
    padding: int = 0,
    *,
    context: bool = False,
) -> Result:
    """Cut a group of cells out of all stacks; each frame is read once."""
    pad = ((padding, padding), (padding, padding))
    boxes: dict[int, list[tuple[int, list[NDArray[Any]]]]] = {}
    for t in np.unique(cells[:, 0]).tolist():
        labels = read_frames(fov / IMAGES, f"{tracked}/0", t, t + 1)[0]
        stacks = [_crop_image(fov, c, t) for c in channels]
        if padding:
            labels, *stacks = (np.pad(one, pad) for one in (labels, *stacks))
        for _, _, _, y0, x0, y1, x1, cell in cells[cells[:, 0] == t].tolist():
            box = slice(y0, y1 + 2 * padding), slice(x0, x1 + 2 * padding)
            mask = labels[box] == cell
            cut = [s[box].copy() if context else np.where(mask, s[box], 0) for s in stacks]
            boxes.setdefault(cell, []).append((t, [mask.astype(np.uint8), *cut]))
    files: list[str] = []
    for cell in sorted(boxes):
        height = max(parts[0].shape[0] for _, parts in boxes[cell])
        width = max(parts[0].shape[1] for _, parts in boxes[cell])
        names = [mask_name, *(channel.name for channel in channels)]
        scales = [None, *(channel.scale for channel in channels)]
        for n, (name, scale) in enumerate(zip(names, scales, strict=True)):
            dtype = np.uint8 if scale is None else np.float32
            crop = np.zeros((n_frames, height, width), dtype)
            for t, parts in boxes[cell]:
                h, w = parts[n].shape
                crop[t, :h, :w] = parts[n] if scale is None else parts[n] / np.float64(scale)
            files += write_array(fov / CELLS, f"{name}/{cell}/0", crop)
        del boxes[cell]
    return Result(files)


def _crop_image(fov: Path, channel: CropChannel, t: int) -> NDArray[Any]:
    image = read_frames(fov / IMAGES, f"{channel.stack}/0", t, t + 1)[0]
    if channel.minus is None:
        return image
    level = read_frames(fov / IMAGES, f"{channel.minus}/0", t, t + 1)[0]
    corrected: NDArray[Any] = np.maximum(image - channel.weight * level.astype(np.float64), 0.0)
    return corrected


def count_blocks(fov: Path, stack: str, blocks: Blocks) -> Result:
    """Count how often each value of uint16, or each bin of float32, occurs; both ascend."""
    frames = (read_frames(fov / IMAGES, f"{stack}/0", start, stop) for start, stop in blocks)
    counts = _total(display.count_values(one) for one in frames)
    found = np.flatnonzero(counts)
    return Result(arrays={"values": found, "counts": counts[found]})


def count_bins_blocks(fov: Path, stack: str, blocks: Blocks, bins: tuple[int, ...]) -> Result:
    """Count how often each value of some bins of :func:`count_blocks` occurs, by sort keys."""
    frames = (read_frames(fov / IMAGES, f"{stack}/0", start, stop) for start, stop in blocks)
    counts = _total(display.count_within_bins(one, bins) for one in frames)
    rows, lower = np.nonzero(counts)
    keys = np.array(bins, np.int64)[rows] * 65536 + lower
    return Result(arrays={"values": keys, "counts": counts[rows, lower]})


def _total(parts: Iterator[NDArray[np.int64]]) -> NDArray[np.int64]:
    total = next(parts)
    for part in parts:
        total += part
    return total


def display_block(
    fov: Path, stack: str, start: int, stop: int, low: float, high: float, *, labels: bool
) -> Result:
    """Write frames at half resolution in 8 bits."""
    frames = read_frames(fov / IMAGES, f"{stack}/0", start, stop)
    return Result(
        write_frames(fov / IMAGES, f"{stack}/1", start, _display(frames, low, high, labels=labels))
    )


def _display(frames: NDArray[Any], low: float, high: float, *, labels: bool) -> NDArray[np.uint8]:
    if labels:
        greys = display.to_display_labels(np.arange(int(high) + 1), int(high))
        small: NDArray[np.uint8] = greys[display.halve_sample(frames)]
        return small
    return display.small_display(frames, low, high)


def display_crops(fov: Path, names: Sequence[str], mask_name: str) -> Result:
    """Write crops at half resolution in 8 bits."""
    files: list[str] = []
    for name in names:
        crop = read_array(fov / CELLS, f"{name}/0")
        is_mask = name.startswith(f"{mask_name}/")
        low, high = (0.0, 1.0) if is_mask else display.percentile_range(crop)
        files += write_array(fov / CELLS, f"{name}/1", _display(crop, low, high, labels=is_mask))
    return Result(files)


def display_range(values: NDArray[Any], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the 1st and 99th percentile, or the extremes where those are equal.

    Examples
    --------
    >>> display_range(np.array([0, 7]), np.array([1000, 1]))
    (0.0, 7.0)
    """
    low = display.percentile_of_counts(values, counts, 1)
    high = display.percentile_of_counts(values, counts, 99)
    return (low, high) if high > low else (float(values[0]), float(values[-1]))
