"""The zarr store at a place, on this machine or remote; knows nothing of what is in it."""

from __future__ import annotations

import atexit
import contextlib
from functools import lru_cache
from typing import Any

from scopeflow.io.locations import Location, RemotePath

__all__ = ["zarr_store"]


def zarr_store(place: Location) -> Any:
    """Return what zarr opens for a folder; opened in each process, never sent to another.

    A remote one is a `zarr.storage.FsspecStore`: its chunks are whole objects, read and written
    side by side.
    """
    if not isinstance(place, RemotePath):
        return str(place)
    from fsspec.core import url_to_fs
    from zarr.storage import FsspecStore

    key = url_to_fs(place.address, use_listings_cache=False)[1]
    return FsspecStore(_filesystem(place.root), path=key)


@lru_cache(maxsize=16)
def _filesystem(root: str) -> Any:
    from zarr.storage import FsspecStore

    # Not the instance that reads and writes other files: zarr runs an event loop of its own.
    options = {"use_listings_cache": False, "skip_instance_cache": True}
    filesystem = FsspecStore.from_url(root, storage_options=options).fs
    if hasattr(filesystem, "set_session"):
        atexit.register(_disconnect, filesystem)
    return filesystem


def _disconnect(filesystem: Any) -> None:
    """Close the connections while the event loop still runs; else aiohttp complains at the end."""
    # No public name of zarr runs something in its loop; where it moves, aiohttp complains.
    from zarr.core.sync import sync

    async def close() -> None:
        session = await filesystem.set_session()
        await session.close()

    with contextlib.suppress(Exception):
        sync(close(), timeout=5)
