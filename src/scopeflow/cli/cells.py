"""``scopeflow cells``: from recordings to traces of cells; the work is done by the pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from scopeflow._characters import visible
from scopeflow.cli.settings import Wait, assigned_values
from scopeflow.cli.terminal import Terminal, cell, say, start_logging

if TYPE_CHECKING:
    from scopeflow.cells.config import WorkflowConfig
    from scopeflow.cells.plan import WorkflowPlan

cells = typer.Typer(help="Find, follow and measure cells.", no_args_is_help=True)

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]
Results = Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder of a run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]


@cells.command()
def run(
    input_path: Annotated[
        Path, typer.Argument(metavar="INPUT", help="ND2, CZI, OME-TIFF or OME-Zarr.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder of the results.")],
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="processing_config.yaml; by default that in OUTPUT."),
    ] = None,
    pc: Annotated[int | None, typer.Option(min=0, help="Phase-contrast channel.")] = None,
    fl: Annotated[
        list[int] | None, typer.Option(min=0, help="Fluorescence channel; may be repeated.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any parameter; may be repeated."),
    ] = None,
    wait: Wait = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the plan, write nothing.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Run all steps on a recording; the same command continues an interrupted run."""
    start_logging(verbose)
    from scopeflow.cells.claim import check_output
    from scopeflow.cells.plan import plan_workflow
    from scopeflow.cells.workflow import run_plan

    plan = plan_workflow(input_path, output, _configured(config, output, pc, fl, assignments or []))
    console = Terminal()
    if dry_run:
        check_output(plan)
        _print_plan(console, plan)
        return
    with console.status("starting") as line:

        def show(event: dict[str, Any]) -> None:
            line.update(f"{event['step']}, FOV {event['fov']}: {event['t']} of {event['T']} frames")

        done = run_plan(plan, progress=show, wait=wait)
    _print_status(console, output)
    if not done:
        raise typer.Exit(1)


def _configured(
    file: Path | None, output: Path, pc: int | None, fl: list[int] | None, words: list[str]
) -> WorkflowConfig:
    from scopeflow.cells.config import ProcessingParams, WorkflowConfig, load_config
    from scopeflow.errors import OptionsError

    given = assigned_values(words, list(ProcessingParams.model_fields), "--set", "min_frames=5")
    stored = output / "processing_config.yaml"
    base = WorkflowConfig()
    if file is not None or stored.exists():
        base = load_config(stored if file is None else file)
    channels = base.channels.model_dump()
    if pc is not None:
        channels["pc"] = pc
    if fl is not None:
        channels["fl"] = fl
    try:
        return WorkflowConfig(channels=channels, params={**base.params.model_dump(), **given})
    except OptionsError as error:
        raise typer.BadParameter(str(error)) from None


def _print_plan(console: Terminal, plan: WorkflowPlan) -> None:
    table = Table("FOV", "frames", "height × width", "channels", title_justify="left")
    table.title = "Nothing was written."
    for fov in plan.fovs:
        frames, height, width = fov.shape
        table.add_row(
            str(fov.fov), str(frames), f"{height} × {width}", cell(", ".join(fov.copied()))
        )
    console.print(table)


@cells.command()
def status(output: Results, verbose: Verbose = False) -> None:
    """Show what a run has finished, and why cells are missing from its traces."""
    start_logging(verbose)
    _print_status(Terminal(), output)


def _print_status(console: Terminal, output: Path) -> None:
    from scopeflow.cells.results.status import workflow_status

    names = ("FOV", "copied", "found", "followed", "cells", "too short", "at border", "kept")
    table = Table(*names, "small", "large", padding=(0, 0), title_justify="left")
    table.title = "Blocks of frames copied, found and followed; cells and where they are left out"
    table.caption = "small, large: objects of all frames outside the bounds of size"
    for row in workflow_status(output):
        table.add_row(*(visible(str(value)) for value in row))
    console.print(table)


@cells.command()
def merge(
    output: Results,
    samples: Annotated[
        list[str] | None,
        typer.Option("--sample", metavar="NAME=FOVS", help="Such as control=0-5,7; repeatable."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--samples", metavar="FILE", help="YAML with samples: [{name, fovs}]."),
    ] = None,
    tidy: Annotated[bool, typer.Option("--tidy", help="Also write one table a feature.")] = False,
    overwrite: Overwrite = False,
    wait: Wait = False,
    verbose: Verbose = False,
) -> None:
    """Put the traces of fields of view together, one table a sample."""
    start_logging(verbose)
    from scopeflow.cells.results.merge import merge_traces
    from scopeflow.cells.results.tidy import export_tidy, read_samples

    if samples and file is not None:
        raise typer.BadParameter("--sample and --samples: use one of them")
    chosen: dict[str, Any] | None = None if not samples else {}
    for word in samples or []:
        name, equals, fovs = word.partition("=")
        if not equals or chosen is None or name in chosen:
            raise typer.BadParameter(f"--sample {word}: write NAME=FOVS, each name once")
        chosen[name] = fovs
    if file is not None:
        chosen = read_samples(file)
    for path in merge_traces(output, chosen, overwrite=overwrite, wait=wait).values():
        say(path)
        for small in export_tidy(path, overwrite=overwrite, wait=wait) if tidy else ():
            say(small)


@cells.command()
def fit(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="A merged table.")],
    column: Annotated[str, typer.Option(help="Column to fit, such as intensity_total_ch_1.")],
    model: Annotated[
        str, typer.Option(help="maturation, trivial or maturation_blocked.")
    ] = "maturation",
    picture: Annotated[
        bool, typer.Option("--picture", help="Also draw points and curves, as PNG.")
    ] = False,
    overwrite: Overwrite = False,
    wait: Wait = False,
    verbose: Verbose = False,
) -> None:
    """Fit a model to every cell of a merged table."""
    start_logging(verbose)
    from scopeflow.cells.results.fit import fit_traces

    path = fit_traces(table, column, model, overwrite=overwrite, picture=picture, wait=wait)
    say(path)
    if picture:
        say(path.with_suffix(".png"))


Fovs = Annotated[
    str | None, typer.Option("--fovs", metavar="FOVS", help="Only these, such as 0-5,7.")
]


def _numbers(fovs: str | None) -> tuple[int, ...] | None:
    from scopeflow.cells.ranges import parse_ranges

    return None if fovs is None else parse_ranges(fovs)


@cells.command()
def export(
    results: Results,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")],
    format_: Annotated[
        str, typer.Option("--format", "-f", help="ome-ngff, geff, csv or parquet.")
    ] = "ome-ngff",
    fovs: Fovs = None,
    overwrite: Overwrite = False,
    wait: Wait = False,
    verbose: Verbose = False,
) -> None:
    """Write images with labels, tracks or traces for other programs."""
    start_logging(verbose)
    from scopeflow.cells.results.export import FORMATS, export_results
    from scopeflow.errors import nearest_name

    if format_ not in FORMATS:
        hint = nearest_name(format_, FORMATS)
        raise typer.BadParameter(
            f"--format {format_}: is not known.{hint} Known: {', '.join(FORMATS)}"
        )
    numbers = _numbers(fovs)
    for path in export_results(
        results, target, format_, fovs=numbers, overwrite=overwrite, wait=wait
    ):
        say(path)


@cells.command()
def view(
    results: Results,
    target: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="DIR", help="Folder of the pictures; by default OUTPUT/pictures."
        ),
    ] = None,
    fovs: Fovs = None,
    frame: Annotated[
        int | None, typer.Option(min=0, help="Frame to show; by default the middle one.")
    ] = None,
    napari: Annotated[
        bool, typer.Option("--napari", help="Open the (first) field of view in napari.")
    ] = False,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Save a picture of each field of view: cells with numbers, and their traces."""
    start_logging(verbose)
    from scopeflow.cells.results.view import open_in_napari, save_pictures

    numbers = _numbers(fovs)
    if napari:
        open_in_napari(results, None if numbers is None else numbers[0])
        return
    for path in save_pictures(results, target, fovs=numbers, frame=frame, overwrite=overwrite):
        say(path)
