"""Scratch arrays: large temporary float32 memory that a thread keeps between frames."""

from __future__ import annotations

import math
import threading

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 64  # bytes: one cache line, and the widest vector register
_LARGEST_KEPT = 1 << 28  # elements; a buffer beyond 1 GiB is not kept for the life of the thread

_MOST_VIEWS = 4096  # of all names and shapes together

_store = threading.local()


def scratch(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Uninitialised float32 array that is valid until the same thread asks for `name` again.

    Fresh large arrays cost a page fault for each 4 KiB; at video rate that is a visible share of
    the time. Memory per thread is the largest array asked for under each name.

    Returns: c-contiguous, aligned to 64 bytes, contents undefined.

    Examples
    --------
    >>> scratch("example", (2, 3)).shape
    (2, 3)
    """
    views: dict[tuple[str, tuple[int, ...]], NDArray[np.float32]]
    views = _store.__dict__.setdefault("views", {})
    # A pyramid asks for the same arrays in every frame: a lookup instead of making views.
    view = views.get((name, shape))
    if view is not None:
        return view
    size = math.prod(shape)
    buffers: dict[str, NDArray[np.float32]] = _store.__dict__.setdefault("buffers", {})
    buffer = buffers.get(name)
    if buffer is None or buffer.size < size:
        if len(views) > _MOST_VIEWS:
            views.clear()
        for key in [key for key in views if key[0] == name]:
            del views[key]
        buffer = _aligned(size)
        if size > _LARGEST_KEPT:
            return buffer.reshape(shape)
        buffers[name] = buffer
    view = views[name, shape] = buffer[:size].reshape(shape)
    return view


def release_scratch() -> None:
    """Give the calling thread's scratch memory back."""
    _store.__dict__.pop("views", None)
    _store.__dict__.pop("buffers", None)


def _aligned(size: int) -> NDArray[np.float32]:
    raw = np.empty(size * 4 + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size * 4].view(np.float32)
