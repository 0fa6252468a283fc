"""Step 2 of the cell workflow: objects of every frame, in phase contrast."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from scopeflow.cells.methods.registered import preprocessors, segmentation_method
from scopeflow.cells.methods.segmentation import LogStdOptions
from scopeflow.cells.methods.segmentation import segment as segment_logstd
from scopeflow.cells.methods.tracking import region_table
from scopeflow.cells.run import Fov
from scopeflow.cells.store.arrays import IMAGES, read_frames, write_frames
from scopeflow.engine.pieces import Result
from scopeflow.errors import InputError

__all__ = ["segment"]

logger = logging.getLogger(__name__)

_LARGEST = 65535

Method = Callable[[NDArray[Any]], NDArray[Any]] | LogStdOptions


class _Removed(BaseModel):
    too_small: int
    too_large: int


def segment(fov: Fov) -> None:
    """Find the objects; tracking gets their tables."""
    plan, params = fov.plan, fov.plan.config.params
    pc, labelled = plan.pc, plan.labelled
    if pc is None or labelled is None:
        logger.warning("FOV %d: no phase-contrast channel; no cells are searched", plan.fov)
        return
    fov.create(labelled, "0", np.uint16)
    method, before = segmentation_method(params), preprocessors()
    work = partial(segment_block, plan.folder, pc, labelled, method, before)
    form = partial(fov.form, f"{labelled}/0", values=_Removed, arrays={"regions": 2})
    outcomes = fov.do(fov.blocks(labelled, labelled, work, form))
    fov.regions = np.concatenate([one.arrays["regions"] for one in outcomes])
    fov.removed = {key: sum(one.values[key] for one in outcomes) for key in fov.removed}
    if fov.removed["too_large"]:
        logger.warning(
            "FOV %d: %d objects above max_object_size=%d px were left out",
            plan.fov,
            fov.removed["too_large"],
            params.max_object_size,
        )


def segment_block(
    fov: Path,
    pc: str,
    out: str,
    method: Method,
    preprocessors: Sequence[Any],
    start: int,
    stop: int,
) -> Result:
    """Find the objects of frames."""
    frames = read_frames(fov / IMAGES, f"{pc}/0", start, stop)
    labels = np.zeros(frames.shape, np.uint16)
    rows, small, large = [], 0, 0
    for n, frame in enumerate(frames):
        image = _preprocessed(frame, preprocessors)
        if isinstance(method, LogStdOptions):
            labels[n], too_small, too_large = segment_logstd(image, method)
            small, large = small + too_small, large + too_large
        else:
            labels[n] = _checked_labels(method(image), frame.shape)
        table = region_table(labels[n])
        rows.append(np.column_stack([np.full(len(table), start + n, np.int64), table]))
    files = write_frames(fov / IMAGES, f"{out}/0", start, labels)
    removed = {"too_small": small, "too_large": large}
    return Result(files, removed, {"regions": np.concatenate(rows)})


def _preprocessed(frame: NDArray[Any], preprocessors: Sequence[Any]) -> NDArray[Any]:
    image = frame
    for preprocessor in preprocessors:
        image = np.asarray(preprocessor.process(image))
        if image.shape != frame.shape:
            raise InputError(
                f"the preprocessor {type(preprocessor).__name__} made an image of shape "
                f"{image.shape} from one of shape {frame.shape}; it has to keep the shape"
            )
    return image


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
