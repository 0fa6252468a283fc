"""``scopeflow inspect``: what is known of a recording, and where each fact was read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Recording: a file or folder.")],
    axes: Annotated[
        str | None,
        typer.Option(help="One letter of TYXCZ for each stored axis, if the file tells wrongly."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of an HDF5, MAT or zarr file.")
    ] = None,
) -> None:
    """Show axes, shape, type, sizes and times of a recording, and where each was read.

    Reads headers, no pixels.
    """
    from scopeflow.store.source import describe, open_source

    table = Table("fact", "value", "read from")
    for row in describe(open_source(path, axes=axes, dataset=dataset)):
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(table)
