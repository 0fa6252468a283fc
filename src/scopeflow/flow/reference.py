"""Everything about the reference that all frames share: its pyramid, weights and parameters."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.compiled.bands import COLUMN_BORDER, ROW_BORDER
from scopeflow.errors import InputError
from scopeflow.flow.arguments import channel_weights, check_finite
from scopeflow.flow.parameters import FlowParameters, exponents_of_channels
from scopeflow.flow.pyramid import Level, pyramid_levels
from scopeflow.images.borders import as_planes
from scopeflow.images.resize import pyramid_tables, resize_planes

_BORDER = (ROW_BORDER, COLUMN_BORDER)


@dataclass(frozen=True)
class FlowReference:
    """The reference prepared for many frames; read-only, picklable, shared by threads.

    `shape`: ``(H, W, C)`` of the frames.
    `images`: reference at each level, ``(C, rows + 2, cols + 2 COLUMN_BORDER)`` float32 with
        replicated edges.
    `weights`: ``(C,)`` float32 weights of the channels.
    `maps`: ``(numpy.ndarray or None)``, pixelwise factors on the weights at each level, float32 of
        the same shape.
    `a_data`: ``(C,)`` float32 exponents of the data penalty.
    """

    shape: tuple[int, int, int]
    params: FlowParameters
    levels: tuple[Level, ...]
    images: tuple[NDArray[np.float32], ...]
    weights: NDArray[np.float32]
    maps: tuple[NDArray[np.float32] | None, ...]
    a_data: NDArray[np.float32]

    @property
    def motion_shape(self) -> tuple[int, int]:
        """Rows and columns of the finest grid."""
        return self.levels[-1].rows, self.levels[-1].cols


_recently_prepared: OrderedDict[
    tuple[int, int, FlowParameters], tuple[weakref.ref[Any], weakref.ref[Any], FlowReference]
] = OrderedDict()
_prepared_lock = threading.Lock()
_MOST_PREPARED = 4


def reference_for(
    reference: NDArray[Any], weight: NDArray[Any], params: FlowParameters
) -> FlowReference:
    """`prepare_reference`, kept for the blocks that follow with the very same arrays.

    `reference`: ``(H, W, C)`` normalised and filtered reference, not changed afterwards.
    Returns: for `solve_flow`; a few are kept, as long as their arrays live.
    """
    key = (id(reference), id(weight), params)
    with _prepared_lock:
        kept = _recently_prepared.get(key)
        if kept is not None and kept[0]() is reference and kept[1]() is weight:
            _recently_prepared.move_to_end(key)
            return kept[2]
    prepared = prepare_reference(reference, weight, params)
    with _prepared_lock:
        _recently_prepared[key] = weakref.ref(reference), weakref.ref(weight), prepared
        while len(_recently_prepared) > _MOST_PREPARED:
            _recently_prepared.popitem(last=False)
    return prepared


def prepare_reference(
    reference: NDArray[Any], weight: Any, params: FlowParameters
) -> FlowReference:
    """Build everything about the reference that all frames share.

    `reference`: ``(H, W, C)`` normalised and filtered reference.
    `weight`: weights of channels or pixels, see `channel_weights`.
    Raises InputError: when the reference is not ``(H, W, C)``, too small or not finite.
    Raises OptionsError: when the weight or the number of exponents does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from scopeflow.flow.parameters import FlowParameters
    >>> prepare_reference(np.ones((32, 40, 2)), None, FlowParameters(min_level=2)).motion_shape
    (20, 26)
    """
    reference = np.asarray(reference)
    if reference.ndim != 3:
        raise InputError(
            f"A reference of shape {reference.shape} was given; the shape (H, W, C) is needed."
        )
    check_finite(reference, "The reference")
    height, width, channels = reference.shape
    levels = pyramid_levels((height, width), params)
    weights, maps = channel_weights(weight, (height, width, channels))
    exponents = exponents_of_channels(params.a_data, channels)
    planes = as_planes(reference)
    images, level_maps = [], []
    for level in levels:
        tables = pyramid_tables((height, width), (level.rows, level.cols))
        images.append(resize_planes(planes, tables, border=_BORDER))
        images[-1].flags.writeable = False
        level_maps.append(None if maps is None else resize_planes(maps, tables, border=_BORDER))
    return FlowReference(
        shape=(height, width, channels),
        params=params,
        levels=levels,
        images=tuple(images),
        weights=weights,
        maps=tuple(level_maps),
        a_data=exponents,
    )
