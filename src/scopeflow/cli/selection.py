"""Command-line options that say how a file is read where it does not tell by itself."""

from __future__ import annotations

from typing import Annotated, TypeAlias

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
Plane: TypeAlias = Annotated[int | None, typer.Option("--z", min=0, help="Plane of a z stack.")]
