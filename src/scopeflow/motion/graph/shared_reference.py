"""What all tasks read, handed to processes of one machine without a copy for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from scopeflow.io.shared import SharedArray, SharedFolder
from scopeflow.motion.block.preprocess import Normalization
from scopeflow.motion.block.values import Reference

_IMAGES = ("raw", "processed", "weight")


@dataclass(frozen=True)
class SharedReference:
    """A reference in shared memory; what travels to workers is its name."""

    raw: SharedArray
    processed: SharedArray
    weight: SharedArray
    low: SharedArray
    high: SharedArray


def share_reference(reference: Reference, folder: SharedFolder) -> SharedReference:
    """Put a reference where all processes of this machine can map it."""
    images = {name: folder.put(name, getattr(reference, name)) for name in _IMAGES}
    return SharedReference(
        **images,
        low=folder.put("low", reference.normalization.low),
        high=folder.put("high", reference.normalization.high),
    )


def reference_bytes(reference: Reference) -> int:
    """Return the bytes that :func:`share_reference` needs."""
    return sum(int(getattr(reference, name).nbytes) for name in _IMAGES) + 4096


def load_reference(reference: Reference | SharedReference) -> Reference:
    """Return a reference, mapped from shared memory where it is there; runs inside a task."""
    return _mapped(reference) if isinstance(reference, SharedReference) else reference


@lru_cache(maxsize=2)  # the same object for all blocks: its pyramid is built once
def _mapped(shared: SharedReference) -> Reference:
    return Reference(
        shared.raw.open(),
        shared.processed.open(),
        Normalization(shared.low.open(), shared.high.open()),
        shared.weight.open(),
    )
