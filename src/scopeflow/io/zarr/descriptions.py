"""Descriptions of zarr arrays and groups: restored where their files are not what was written.

They have no checksum. A bit that turned over in the name of an axis leaves an array that opens, and
whose frames mean something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zarr.storage import MemoryStore

from scopeflow.io.durable import sync_files
from scopeflow.io.files import atomic_path, remove_tree
from scopeflow.io.locations import Location
from scopeflow.io.state import is_regular

__all__ = ["descriptions", "restore_descriptions"]


def descriptions(make: Callable[[Any], object]) -> dict[str, bytes]:
    """Return the descriptions of what a function creates in a zarr store, by their names.

    Examples
    --------
    >>> import zarr
    >>> sorted(descriptions(lambda store: zarr.create_group(store).create_group("stats")))
    ['stats/zarr.json', 'zarr.json']
    """
    written: dict[str, Any] = {}
    make(MemoryStore(written))
    return {
        name: content.to_bytes()
        for name, content in written.items()
        if name.rpartition("/")[2] == "zarr.json"
    }


def restore_descriptions(folder: Location, wanted: Mapping[str, bytes]) -> None:
    """Write the descriptions in a folder again that have other bytes, or are no files.

    All of them, and their folders, outlive a power cut then.
    """
    for name, content in wanted.items():
        file = folder / name
        if not is_regular(file):
            remove_tree(file)  # a pipe in its place would be waited for
        elif file.read_bytes() == content:
            continue
        with atomic_path(file) as partial:
            partial.write_bytes(content)
    if isinstance(folder, Path):
        # Those that stood there may be of a run that was killed before they were safe.
        sync_files(folder.parent, [folder / name for name in wanted])
