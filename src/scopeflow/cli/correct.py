"""``scopeflow correct``: one recording, from file to file; the work is done by the pipeline."""

from __future__ import annotations

import math
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from scopeflow._characters import visible
from scopeflow.cli.selection import Axes, Dataset, Missing, Plane, Position, reading_choices
from scopeflow.cli.settings import (
    FORMATS,
    Wait,
    make_config,
    make_options,
    parse_format,
    parse_reference,
)
from scopeflow.cli.terminal import Terminal, cell, start_logging

if TYPE_CHECKING:
    from scopeflow.engine.place import RegistrationConfig
    from scopeflow.io.locations import Location
    from scopeflow.motion.correct import BatchMotionCorrector
    from scopeflow.motion.plan import CorrectionPlan
    from scopeflow.motion.store.outputs import OutputFiles


class Quality(StrEnum):
    """How fine motion is solved."""

    QUALITY = "quality"
    BALANCED = "balanced"
    FAST = "fast"


def correct(
    input_path: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="Recording: a file, a zarr folder, a folder of TIFFs, or an s3:// address.",
        ),
    ],
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="Folder of the results, or a file name that ends in .zarr, .h5, .hdf5, .tif, "
            ".tiff or .mat. Formats zarr and null also go to an s3:// address.",
        ),
    ],
    quality: Annotated[
        Quality | None,
        typer.Option(case_sensitive=False, help="Finest level that is solved. Default: quality."),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"Format of the result: {', '.join(FORMATS)}. Default: zarr.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="A:B|PATH", help="Frames A to B - 1 from 0, or an image file."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any option of OFOptions; may be repeated."
        ),
    ] = None,
    options_file: Annotated[
        Path | None,
        typer.Option("--options", metavar="FILE", help="Option file; flags and --set win."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Blocks computed at the same time. Default: all processors."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="sequential|threads|processes|ADDRESS",
            help="Where to compute; also the scheduler file of a dask cluster. Default: threads.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume", help="Continue an earlier run, or replace its results."
        ),
    ] = True,
    wait: Wait = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the plan, write nothing.")
    ] = False,
    block_length: Annotated[
        int | None, typer.Option(min=1, help="Frames computed and written together.")
    ] = None,
    save_w: Annotated[
        bool, typer.Option("--save-w", help="Write the displacements as w.h5 too.")
    ] = False,
    axes: Axes = None,
    dataset: Dataset = None,
    position: Position = None,
    z: Plane = None,
    missing: Missing = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    """Correct the motion of one recording.

    Running the same command again continues where it was interrupted.
    """
    start_logging(verbose)
    options = make_options(
        input_path,
        output,
        options_file=options_file,
        flags={
            "quality_setting": None if quality is None else quality.value,
            "output_format": None if file_format is None else parse_format(file_format),
            "reference_frames": None if reference is None else parse_reference(reference),
            "save_w": save_w or None,
            "verbose": verbose or None,
        },
        assignments=assignments or [],
    )
    config = make_config(
        scheduler, workers, resume=resume, wait=wait, block_length=block_length, verbose=verbose
    )
    from scopeflow.motion.correct import BatchMotionCorrector
    from scopeflow.motion.plan import plan_correction
    from scopeflow.warm_up import start_compiling

    selection = reading_choices(axes=axes, dataset=dataset, position=position, z=z, missing=missing)
    plan = plan_correction(options, config, selection=selection)
    console = Terminal()
    if dry_run:
        _print_plan(console, plan, config)
        return
    started = time.monotonic()
    start_compiling()
    corrector = BatchMotionCorrector(options, config)
    corrector.run_plan(plan)
    _print_summary(console, plan, corrector, time.monotonic() - started)


def _print_plan(console: Terminal, plan: CorrectionPlan, config: RegistrationConfig) -> None:
    from scopeflow.engine.cpus import worker_count

    frames, height, width, channels = plan.recording.video.shape
    grid = plan.grid
    rows: list[tuple[str, Any]] = [
        ("recording", ", ".join(plan.recording.paths[:3])),
        ("shape (T, H, W, C)", f"{frames} × {height} × {width} × {channels}"),
        ("dtype", f"{plan.recording.video.dtype} → {plan.request.output_dtype}"),
        ("quality", plan.options.quality_setting.value),
        ("reference", _reference_text(plan)),
        ("blocks", f"{len(grid.blocks)} of {grid.block_length} frames"),
        ("batches", f"{grid.n_batches} of {grid.batch_length} frames"),
        ("memory per task", f"{plan.memory.total / 1e6:.0f} MB"),
    ]
    if config.scheduler_address is not None:
        rows.append(("runs on", config.scheduler_address))
    else:
        workers = 1 if config.parallelization == "sequential" else worker_count(config.n_jobs)
        rows.append(("runs on", f"{config.parallelization or 'threading'}, {workers} at once"))
    assert plan.files is not None  # only results in memory have no files
    rows += [("writes", str(path)) for path in _planned_files(plan, plan.files)]
    rows.append(("earlier run", _earlier_run(plan.files, config)))
    table = Table("plan", "", title="Nothing was written.", title_justify="left")
    for name, value in rows:
        table.add_row(name, cell(value))
    console.print(table)


def _reference_text(plan: CorrectionPlan) -> str:
    chosen = plan.reference.frames
    if not chosen:
        return "a given image"
    return f"{len(chosen)} frames, {min(chosen)} to {max(chosen)}"


def _planned_files(plan: CorrectionPlan, files: OutputFiles) -> list[Location]:
    options = plan.options
    side_files = {
        "w.h5": options.save_w,
        "motion.h5": options.save_motion,
        "idx.hdf": options.writes_valid_idx,
        "statistics.npz": options.save_meta_info,
        "reference_frame.npy": options.save_meta_info,
        "run.json": True,
    }
    return [
        *files.video_files,
        *(files.side_file(name) for name, written in side_files.items() if written),
    ]


def _earlier_run(files: OutputFiles, config: RegistrationConfig) -> str:
    from scopeflow.motion.store.outputs import find_finished

    if files.stored_settings() is None:
        return "none; everything is computed"
    if not config.resume:
        return "stands there and would be replaced"
    if find_finished(files) is not None:
        return "is complete; nothing would be computed"
    return "of the same settings; would be resumed, finished blocks are kept"


def _print_summary(
    console: Terminal, plan: CorrectionPlan, corrector: BatchMotionCorrector, seconds: float
) -> None:
    assert plan.files is not None  # only results in memory have no files
    frames = plan.grid.n_frames
    results = [path for path in _planned_files(plan, plan.files) if path.exists()]
    for number, path in enumerate(results):
        console.print(
            Text(("results  " if number == 0 else "         ") + visible(str(path))), soft_wrap=True
        )
    computed, reused = corrector.computed_frames, corrector.reused_frames
    rate = f", {computed / seconds:.1f} frames/s" if computed and seconds > 0 else ""
    absent = plan.recording.absent
    # Absent frames have no numbers: NaN. A sum as before, whose bits whole recordings keep.
    means = [one for one in corrector.mean_disp if not math.isnan(one)]
    largest = max(one for one in corrector.max_disp if not math.isnan(one))
    mean = sum(means) / len(means)
    clipped = corrector.clipped_values
    lines = [
        f"frames   {frames} in {seconds:.1f} s{rate}",
        f"reused   {reused} of {frames} frames ({100 * reused / frames:.0f} %) from an earlier run",
        f"motion   {mean:.2f} px mean displacement, {largest:.2f} px largest",
    ]
    if absent:
        lines.append(
            f"absent   {len(absent)} of {frames} frames had no pixels; they are marked invalid"
        )
    if clipped is not None:
        lines.append(f"clipped  {clipped} values did not fit {plan.request.output_dtype}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
