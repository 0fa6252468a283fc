"""Displacements of a corrected recording read back, wherever they were kept and on any grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import UnreadableFileError
from scopeflow.io.locations import Location, location
from scopeflow.io.read.files import FileStamp, stamp_file, stamp_folder
from scopeflow.io.read.hdf5 import HDF5_FILES
from scopeflow.io.read.states import file_states
from scopeflow.io.zarr.completeness import refuse_incomplete
from scopeflow.motion.store.layout import MOTION, open_result


@dataclass(frozen=True)
class StoredMotion:
    """Displacements in ``motion.h5``, ``w.h5`` or a result store; small, picklable.

    `stamp`: the file or folder, as it was when it was opened.
    `shape`: ``(T, h, w, 2)``, on a grid of any size.
    """

    stamp: FileStamp
    shape: tuple[int, int, int, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return np.dtype(np.float32)

    def identity(self) -> dict[str, Any]:
        """Return JSON-able facts that change when the data change."""
        return {key: str(value) for key, value in self.stamp.facts().items()}

    def state(self, start: int, stop: int) -> dict[str, str]:  # noqa: ARG002 - one for all frames
        """Return what the file looks like now; shards of a store prove themselves when read."""
        path = location(self.stamp.path)
        return {} if path.name == MOTION else file_states([self.stamp.path])

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the displacements of frames, ``(n, h, w, 2)``, pixels of the frame."""
        path = location(self.stamp.path)
        if path.name == MOTION:
            return np.asarray(open_result(path.parent).read(MOTION, start, stop), np.float32)
        handle = HDF5_FILES.get(self.stamp)
        with handle.lock:
            parts = [handle.value[name][start:stop] for name in ("u", "v")]
        return np.stack(parts, axis=-1).astype(np.float32, copy=False)


def open_motion(folder: Location) -> StoredMotion | None:
    """Open the displacements in a folder of results; None if none were kept.

    `folder`: with ``motion.h5``, ``w.h5`` or ``compensated.zarr``, looked for in this order; or an
        HDF5 file of displacements.
    Raises UnreadableFileError: when a file is damaged, or holds something else.
    """
    if folder.is_file():
        return _open_hdf5(folder)
    for name in ("motion.h5", "w.h5"):
        path = folder / name
        if path.is_file():
            return _open_hdf5(path)
    store = folder / "compensated.zarr"
    if store.is_dir():
        refuse_incomplete(store)
        layout = open_result(store).layout
        if MOTION in layout.arrays:
            shape4 = (layout.shape[0], *layout.motion_shape, 2)
            return StoredMotion(stamp_folder(store / MOTION), shape4)
    return None


def _open_hdf5(path: Location) -> StoredMotion:
    stamp = stamp_file(path)
    try:
        handle = HDF5_FILES.get(stamp)
        with handle.lock:
            shapes = {tuple(handle.value[part].shape) for part in ("u", "v")}
    except (OSError, KeyError, AttributeError) as error:
        raise UnreadableFileError(f"{path} holds no displacements: {error}") from None
    if len(shapes) != 1 or len(shape := shapes.pop()) != 3:
        raise UnreadableFileError(f"{path}: u and v must both be (T, h, w)")
    return StoredMotion(stamp, (*shape, 2))
