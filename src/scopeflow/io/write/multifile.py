"""Recordings as one file a channel, all complete or none announced; writes, never reads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from numpy.typing import DTypeLike, NDArray

from scopeflow.errors import InputError
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.write.protocol import StreamedFile

__all__ = ["ChannelFiles", "channel_paths"]


def channel_paths(path: str | Path, channels: int) -> list[Path]:
    """Return ``<stem>_ch1<suffix>`` … for the files of a recording that has one file a channel."""
    base = Path(path)
    return [base.with_name(f"{base.stem}_ch{n}{base.suffix}") for n in range(1, channels + 1)]


class ChannelFiles:
    """Streamed export to one single-channel file a channel.

    Every file is a `StreamedFile`, made by ``make(path, shape, dtype, metadata)`` with the name of
    its channel: it has its name only when it is complete. A failure in one leaves none that this
    statement has not completed before. ``path`` is the name without channel.

    Raises InputError: for a shape or dtype that the format cannot hold.
    """

    def __init__(
        self,
        path: str | Path,
        shape: tuple[int, int, int, int],
        dtype: DTypeLike,
        metadata: VideoMetadata | None,
        make: Callable[..., StreamedFile],
    ) -> None:
        known = metadata or VideoMetadata()
        names = known.channel_names
        if names is not None and len(names) != shape[3]:
            raise InputError(f"{len(names)} channel names are given for {shape[3]} channel(s)")
        self.paths = channel_paths(path, shape[3])
        self._files = [
            make(
                each,
                (*shape[:3], 1),
                dtype,
                known if names is None else replace(known, channel_names=(names[channel],)),
            )
            for channel, each in enumerate(self.paths)
        ]
        self._stack = contextlib.ExitStack()

    def write(self, frames: NDArray[Any]) -> None:
        """Append frames ``(n, H, W, C)``."""
        if frames.ndim != 4 or frames.shape[3] != len(self._files):
            raise InputError(
                f"frames of shape {frames.shape} do not fit {len(self._files)} files of one "
                "channel each, which take (n, H, W, C)"
            )
        for channel, file in enumerate(self._files):
            file.write(frames[..., channel : channel + 1])

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            for file in self._files:
                opening.enter_context(file)
            self._stack = opening.pop_all()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._stack.__exit__(kind, error, trace)
