"""Whether a result of ours is whole: finished by its run, and all of its shards still there.

A run writes the OME attributes of the group last, so a store without them is not finished; that is
so in all versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from scopeflow.errors import UnreadableFileError
from scopeflow.io.locations import Location
from scopeflow.io.zarr.checked import checked_store
from scopeflow.io.zarr.shards import shard_damage
from scopeflow.strict.text import TextError, file_text, read_json

__all__ = ["Condition", "condition", "refuse_incomplete"]

AGAIN = "Run the same command again: it goes on where it stopped, and makes what is missing"


@dataclass(frozen=True)
class Condition:
    """What became of a result.

    `state`: ``complete``, ``unfinished`` or ``damaged``.
    `detail`: how far it is, or the first file that is not whole and why.
    """

    state: str
    detail: str = ""

    def __str__(self) -> str:
        return self.state + (f": {self.detail}" if self.detail else "")


def condition(store: Location) -> Condition | None:
    """Look at every shard of a result, on this machine; None for what is no result of ours.

    Sizes and indexes of shards are looked at, no pixel is decoded.
    """
    if not isinstance(store, Path) or not store.is_dir():
        return None  # each look at a remote shard is a request: they are checked when read
    try:
        description = read_json(file_text(store / "zarr.json"))
    except (OSError, TextError):
        own = store.parent / ".scopeflow" / store.name / "settings.json"
        return Condition("damaged", f"{store / 'zarr.json'}") if own.is_file() else None
    attributes = description.get("attributes", {}) if isinstance(description, dict) else {}
    layout = _layout(attributes)
    if layout is None:
        return None
    frames, length, arrays = layout
    blocks = -(-frames // length)
    gaps = {name: _gaps(store / name, frames, length) for name in arrays}
    if "ome" not in attributes:
        missing = set().union(*({block for block, _ in found} for found in gaps.values()))
        return Condition("unfinished", f"{blocks - len(missing)} of {blocks} blocks")
    for found in gaps.values():
        for block, reason in found:
            at = f"frames {block * length} to {min((block + 1) * length, frames) - 1}"
            return Condition("damaged", f"{reason}, which holds {at}")
    return Condition("complete", f"{blocks} of {blocks} blocks")


def refuse_incomplete(store: Location) -> None:
    """Refuse a result that its run has not finished, or that lost a part since.

    Raises UnreadableFileError: names the first gap and what to do.
    """
    found = condition(store)
    if found is not None and found.state != "complete":
        raise UnreadableFileError(f"{store} is not complete ({found}). {AGAIN}")


def _layout(attributes: Any) -> tuple[int, int, list[str]] | None:
    try:
        layout = attributes["scopeflow"]["layout"]
        frames, length = int(layout["shape"][0]), int(layout["block_length"])
        arrays = [str(name) for name in layout["arrays"]]
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return (frames, length, arrays) if frames > 0 and length > 0 else None


def _gaps(folder: Path, frames: int, length: int) -> list[tuple[int, str]]:
    """Return the blocks of an array whose shard is not whole, and the file and why."""
    try:
        array = zarr.open_array(checked_store(folder), mode="r")
        per_chunk, dimensions = int(array.chunks[0]), array.ndim
    except Exception:
        reason = f"{folder / 'zarr.json'} is missing or damaged"
        return [(block, reason) for block in range(-(-frames // length))]
    found = []
    for block, start in enumerate(range(0, frames, length)):
        file = folder.joinpath("c", str(block), *["0"] * (dimensions - 1))
        held = min(length, frames - start)
        damage = shard_damage(file, length // per_chunk, -(-held // per_chunk))
        if damage is not None:
            found.append((block, f"{file} {damage}"))
    return found
