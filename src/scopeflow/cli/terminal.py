"""What commands show: tables, lines, warnings and logs, in which names of others are harmless."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from scopeflow._characters import one_line, visible

_LONGEST = 20_000


class Terminal(Console):
    """A console that shows text as it is: no markup, and control characters as escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render to segments; those that move the cursor are of rich itself."""
        for part in super().render(renderable, options):
            if part.control or part.text.isprintable():
                yield part
            else:
                # The line ends of a table are its own.
                lines = part.text.split("\n")
                yield Segment("\n".join(map(visible, lines)), part.style)


def cell(text: object) -> Text:
    """Return one cell of a table for a text of others: folded, in one row."""
    return Text(visible(str(text)), overflow="fold")


def say(text: object) -> None:
    """Write one line to standard output, such as a path."""
    sys.stdout.write(visible(str(text)) + "\n")


def complain(message: str) -> None:
    """Write one message to standard error."""
    # A message of many recordings may be long, one that holds a whole file helps nobody.
    text = Text(one_line(message[:_LONGEST]), style="bold red")
    Terminal(stderr=True, soft_wrap=True).print(text, soft_wrap=True)


class _Wanted:
    debug = False


def show_everything(wanted: bool) -> None:
    """Say whether logs, warnings and errors come with the code that led to them."""
    _Wanted.debug = wanted


def start_logging(verbose: bool) -> None:
    """Send log messages to standard error: warnings and progress, or everything of interest."""
    # Only our own messages: a cluster in this process would add a page of its own.
    package = logging.getLogger("scopeflow")
    for handler in [known for known in package.handlers if isinstance(known, _ToStandardError)]:
        package.removeHandler(handler)
    package.addHandler(_ToStandardError())
    usual = logging.INFO if verbose else logging.WARNING
    package.setLevel(logging.DEBUG if _Wanted.debug else usual)
    # Batch systems keep standard error: the lines of progress are wanted there in any case, and
    # so is the reason why the very first run starts slowly.
    for name in ("scopeflow.engine.progress", "scopeflow.compiled.gateway"):
        logging.getLogger(name).setLevel(logging.DEBUG if _Wanted.debug else logging.INFO)


class _ToStandardError(logging.Handler):
    """Writes to whatever standard error is at the moment of the message."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
            sys.stderr.write(f"{level}{one_line(record.getMessage())}\n")
            if _Wanted.debug and record.exc_info:
                trace = logging.Formatter().formatException(record.exc_info)
                sys.stderr.write("\n".join(map(visible, trace.split("\n"))) + "\n")
        except Exception:  # as all handlers do
            self.handleError(record)


@contextmanager
def short_warnings() -> Iterator[None]:
    """Show warnings as one line, without the line of code that says so."""
    shown_before = warnings.showwarning
    # A helper of Python that counts what killed workers held, in a process of its own.
    silent = "ignore::UserWarning:multiprocessing.resource_tracker"
    given = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = silent if not given else f"{given},{silent}"

    def show(message: Any, category: Any, *where: Any, **more: Any) -> None:
        if _Wanted.debug:
            shown_before(message, category, *where, **more)
        else:
            sys.stderr.write(f"warning: {one_line(str(message))}\n")

    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        finally:
            if given is None:
                del os.environ["PYTHONWARNINGS"]
            else:
                os.environ["PYTHONWARNINGS"] = given
