"""``scopeflow preview``: a recording as MP4 to look at; the work is done by the pipeline."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from scopeflow.cli.terminal import Terminal


def preview(
    input_path: Annotated[
        str, typer.Argument(metavar="INPUT", help="Recording: whatever inspect can open.")
    ],
    output: Annotated[str, typer.Argument(metavar="OUTPUT.mp4", help="The file to write.")],
    beside: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Second recording, shown at the right: before | after."),
    ] = None,
    contrast: Annotated[
        str | None,
        typer.Option(
            metavar="LOW:HIGH",
            help="Intensities shown black and white. Default: 0.5th and 99.5th percentile.",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=1000, help="Frames in a second. Default: the recording's rate, else 30."
        ),
    ] = None,
    frames: Annotated[
        str | None, typer.Option(metavar="A:B", help="Frames A to B - 1 from 0. Default: all.")
    ] = None,
    channel: Annotated[int, typer.Option(min=0, help="Channel, counted from 0.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older file.")] = False,
) -> None:
    """Write an MP4 of a recording, or of two side by side; needs the extra "video"."""
    from scopeflow.report.preview import write_preview

    limits = None
    if contrast is not None:
        low, high = _pair(contrast, "--contrast", r"[-+]?[\d.]+(?:[eE][-+]?\d+)?")
        limits = (float(low), float(high))
    part = None
    if frames is not None:
        first, last = _pair(frames, "--frames", r"\d+")
        part = (int(first), int(last))
    low_used, high_used = write_preview(
        input_path,
        output,
        beside=beside,
        contrast=limits,
        fps=fps,
        frames=part,
        channel=channel,
        overwrite=overwrite,
    )
    console = Terminal()
    console.print(f"preview   {output}", soft_wrap=True, highlight=False)
    console.print(f"contrast  {low_used:g} to {high_used:g}", highlight=False)


def _pair(given: str, flag: str, number: str) -> tuple[str, str]:
    match = re.fullmatch(f"({number}):({number})", given)
    if match is None:
        raise typer.BadParameter(f"{flag} {given}: write two numbers, such as {flag} 100:900")
    return match[1], match[2]
