"""Grey frames as H.264 in MP4, for people and slides, not for measuring; writes, never reads."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scopeflow.errors import InputError, OutputError
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.read.video import import_av
from scopeflow.io.write.protocol import StreamedFile

__all__ = ["PreviewWriter"]

logger = logging.getLogger(__name__)

# The second is larger and not shown by browsers; builds of FFmpeg without H.264 have it.
_CODECS = ("libx264", "libopenh264", "mpeg4")


class PreviewWriter(StreamedFile):
    """Streamed MP4 of one grey channel, uint8. Odd sizes get one more row or column, repeated.

    Raises InputError: PyAV is not installed, or frames are not one channel of uint8.
    """

    def __init__(
        self,
        path: str | Path,
        shape: tuple[int, int, int, int],
        dtype: DTypeLike = np.uint8,
        metadata: VideoMetadata | None = None,
        *,
        fps: float = 30.0,
    ) -> None:
        super().__init__(path, shape, dtype, metadata)
        if self.dtype != np.uint8 or self.shape[3] != 1:
            raise InputError(
                f"a preview takes one channel of uint8, not {self.shape[3]} of {self.dtype}"
            )
        if not 0.1 <= fps <= 1000:
            raise InputError(f"fps={fps}: give 0.1 to 1000 frames a second")
        self._av = import_av()
        self._rate = Fraction(fps).limit_denominator(1000)
        self._container: Any = None
        self._stream: Any = None

    def _create(self, partial: Path) -> None:
        _, height, width, _ = self.shape
        known = [name for name in _CODECS if name in self._av.codecs_available]
        if not known:
            raise OutputError(
                f"Cannot write {self.path}: PyAV {self._av.__version__} was built without "
                f"{', '.join(_CODECS)}. Install a wheel of PyAV"
            )
        logger.debug("%s is encoded by %s", self.path, known[0])
        self._container = self._av.open(
            str(partial), "w", format="mp4", options={"movflags": "+faststart"}
        )
        stream = self._container.add_stream(known[0], rate=self._rate)
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        # One thread: the bytes do not depend on the machine.
        stream.codec_context.thread_count = 1
        stream.options = {"crf": "18"} if known[0] == "libx264" else {}
        if known[0] != "libx264":
            stream.bit_rate = 8_000_000
        self._stream = stream

    def _append(self, frames: NDArray[Any], start: int) -> None:  # noqa: ARG002
        height, width = self.shape[1:3]
        for image in frames[..., 0]:
            even = np.pad(image, ((0, height % 2), (0, width % 2)), mode="edge")
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="gray")
            for packet in self._stream.encode(frame):
                self._container.mux(packet)

    def _close(self) -> None:
        container, self._container = self._container, None
        if container is None:
            return
        try:
            if self.frames_written == self.shape[0]:
                for packet in self._stream.encode():
                    container.mux(packet)
        finally:
            container.close()
