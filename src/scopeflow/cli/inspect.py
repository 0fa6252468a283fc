"""``scopeflow inspect``: what is known of a recording, and where each fact was read."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from scopeflow.cli.selection import Axes, Dataset, Missing, Plane, Position, reading_choices
from scopeflow.cli.terminal import Terminal, cell, say


def inspect(
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", help="Recording: a file, a folder, or an s3:// address."),
    ],
    axes: Axes = None,
    dataset: Dataset = None,
    position: Position = None,
    z: Plane = None,
    missing: Missing = None,
) -> None:
    """Show axes, shape, type, sizes and times of a recording, and where each was read.

    Reads headers, no pixels. Of a result of scopeflow it also tells whether that is complete,
    unfinished (how many blocks) or damaged (which file), and ends with exit code 1 if it is not.
    """
    from scopeflow.io.locations import location
    from scopeflow.io.open import describe, open_source
    from scopeflow.io.zarr.completeness import condition

    place = location(path)
    inside = place / "compensated.zarr"
    found = condition(place) or condition(inside)
    if found is not None:
        say(f"result: {found}")
        if found.state != "complete":
            raise typer.Exit(1)

    chosen = reading_choices(axes=axes, dataset=dataset, position=position, z=z, missing=missing)
    source = open_source(path, **chosen)
    table = Table("fact", "value", "read from")
    for row in describe(source):
        table.add_row(*map(cell, row))
    Terminal().print(table)
