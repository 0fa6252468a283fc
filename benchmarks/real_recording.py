"""A real two-photon recording, corrected by scopeflow and by PyFlowReg with the same options.

There is no true flow, so the frames are compared with their mean: frames smoothed by 2 frames and
1 px, a border of 10 px left out. Prints a table, may save the mean images, and exits with 1 when a
bound is not met.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from peers.client import run_peer
from quality import RecordingQuality, mean_image, recording_quality
from rich.console import Console
from rich.table import Table
from tifffile import imread

from scopeflow.report.pictures import save_before_after

ROOT = Path(__file__).resolve().parents[1]
BORDER = 10
REFERENCE_FRAMES = slice(250, 350)
# One batch is half of the recording; the second starts from the motion at the end of the first.
OPTIONS: dict[str, object] = {
    "quality_setting": "balanced",
    "sigma": [[1.0, 1.0, 0.5]],
    "buffer_size": 260,
    "save_meta_info": False,
}
MEAN_BOUND, LOW_BOUND, CRISPNESS_BOUND = 0.960, 0.945, 1.20


def run_scopeflow(video: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Registered video and flow by the public interface, and the seconds it took."""
    from scopeflow import OFOptions, compensate_arr

    start = time.perf_counter()
    registered, flow = compensate_arr(video, reference, OFOptions(**OPTIONS))
    return np.asarray(registered), np.asarray(flow), time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the peer's answers")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--picture", type=Path, help="save our mean images before and after here")
    parser.add_argument("--peer-only", action="store_true", help="show raw and peer only")
    arguments = parser.parse_args()
    path = arguments.data / "optinist_mouse2p" / "mouse2p_frames1350-1869.tif"
    if not path.is_file():
        sys.exit(f"{path} is not present: name the folder of real recordings with --data.")
    video = imread(path)[..., np.newaxis]
    reference = video[REFERENCE_FRAMES].mean(axis=0)

    peer = run_peer(
        arguments.cache,
        task="recording",
        video=video,
        reference=reference,
        options=json.dumps(OPTIONS),
    )
    qualities: dict[str, tuple[RecordingQuality, str]] = {
        "raw": (recording_quality(video, border=BORDER), ""),
        "PyFlowReg": (
            recording_quality(peer["registered"], border=BORDER),
            f"{float(peer['seconds']):.1f}",
        ),
    }
    if not arguments.peer_only:
        registered, flow, seconds = run_scopeflow(video, reference)
        ours = recording_quality(registered, border=BORDER)
        qualities["scopeflow"] = (ours, f"{seconds:.1f}")

    raw = qualities["raw"][0]
    console = Console(width=110)
    table = Table(title=f"{path.name}: correlation of frames with their mean, crispness")
    for heading in ("", "mean", "5th percentile", "crispness", "gain", "seconds"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, (quality, seconds_text) in qualities.items():
        table.add_row(
            name,
            f"{quality.mean_correlation:.4f}",
            f"{quality.low_correlation:.4f}",
            f"{quality.crispness:,.0f}",
            f"{100 * (quality.crispness / raw.crispness - 1):+.1f} %",
            seconds_text,
        )
    console.print(table)
    if arguments.peer_only:
        return 0

    inner = (slice(None), slice(8, -8), slice(8, -8))
    difference = np.linalg.norm((flow - peer["flow"])[inner], axis=-1).mean()
    console.print(f"Mean difference of the two flows, 8 px border left out: {difference:.4f} px")
    if arguments.picture:
        save_before_after(
            arguments.picture,
            mean_image(video),
            mean_image(registered),
            caption=(
                f"correlation with the mean {raw.mean_correlation:.3f} → "
                f"{ours.mean_correlation:.3f}, 5th percentile {raw.low_correlation:.3f} → "
                f"{ours.low_correlation:.3f}"
            ),
            border=BORDER,
        )
    met = {
        f"mean correlation ≥ {MEAN_BOUND}": ours.mean_correlation >= MEAN_BOUND,
        f"5th percentile ≥ {LOW_BOUND}": ours.low_correlation >= LOW_BOUND,
        f"crispness gain ≥ {100 * (CRISPNESS_BOUND - 1):.0f} %": ours.crispness
        >= CRISPNESS_BOUND * raw.crispness,
    }
    for bound, is_met in met.items():
        console.print(f"{bound}: {'met' if is_met else '[bold red]not met'}")
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
