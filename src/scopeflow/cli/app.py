"""The command ``scopeflow``: which commands exist, what errors look like, and exit codes.

0: all done. 1: something failed, and the message says what. 2: bad usage. 129, 130, 143: the
terminal was closed, Ctrl-C, terminated.
Modules that compute are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from scopeflow._version import __version__
from scopeflow.cli.cells import cells
from scopeflow.cli.correct import correct
from scopeflow.cli.demo import demo
from scopeflow.cli.endings import INTERRUPTED, TERMINATED, ended_by_signals, quiet_threads, report
from scopeflow.cli.inspect import inspect
from scopeflow.cli.preview import preview
from scopeflow.cli.session import session
from scopeflow.cli.terminal import short_warnings, show_everything, start_logging

__all__ = ["INTERRUPTED", "TERMINATED", "app", "main"]

_DEBUG = "--debug"
# typer has this class from click, or a copy of its own.
_BadUsage: type[Exception] = typer.BadParameter.__bases__[0]


class _Commands(TyperGroup):
    """Commands whose failures are one line on standard error."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--debug`` from wherever it stands: it means the same to every command."""
        words = args[: args.index("--")] if "--" in args else args
        if _DEBUG in words:
            rest = [word for word in words if word != _DEBUG] + args[len(words) :]
            args = [_DEBUG, *rest]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; every exception ends in a message and an exit code."""
        debug = bool(ctx.params.get("debug"))
        show_everything(debug)
        start_logging(verbose=False)
        try:
            with quiet_threads(debug):
                return super().invoke(ctx)
        except (typer.Exit, typer.Abort, _BadUsage):
            raise
        except (KeyboardInterrupt, Exception) as error:
            raise typer.Exit(report(error, debug)) from None


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
    debug: Annotated[
        bool,
        typer.Option(_DEBUG, help="Show where errors come from; may follow any command."),
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
    try:
        with ended_by_signals(), short_warnings():
            app()
    except KeyboardInterrupt as error:
        # Outside of a command, for instance while modules are imported.
        sys.exit(report(error, debug=False))
