"""Progress in frames, with rate and time left: a bar in terminals, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


class _RateColumn(ProgressColumn):
    """Frames per second."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if not rate else f"{rate:.1f} frames/s", style="progress.data.speed")


class FrameProgress:
    """Counts finished frames and shows them.

    `show`: False shows nothing; None shows a bar if standard error is a terminal, and log lines
        otherwise.

    Examples
    --------
    >>> with FrameProgress(100, "correcting", show=False) as progress:
    ...     progress.advance(20)
    >>> progress.done
    20
    """

    def __init__(self, total: int, label: str, show: bool | None = None) -> None:
        self.total = total
        self.label = label
        self.done = 0
        self.reused = 0
        self._started = time.monotonic()
        self._last_line = self._started
        self._show = show
        self._bar: Progress | None = None
        interactive = sys.stderr.isatty() or show is True
        if show is not False and interactive:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("frames"),
                _RateColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(label, total=total)

    def __enter__(self) -> FrameProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def advance(self, frames: int, *, reused: bool = False) -> None:
        """Count finished frames."""
        self.done += frames
        self.reused += frames if reused else 0
        if self._bar is not None:
            self._bar.advance(self._task, frames)
        elif self._show is not False:
            now = time.monotonic()
            if now - self._last_line > _SECONDS_BETWEEN_LINES or self.done == self.total:
                self._last_line = now
                rate = (self.done - self.reused) / max(self.seconds, 1e-9)
                left = f", {rate:.1f} frames/s" if rate else ""
                if rate and self.done < self.total:
                    left += f", {(self.total - self.done) / rate:.0f} s left"
                logger.info("%s: %d of %d frames%s", self.label, self.done, self.total, left)
