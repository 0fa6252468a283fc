"""``scopeflow session``: run a session, tell what of it is done, begin a new one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from scopeflow._characters import one_line, visible
from scopeflow.cli.settings import Wait, make_config, parse_assignments
from scopeflow.cli.terminal import Terminal, cell, start_logging

if TYPE_CHECKING:
    from scopeflow.engine.place import RegistrationConfig
    from scopeflow.sessions.config import SessionConfig

session = typer.Typer(
    help="Many recordings of one field of view become one aligned data set.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Config = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="Session file: .toml, .yaml or .yml.")
]
_SUFFIXES = (".tif", ".tiff", ".h5", ".hdf5", ".hdf", ".mat", ".nd2", ".zarr")


@session.command()
def run(
    config_file: _Config,
    stage: Annotated[
        int | None, typer.Option("--stage", "-s", min=1, max=3, help="Only this stage.")
    ] = None,
    array: Annotated[
        bool,
        typer.Option(
            "--array", help="Stage 1 of the recording of this task of a SLURM, SGE or PBS array."
        ),
    ] = False,
    index: Annotated[
        int | None,
        typer.Option("--index", "-i", min=0, help="Stage 1 of one recording, counted from 0."),
    ] = None,
    of_params: Annotated[
        list[str] | None,
        typer.Option(
            "--of-params", metavar="K=V", help="Options of stage 1; more may follow, K=V K=V."
        ),
    ] = None,
    more_params: Annotated[list[str] | None, typer.Argument(metavar="K=V", hidden=True)] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Tasks at the same time; in place of n_workers.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="sequential|threads|processes|ADDRESS",
            help="Where to compute; also the scheduler file of a dask cluster.",
        ),
    ] = None,
    wait: Wait = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the plan, write nothing.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    """Correct, match and align the recordings of a session.

    Running the same command again continues where it was interrupted.
    """
    start_logging(verbose)
    override = _overrides(of_params, more_params)
    from scopeflow.sessions.config import SessionConfig

    config = SessionConfig.from_file(config_file)
    array = _is_array(config, stage, array, index)
    if override and stage not in (None, 1):
        raise typer.BadParameter(f"--of-params are options of stage 1, not of stage {stage}")
    from scopeflow.sessions.recordings import execution_of

    execution = replace(
        execution_of(config, _execution(config, scheduler, workers, verbose)), wait=wait
    )
    console = Terminal()
    if dry_run:
        _print_plan(console, config, override, execution)
        return
    from scopeflow.errors import SessionError
    from scopeflow.sessions.run import run_session
    from scopeflow.sessions.stage1 import run_stage1, run_stage1_array
    from scopeflow.sessions.stage2 import run_stage2
    from scopeflow.sessions.stage3 import run_stage3
    from scopeflow.warm_up import start_compiling

    start_compiling()
    try:
        if array:
            run_stage1_array(config, override, execution=execution)
            _print_next(console, config_file)
        elif index is not None:
            run_stage1(config, override, index, execution=execution)
        elif stage == 1:
            run_stage1(config, override, execution=execution)
        elif stage == 2:
            run_stage2(config, execution=execution)
        elif stage == 3:
            run_stage3(config, execution=execution)
        else:
            run_session(config, override, execution=execution)
    except SessionError as error:
        if error.failures:
            _print_status(console, config)
        raise
    if not array and index is None:
        _print_status(console, config)


def _overrides(flags: list[str] | None, more: list[str] | None) -> dict[str, Any]:
    if more and not flags:
        raise typer.BadParameter(
            f"{more[0]} is not understood; options of stage 1 follow --of-params"
        )
    return parse_assignments([*(flags or []), *(more or [])], "--of-params")


def _is_array(config: SessionConfig, stage: int | None, flag: bool, index: int | None) -> bool:
    if index is not None:
        if flag or stage not in (None, 1):
            raise typer.BadParameter("--index chooses a recording of stage 1; leave the rest out")
        return False
    if flag and stage not in (None, 1):
        raise typer.BadParameter(
            f"stage {stage} needs all recordings and does not support array mode; leave --array out"
        )
    return flag or (config.scheduler == "array" and stage in (None, 1))


def _execution(
    config: SessionConfig, scheduler: str | None, workers: int | None, verbose: bool
) -> RegistrationConfig | None:
    if scheduler is None and workers is None:
        if config.scheduler == "dask":
            raise typer.BadParameter(
                "scheduler = 'dask' in the session file needs --scheduler ADDRESS or the scheduler "
                "file of a cluster"
            )
        return None
    if workers is None and scheduler in ("threads", "processes") and config.n_workers > 0:
        workers = config.n_workers
    return make_config(scheduler, workers, resume=config.resume, block_length=None, verbose=verbose)


def _print_next(console: Terminal, config_file: Path) -> None:
    console.print("When all tasks are done:")
    for stage in (2, 3):
        line = f"  scopeflow session run --config {config_file} --stage {stage}"
        console.print(Text(visible(line)), soft_wrap=True)


def _print_plan(
    console: Terminal,
    config: SessionConfig,
    override: dict[str, Any],
    execution: RegistrationConfig | None,
) -> None:
    from scopeflow.errors import SessionError
    from scopeflow.sessions.recordings import find_session_recordings
    from scopeflow.sessions.run import session_status
    from scopeflow.sessions.stage1 import plan_stage1

    recordings = find_session_recordings(config)
    jobs, failures = plan_stage1(config, recordings, override, execution=execution, dry_run=True)
    plans = {recording.name: plan for recording, plan in jobs}
    table = Table(
        "#", "recording", "frames", "H × W × C", "dtype", "stages 1 2 3", "folder of results",
        title="Nothing was written.", title_justify="left",
    )  # fmt: skip
    for status in session_status(config):
        recording = status.recording
        plan = plans.get(recording.name)
        facts = ["?", "?", "?"]
        if plan is not None:
            frames, height, width, channels = plan.recording.video.shape
            facts = [
                str(frames),
                f"{height} × {width} × {channels}",
                str(plan.request.output_dtype),
            ]
        mark = " (center)" if status.is_center else ""
        table.add_row(
            str(recording.index + 1), cell(f"{recording.path.name}{mark}"), *facts,
            " ".join(status.stages), cell(recording.folder),
        )  # fmt: skip
    console.print(table)
    output, final = config.resolve_output_paths()
    for name, folder in (("output_root  ", output), ("final_results", final)):
        console.print(Text(visible(f"{name}  {folder}")), soft_wrap=True)
    for name, reason in failures.items():
        console.print(Text(one_line(f"{name}: {reason}"), style="bold red"), soft_wrap=True)
    if failures:
        raise SessionError(f"{len(failures)} of {len(recordings)} recordings cannot be corrected")


def _print_status(console: Terminal, config: SessionConfig, *, verify: bool = False) -> bool:
    """Show what is done; return whether nothing is failed or damaged."""
    from scopeflow.sessions.center import stored_similarity
    from scopeflow.sessions.run import session_status

    statuses = session_status(config, verify=verify)
    table = Table(
        "recording", "stage 1", "stage 2", "stage 3", "similarity", "loop error", "valid", "remark"
    )
    for status in statuses:
        numbers = status.numbers
        before, after = numbers.get("similarity_before"), numbers.get("similarity_after")
        loop, valid = numbers.get("loop_error"), numbers.get("valid_share")
        remarks = ["center"] if status.is_center else []
        if numbers.get("mismatch"):
            left_out = "" if numbers.get("included") else ", left out of the mask"
            remarks.append(f"does not match: {numbers['mismatch']}{left_out}")
        remarks += status.reasons
        table.add_row(
            cell(status.recording.name),
            *status.stages,
            f"{_shown(before, '.2f')} → {_shown(after, '.2f')}" if numbers else "",
            f"{_shown(loop, '.2f')} px" if numbers else "",
            f"{100 * valid:.1f} %" if valid is not None else "",
            cell("; ".join(remarks)),
        )
    console.print(table)
    similarity = stored_similarity(config)
    if similarity is not None:
        names, values = similarity
        pairs = Table("similarity", *map(visible, names))
        for name, row in zip(names, values, strict=True):
            pairs.add_row(cell(name), *(f"{value:.2f}" for value in row))
        console.print(pairs)
    return not any(stage in ("failed", "damaged") for s in statuses for stage in s.stages)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


@session.command()
def status(
    config_file: _Config,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all files of stage 1 and check their bytes.")
    ] = False,
) -> None:
    """Tell what is done, what is missing, and why.

    Exit code 1 if a recording failed or a file is damaged.
    """
    start_logging(False)
    from scopeflow.sessions.config import SessionConfig

    config = SessionConfig.from_file(config_file)
    if not _print_status(Terminal(), config, verify=verify):
        raise typer.Exit(1)


@session.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the recordings.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default: session.toml in FOLDER."),
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Which files are recordings. Default: the most common kind.")
    ] = None,
) -> None:
    """Write a commented session file for the recordings of a folder."""
    start_logging(False)
    from scopeflow.errors import InputNotFoundError, OutputExistsError, ScopeflowError
    from scopeflow.io.files import atomic_path
    from scopeflow.io.open import open_source
    from scopeflow.sessions.config import SessionConfig
    from scopeflow.sessions.recordings import find_session_recordings
    from scopeflow.sessions.template import session_template

    if not folder.is_dir():
        raise InputNotFoundError(f"{folder} is no folder; give the folder of the recordings")
    target = output or folder / "session.toml"
    if target.exists():
        raise OutputExistsError(f"{target} exists; edit it, or choose another name with --output")
    pattern = pattern or _common_pattern(folder)
    found = find_session_recordings(SessionConfig(root=folder, pattern=pattern))
    lines = []
    for recording in found:
        name = recording.path.relative_to(folder.absolute()).as_posix()
        try:
            source = open_source(recording.path)
            frames, height, width, channels = source.shape
            lines.append(f"{name}: {frames} × {height} × {width} × {channels}, {source.dtype}")
        except ScopeflowError as error:
            lines.append(f"{name}: cannot be opened: {' '.join(str(error).split())}")
    beside = target.absolute().parent == folder.absolute()
    root = "." if beside else str(folder.absolute())
    with atomic_path(target) as partial:
        partial.write_text(session_template(root, pattern, lines), encoding="utf-8")
    console = Terminal()
    console.print(
        Text(visible(f"{target}: {len(found)} recordings that match {pattern}")), soft_wrap=True
    )


def _common_pattern(folder: Path) -> str:
    from scopeflow.errors import InputNotFoundError

    count = Counter(
        path.suffix
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    )
    if not count:
        raise InputNotFoundError(
            f"{folder} holds no recording ({', '.join(_SUFFIXES)}); give --pattern, such as "
            "'*/movie.tif'"
        )
    return f"*{count.most_common(1)[0][0]}"
