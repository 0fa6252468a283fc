"""Masks and colour images as PNG files; the same pixels give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from scopeflow.errors import InputError
from scopeflow.io.files import atomic_path


def save_png(path: str | Path, image: NDArray[Any]) -> None:
    """Write a mask (bool, as 0 and 255) or an 8-bit image, ``(H, W)`` or ``(H, W, 3)``, as PNG.

    An older file is replaced.

    Raises InputError: for another shape or type.
    Raises OutputError: when it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "mask.png"
    >>> save_png(path, np.eye(3, dtype=bool))
    >>> imagecodecs.png_decode(path.read_bytes()).max()
    np.uint8(255)
    """
    values = np.asarray(image)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    if values.dtype != np.uint8 or not (
        values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3)
    ):
        raise InputError(
            f"an image of shape {values.shape} and type {values.dtype} cannot be a PNG here; "
            "(H, W) or (H, W, 3) of bool or uint8 is needed"
        )
    encoded = imagecodecs.png_encode(np.ascontiguousarray(values))
    with atomic_path(path, len(encoded)) as partial:
        partial.write_bytes(encoded)
