"""``scopeflow demo``: move a real recording by a known flow, correct it, and show what is left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scopeflow.cli.terminal import Terminal, start_logging

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BORDER_PX = 8


def demo(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder of the results.")] = Path(
        "demo_results"
    ),
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    """Correct a short two-photon recording whose motion is known, and measure the error.

    The recording is real; the motion was added, so that the error can be measured against it.
    """
    start_logging(verbose)
    import numpy as np

    from scopeflow.engine.place import RegistrationConfig
    from scopeflow.io.recording import open_video
    from scopeflow.motion.correct import BatchMotionCorrector
    from scopeflow.motion.options.of_options import OFOptions
    from scopeflow.report.metrics import correlation_with_mean, endpoint_error
    from scopeflow.report.pictures import save_before_after
    from scopeflow.testing import make_demo_recording
    from scopeflow.warm_up import start_compiling, warm_up

    console = Terminal()
    moved = make_demo_recording()
    frames, height, width, _ = moved.video.shape
    raw = output / "raw" / "moved.tif"
    _write_recording(raw, moved.video)
    console.print(f"recording  {frames} frames of {height} × {width} px, {raw}", soft_wrap=True)
    # Compiled before the clock starts; later runs find the kernels on disk.
    start_compiling()
    warm_up()
    options = OFOptions(
        input_file=raw,
        output_path=output / "corrected",
        # The true flow counts from the recording before it was moved.
        reference_frames=moved.reference,
    )
    corrector = BatchMotionCorrector(options, RegistrationConfig(resume=False))
    started = time.monotonic()
    corrector.run()
    seconds = time.monotonic() - started

    target = output / "corrected" / "compensated.zarr"
    corrected = open_video(target).to_numpy()
    estimated = _displacements(target)
    before = float(
        np.mean(endpoint_error(np.zeros_like(moved.flow), moved.flow, border=_BORDER_PX))
    )
    after = float(np.mean(endpoint_error(estimated, moved.flow, border=_BORDER_PX)))
    correlations = [
        float(np.mean(correlation_with_mean(video, border=_BORDER_PX, smooth_pixels=1.0)))
        for video in (moved.video, corrected)
    ]
    picture = save_before_after(
        output / "before_after.png",
        moved.video.mean(axis=0),
        corrected.mean(axis=0),
        caption=f"Mean endpoint error {before:.2f} px before, {after:.2f} px after; correlation "
        f"with the mean image {correlations[0]:.3f} before, {correlations[1]:.3f} after",
        border=_BORDER_PX,
        zoom=False,
        dpi=110,
    )
    lines = {
        "error": f"{before:.2f} px before, {after:.2f} px after, mean endpoint error against the "
        "known motion",
        "agreement": f"{correlations[0]:.3f} before, {correlations[1]:.3f} after, mean correlation "
        "of a frame with the mean image",
        "speed": f"{frames / seconds:.0f} frames/s",
        "results": str(target),
        "picture": str(picture),
    }
    for name, text in lines.items():
        console.print(f"{name:<11}{text}", highlight=False, soft_wrap=True)


def _write_recording(path: Path, video: NDArray[Any]) -> None:
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, video[..., 0], photometric="minisblack", metadata={"axes": "TYX"})


def _displacements(target: Path) -> NDArray[Any]:
    from scopeflow.motion.store.delivery import StoredFrames
    from scopeflow.motion.store.layout import ResultStore, read_layout

    layout = read_layout(target)
    assert layout is not None  # written a moment ago
    return StoredFrames(ResultStore(str(target), layout)).flow(0, layout.shape[0])
