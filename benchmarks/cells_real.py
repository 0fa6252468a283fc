"""Cells of a real phase-contrast recording, found and followed, against masks made by others.

The recording is sequence 02 of PhC-C2DL-PSC of the Cell Tracking Challenge. Parameters are chosen
on the first half of its frames (--tune tries a grid) and reported on the second half: DET, SEG, TRA
and LNK as py-ctcmetrics computes them, and F1 of objects that overlap by half. As in the challenge,
objects that lie wholly within 25 px of the edge of the frame are left out on both sides. The masks
name no mothers, so that TRA and LNK know no divisions. Exits with 1 when a bound is not met.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from rich.console import Console
from rich.table import Table

from scopeflow.cells.config import ProcessingParams, WorkflowConfig
from scopeflow.cells.methods.registered import segmentation_method
from scopeflow.cells.methods.segmentation import LogStdOptions, segment
from scopeflow.cells.workflow import run_workflow

ROOT = Path(__file__).resolve().parents[1]
EDGE = 25  # of the challenge, for this data set
SETTINGS: dict[str, Any] = {
    "threshold_method": "otsu",
    "threshold_offset": 1.0,
    "morph_size": 3,
    "morph_iterations": 1,
    "min_object_size": 70,
    "max_object_size": 600,
    "object_erosion": 1,
    "split": "bright",
    "split_smoothing": 1.5,
    "split_depth": 0.04,
    "iou": "mask",
}
PLAIN = {key: SETTINGS[key] for key in ("threshold_method", "morph_size", "morph_iterations")}
GRID: dict[str, Sequence[Any]] = {
    "threshold_offset": (0.3, 0.6, 0.8, 1.0, 1.3),
    "object_erosion": (0, 1),
    "min_object_size": (40, 70),
    "split": ("none", "distance", "bright"),
    "split_smoothing": (1.0, 1.5, 2.0),
}
BOUNDS = {"DET": 0.95, "SEG": 0.72, "TRA": 0.95, "F1": 0.9}


def field_of_interest(labels: np.ndarray, edge: int = EDGE) -> np.ndarray:
    """Labels (T, H, W) without the objects that have no pixel farther than `edge` from the edge."""
    kept = np.zeros_like(labels)
    for t, frame in enumerate(labels):
        inside = np.zeros(int(frame.max()) + 1, bool)
        inside[np.unique(frame[edge : frame.shape[0] - edge, edge : frame.shape[1] - edge])] = True
        inside[0] = False
        kept[t] = np.where(inside[frame], frame, 0)
    return kept


def overlap_scores(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """SEG, and F1 of objects whose intersection over union is at least one half."""
    hits, shared, n_found, n_truth = 0, 0.0, 0, 0
    for ours, theirs in zip(found.astype(np.int64), truth.astype(np.int64), strict=True):
        columns = int(ours.max()) + 1
        both = np.bincount((theirs * columns + ours).ravel())
        both = np.pad(both, (0, columns * (int(theirs.max()) + 1) - both.size)).reshape(-1, columns)
        area_theirs, area_ours = both.sum(axis=1), both.sum(axis=0)
        union = area_theirs[:, None] + area_ours[None, :] - both
        iou = (both / np.maximum(union, 1))[1:, 1:]
        hits += int((iou >= 0.5).sum())
        shared += float(iou[both[1:, 1:] > 0.5 * area_theirs[1:, None]].sum())
        n_truth += int((area_theirs[1:] > 0).sum())
        n_found += int((area_ours[1:] > 0).sum())
    return {"SEG": shared / n_truth, "F1": 2 * hits / (n_found + n_truth)}


def write_tracks(labels: np.ndarray, folder: Path, mask: str, table: str) -> None:
    """Write labels as the challenge does; a track that pauses is a new track afterwards."""
    folder.mkdir(parents=True)
    rows: list[list[int]] = []
    current: dict[int, int] = {}
    for t, frame in enumerate(labels):
        present = np.unique(frame[frame > 0]).tolist()
        numbers = np.zeros(int(frame.max()) + 1, np.uint16)
        following: dict[int, int] = {}
        for label in present:
            if label not in current:
                rows.append([len(rows) + 1, t, t, 0])
            following[label] = current.get(label, len(rows))
            rows[following[label] - 1][2] = t
            numbers[label] = following[label]
        current = following
        tifffile.imwrite(folder / mask.format(t), numbers[frame])
    np.savetxt(folder / table, np.array(rows).reshape(-1, 4), fmt="%d")


def challenge_scores(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """DET, SEG, TRA and LNK of py-ctcmetrics for label stacks (T, H, W)."""
    from ctc_metrics import evaluate_sequence

    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        ours, theirs = Path(scratch) / "RES", Path(scratch) / "GT"
        write_tracks(found, ours, "mask{:03d}.tif", "res_track.txt")
        write_tracks(truth, theirs / "TRA", "man_track{:03d}.tif", "man_track.txt")
        write_tracks(truth, theirs / "SEG", "man_seg{:03d}.tif", "unused.txt")
        (theirs / "SEG" / "unused.txt").unlink()
        names = ["Valid", "DET", "SEG", "TRA", "LNK"]
        scores = evaluate_sequence(str(ours), str(theirs), names, threads=1)
    if not scores["Valid"]:
        sys.exit("py-ctcmetrics does not accept the tracks.")
    return {name: float(scores[name]) for name in names[1:]}


def read_truth(data: Path) -> np.ndarray:
    """Masks (T, H, W) of the recording; numbers persist in time."""
    files = sorted((data / "02_ST" / "SEG").glob("*.tif"))
    return np.stack([tifffile.imread(file) for file in files])


def run(data: Path, output: Path, settings: dict[str, Any]) -> np.ndarray:
    """Tracked labels (T, H, W) of the whole workflow."""
    config = WorkflowConfig(channels={"pc": 0}, params={**settings, "border_margin": 0})
    if not run_workflow(data / "02", output, config):
        sys.exit("The workflow failed; its messages say why.")
    group = zarr.open_group(output / "fov_000" / "images.zarr", mode="r")
    tracked: np.ndarray = np.asarray(group["seg_tracked_ch_0/0"])
    return tracked


def tune(data: Path, frames: range) -> None:
    """Print the best settings of the grid on some frames, and what they give there."""
    images = [tifffile.imread(file) for file in sorted((data / "02").glob("*.tif"))]
    truth = field_of_interest(read_truth(data)[frames])
    tried: list[tuple[dict[str, float], dict[str, Any]]] = []
    for values in itertools.product(*GRID.values()):
        changes = dict(zip(GRID, values, strict=True))
        if changes["split"] == "none" and changes["split_smoothing"] != GRID["split_smoothing"][0]:
            continue
        depth = None if changes["split"] == "distance" else SETTINGS["split_depth"]
        params = ProcessingParams(**{**SETTINGS, **changes, "split_depth": depth})
        options = segmentation_method(params)
        assert isinstance(options, LogStdOptions)
        found = np.stack([segment(images[t], options)[0] for t in frames])
        tried.append((overlap_scores(field_of_interest(found), truth), changes))
    tried.sort(key=lambda one: -one[0]["SEG"])
    table = Table("SEG", "F1", *GRID, title=f"Frames {frames.start} to {frames.stop - 1}")
    first = {
        kind: next(n for n, t in enumerate(tried) if t[1]["split"] == kind)
        for kind in GRID["split"]
    }
    for n in sorted({*range(8), *first.values()}):
        scores, changes = tried[n]
        numbers = [f"{scores[key]:.3f}" for key in ("SEG", "F1")]
        table.add_row(*numbers, *map(str, changes.values()))
    Console(width=120).print(table)


def save_picture(data: Path, tracked: np.ndarray, truth: np.ndarray, path: Path) -> None:
    """Save a part of one frame with our outlines, theirs, and our numbers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    t, window = 40, np.s_[60:330, 330:680]
    image = tifffile.imread(data / "02" / f"t{t:03d}.tif")[window]
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    for axis, labels, title, colour in (
        (axes[0], None, "Phase contrast", ""),
        (axes[1], truth[t][window], "Masks of the challenge", "#e34a33"),
        (axes[2], tracked[t][window], "scopeflow, with cell numbers", "#2ca3c7"),
    ):
        axis.imshow(image, cmap="gray", vmax=np.percentile(image, 99.5))
        axis.set_title(title)
        axis.set_axis_off()
        for label in [] if labels is None else np.unique(labels[labels > 0]).tolist():
            axis.contour(labels == label, [0.5], colors=colour, linewidths=1.0)
            if labels is not None and title.endswith("numbers"):
                y, x = (float(where.mean()) for where in np.nonzero(labels == label))
                axis.annotate(str(label), (x + 7, y - 5), color="white", fontsize=7)
    figure.savefig(path, dpi=80)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT.parent / "shared" / "data" / "ctc_PhC-C2DL-PSC" / "PhC-C2DL-PSC",
        help="folder with 02 and 02_ST",
    )
    parser.add_argument("--tune", action="store_true", help="try a grid on the first half")
    parser.add_argument("--picture", type=Path, help="save a picture here")
    arguments = parser.parse_args()
    if not (arguments.data / "02_ST").is_dir():
        sys.exit(f"{arguments.data} holds no 02_ST: name the folder of the recording with --data.")
    truth = read_truth(arguments.data)
    half = len(truth) // 2
    if arguments.tune:
        tune(arguments.data, range(0, half, 3))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        tracked = run(arguments.data, Path(scratch) / "tuned", SETTINGS)
        plain = run(arguments.data, Path(scratch) / "plain", PLAIN)
    table = Table("settings", "frames", "DET", "SEG", "TRA", "LNK", "F1")
    held_out: dict[str, float] = {}
    for name, labels, frames in (
        ("only morph_* and otsu", plain, slice(half, None)),
        ("tuned", tracked, slice(0, half)),
        ("tuned", tracked, slice(half, None)),
    ):
        found, true = field_of_interest(labels[frames]), field_of_interest(truth[frames])
        held_out = {**challenge_scores(found, true), "F1": overlap_scores(found, true)["F1"]}
        which = "tuned on" if frames.start == 0 else "held out"
        table.add_row(name, which, *(f"{value:.3f}" for value in held_out.values()))
    Console(width=120).print(table)
    if arguments.picture:
        save_picture(arguments.data, tracked, truth, arguments.picture)
    missed = {name: bound for name, bound in BOUNDS.items() if held_out[name] < bound}
    if missed:
        Console().print(f"Not met: {missed}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
