"""The command ``scopeflow``: which commands exist, what errors look like, and exit codes.

0: all done. 1: something failed, and the message says what. 2: bad usage. 130: interrupted.
Modules that compute are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from scopeflow._version import __version__
from scopeflow.cli.cells import cells
from scopeflow.cli.correct import correct
from scopeflow.cli.demo import demo
from scopeflow.cli.inspect import inspect
from scopeflow.cli.preview import preview
from scopeflow.cli.session import session
from scopeflow.errors import ScopeflowError

INTERRUPTED = "interrupted; run the same command again to resume"


class _Commands(TyperGroup):
    """Commands whose expected failures are one line on standard error."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _complain(INTERRUPTED)
            raise typer.Exit(130) from None
        except (ScopeflowError, OSError, MemoryError) as error:
            logging.getLogger(__name__).debug("What led to the error:", exc_info=True)
            _complain(f"error: {_one_line(error)}")
            raise typer.Exit(1) from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _complain(message: str) -> None:
    console = Console(stderr=True, soft_wrap=True)
    console.print(Text(message, style="bold red"), soft_wrap=True)


app = typer.Typer(
    cls=_Commands,
    name="scopeflow",
    help="Motion correction of microscopy video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scopeflow {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Motion correction of microscopy video."""


app.command()(correct)
app.command()(inspect)
app.command()(preview)
app.command()(demo)
app.add_typer(session, name="session")
app.add_typer(cells, name="cells")


def main() -> None:
    """Run the command line; the entry point of the installed command.

    Examples
    --------
    >>> import sys
    >>> sys.argv = ["scopeflow", "--version"]
    >>> try:
    ...     main()
    ... except SystemExit as stop:
    ...     print(stop.code)
    scopeflow 0.1.0
    0
    """
    shown_before = warnings.showwarning

    def show(message: Any, category: Any, *where: Any, **more: Any) -> None:
        # What users are told; the line of code that says so is no concern of theirs.
        if category is UserWarning:
            sys.stderr.write(f"warning: {message}\n")
        else:
            shown_before(message, category, *where, **more)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            app()
    except KeyboardInterrupt:
        # Interrupted outside of a command, for instance while modules are imported.
        _complain(INTERRUPTED)
        sys.exit(130)
