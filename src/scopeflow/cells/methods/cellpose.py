"""Cells in one frame by Cellpose, where that package is installed; knows its interface alone.

Stringer et al., *Nature Methods* 2021, doi 10.1038/s41592-020-01018-x. The code of Cellpose is
BSD-3; the weights of its models have licences of their own, and those of Cellpose-SAM were trained
on data for non-commercial use.
"""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError

__all__ = ["segment_cellpose"]

# One network at a time: several would not fit into the memory of a graphics card.
_LOCK = Lock()


def segment_cellpose(
    frame: NDArray[Any],
    *,
    model: str | None = None,
    diameter: float | None = None,
    flow_threshold: float = 0.4,
    cellprob_threshold: float = 0.0,
    min_size: int = 15,
    gpu: bool = False,
) -> NDArray[np.integer]:
    """Find the cells of a frame with Cellpose.

    `frame`: ``(H, W)``, any real type.
    `model`: name of a model, or path of one of your own; by default that of the package. Weights
        are downloaded by Cellpose on first use.
    `diameter`: diameter of cells, px; by default as the model was trained.
    `flow_threshold`, `cellprob_threshold`: largest error of flows, and least logit, of a cell.
    `min_size`: least area, px.
    Returns: ``(H, W)`` integers, labels; 0 is background.
    Raises InputError: if the model cannot be loaded.
    """
    with _LOCK:
        found = _load(model, gpu).eval(
            np.asarray(frame, np.float32),
            diameter=diameter,
            flow_threshold=flow_threshold,
            cellprob_threshold=cellprob_threshold,
            min_size=min_size,
        )
    return np.asarray(found[0])


@lru_cache(maxsize=1)
def _load(model: str | None, gpu: bool) -> Any:
    from cellpose.models import CellposeModel

    chosen = {} if model is None else {"pretrained_model": model}
    try:
        return CellposeModel(gpu=gpu, **chosen)
    except Exception as error:  # of many kinds: download, file, graphics card
        raise InputError(
            f"the Cellpose model {model or '(default)'} cannot be loaded: {type(error).__name__}: "
            f"{error}. Its weights are downloaded on first use; without a network put them where "
            "Cellpose looks for them, or give the path of a model as "
            "segmentation_options={model: ...}"
        ) from error
