"""Command-line options that say how a file is read where it does not tell by itself."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

Axes: TypeAlias = Annotated[
    str | None,
    typer.Option(help="One letter of TYXCZ for each stored axis, if the file tells wrongly."),
]
Dataset: TypeAlias = Annotated[
    str | None, typer.Option(help="Dataset of an HDF5, MAT or zarr file.")
]
Position: TypeAlias = Annotated[
    int | None, typer.Option(min=0, help="Stage position of an ND2 or OME-TIFF file, from 0.")
]
Missing: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="error|mask|fill|black",
        help="What pixels are that the file lacks: an error (default), invalid frames (mask), the "
        "fill value of a zarr or HDF5 archive (fill), or black images of ND2 and CZI (black).",
    ),
]
Plane: TypeAlias = Annotated[int | None, typer.Option("--z", min=0, help="Plane of a z stack.")]


def reading_choices(**given: Any) -> dict[str, Any]:
    """Return the options that were given, as `open_source` takes them."""
    return {name: value for name, value in given.items() if value is not None}
