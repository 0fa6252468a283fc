"""What every streamed export shares: blocks of frames in order, one file, complete or absent."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scopeflow.errors import InputError, OutputError
from scopeflow.io.files import (
    create_partial,
    output_error,
    partial_path,
    prepare_target,
    publish,
    sweep_partials,
    writing,
)
from scopeflow.io.locations import Location, location
from scopeflow.io.metadata import VideoMetadata

logger = logging.getLogger(__name__)


class FrameWriter(Protocol):
    """A file that takes consecutive blocks of frames inside a ``with`` statement.

    The file has its final name only after the statement has ended without an exception and with
    every announced frame written.
    """

    def write(self, frames: NDArray[Any]) -> None:
        """Append frames ``(n, H, W, C)``."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None: ...


class StreamedFile(ABC):
    """Base of the exports: checks, partial name, errors. Formats add three small methods.

    ``shape`` is ``(T, H, W, C)`` of the whole recording, ``dtype`` that of every block; nothing is
    cast. An older file is replaced at the end; ``metadata`` are stored where there is a place.

    Raises InputError: for a shape or dtype that cannot be stored.
    Raises OutputError: when the target cannot be written, or lacks space.
    """

    def __init__(
        self,
        path: str | Location,
        shape: tuple[int, int, int, int],
        dtype: DTypeLike,
        metadata: VideoMetadata | None = None,
    ) -> None:
        self.path = location(path)
        self.shape = (int(shape[0]), int(shape[1]), int(shape[2]), int(shape[3]))
        self.dtype = np.dtype(dtype)
        self.metadata = metadata or VideoMetadata()
        self.frames_written = 0
        self._partial = partial_path(self.path)
        self._open = False
        if len(shape) != 4 or min(self.shape) < 1:
            raise InputError(
                f"shape is {tuple(shape)}; a recording has (T, H, W, C), each at least 1"
            )
        if self.dtype.kind not in "buif" or self.dtype.itemsize > 8:
            raise InputError(
                f"frames of {self.dtype} cannot be stored in {self.path.name}; they must be bool, "
                "integers or floats of at most 64 bits. Convert them first"
            )
        names = self.metadata.channel_names
        if names is not None and len(names) != self.shape[3]:
            raise InputError(f"{len(names)} channel names are given for {self.shape[3]} channel(s)")
        self._check()

    def _check(self) -> None:  # noqa: B027 - most formats hold everything
        """Raise `InputError` for what this format cannot hold."""

    def __enter__(self) -> Self:
        frame_values = self.shape[1] * self.shape[2] * self.shape[3]
        prepare_target(self.path, self.shape[0] * frame_values * self.dtype.itemsize)
        try:
            with writing(self.path):
                # Whoever exports holds the lock of the output: none of these is still written.
                sweep_partials(self.path)
                create_partial(self._partial)
                self._create(self._partial)
        except BaseException:
            self._discard()
            raise
        self._open = True
        return self

    def write(self, frames: NDArray[Any]) -> None:
        """Append a block of ``n >= 0`` frames ``(n, H, W, C)``, of the announced size and dtype.

        Raises InputError: for another size or dtype, or for more frames than announced.
        Raises OutputError: when the bytes cannot be written.
        """
        if not self._open:
            raise InputError(f"{self.path.name} takes frames only inside its with statement")
        if frames.ndim != 4 or frames.shape[1:] != self.shape[1:]:
            raise InputError(
                f"frames of shape {frames.shape} do not fit {self.path.name}, which takes "
                f"(n, {self.shape[1]}, {self.shape[2]}, {self.shape[3]})"
            )
        if frames.dtype != self.dtype:
            raise InputError(
                f"frames of {frames.dtype} do not fit {self.path.name}, which takes {self.dtype}. "
                "Round, clip and cast them first"
            )
        stop = self.frames_written + len(frames)
        if stop > self.shape[0]:
            raise InputError(
                f"{self.path.name} was announced with {self.shape[0]} frames and was given {stop}"
            )
        if len(frames) == 0:
            return
        with writing(self.path):
            self._append(frames, self.frames_written)
        self.frames_written = stop

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._open = False
        if error is not None:
            # The first error is the one to report; a full disk also fails the closing.
            self._discard()
            return
        try:
            if self.frames_written != self.shape[0]:
                raise OutputError(
                    f"{self.path} was announced with {self.shape[0]} frames and got "
                    f"{self.frames_written}; it was not written"
                )
            with writing(self.path):
                try:
                    self._close()
                except RuntimeError as failure:
                    # HDF5 reports some failed writes at closing as RuntimeError.
                    raise output_error(failure, self.path) from failure
                publish(self._partial, self.path)
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        try:
            self._close()
        except (OSError, RuntimeError, ValueError) as error:
            logger.debug("closing %s failed: %s", self._partial, error)
        try:
            self._partial.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s could not be removed: %s", self._partial, error)

    @abstractmethod
    def _create(self, partial: Path) -> None:
        """Open the partial file and write what comes before the frames."""

    @abstractmethod
    def _append(self, frames: NDArray[Any], start: int) -> None:
        """Write checked frames that begin at frame ``start``."""

    @abstractmethod
    def _close(self) -> None:
        """Flush and close; must do nothing when already closed or never opened."""
