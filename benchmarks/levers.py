"""Which parameters of the solver buy accuracy for CPU time: iterations, eta, alpha, warm starts.

Three kinds of motion (very smooth; up to 30 px; deformation of 12 px wavelength), each at three
noise levels, are nine cells. Every candidate solves the same frames in turn. Candidates that are
not worse than the default by more than 1 % in any cell of the training recordings, at less CPU
time, are chosen there; the page docs/levers.md reports them, and everything else, on test
recordings with other cells, another motion and other noise.

Costs are the CPU time of the solving thread relative to the default on the same frame, and
iterations times pixels summed over the levels, which has no noise. Endpoint errors leave a border
out.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter

from scopeflow.flow.flow import solve_flow
from scopeflow.flow.parameters import FlowParameters
from scopeflow.flow.reference import prepare_reference
from scopeflow.images.resize import upsample_flow
from scopeflow.report.metrics import endpoint_error
from scopeflow.testing import synthetic_recording
from scopeflow.warm_up import warm_up

ROOT = Path(__file__).resolve().parents[1]
BORDER = 8
TOLERANCE = 1.01
FRAMES = 60
MOTIONS: dict[str, dict[str, float]] = {
    "very smooth": {"translation_px": 4.0, "nonrigid_px": 3.0, "wavelength_px": 400.0},
    "30 px": {"translation_px": 30.0, "nonrigid_px": 1.5, "wavelength_px": 80.0},
    "12 px wavelength": {"translation_px": 2.0, "nonrigid_px": 1.0, "wavelength_px": 12.0},
}
PHOTONS = (300, 30, 8)
SEEDS = {"training": 101, "test": 202}
QUALITIES = {"balanced": 4, "quality": 0}


@dataclass(frozen=True)
class Candidate:
    """Parameters that differ from the default, and whether the neighbouring frame gives a start."""

    name: str
    changes: dict[str, Any]
    warm: bool = False


def candidates(quality: str) -> list[Candidate]:
    """Everything that is tried; the default comes first."""
    found = [Candidate("default", {})]
    found += [Candidate(f"{n} iterations", {"iterations": n}) for n in (10, 20, 30, 40, 70, 100)]
    found += [
        Candidate("20 iterations, update_lag 3", {"iterations": 20, "update_lag": 3}),
        Candidate("30 iterations, update_lag 3", {"iterations": 30, "update_lag": 3}),
    ]
    # A coarser pyramid ends at the same or at the next finer grid.
    pyramids = {
        "balanced": ((0.64, 2), (0.7, 3), (0.7, 2), (0.5, 1), (0.9, 8)),
        "quality": ((0.5, 0), (0.6, 0), (0.7, 0), (0.9, 0)),
    }[quality]
    for eta, level in pyramids:
        found.append(Candidate(f"eta {eta}, min_level {level}", {"eta": eta, "min_level": level}))
    found += [Candidate(f"alpha {a}", {"alpha": (a, a)}) for a in (1.0, 2.0, 3.0, 4.0, 8.0)]
    eta, level = pyramids[0] if quality == "balanced" else pyramids[2]
    for iterations, alpha in ((30, 1.5), (30, 2.0), (50, 2.0), (30, 3.0)):
        changes = {"eta": eta, "min_level": level, "iterations": iterations}
        name = f"eta {eta}, min_level {level}, {iterations} iterations, alpha {alpha}"
        found.append(Candidate(name, {**changes, "alpha": (alpha, alpha)}))
    found += [
        Candidate(f"{n} iterations, alpha {a}", {"iterations": n, "alpha": (a, a)})
        for n, a in ((30, 2.0), (30, 3.0))
    ]
    found += [
        Candidate("warm", {}, warm=True),
        Candidate("warm, 20 iterations", {"iterations": 20}, warm=True),
        Candidate("warm, 8 levels", {"levels": 8}, warm=True),
        Candidate("warm, 8 levels, 30 iterations", {"levels": 8, "iterations": 30}, warm=True),
    ]
    return found


@dataclass
class Outcome:
    """Endpoint error of each cell in px, CPU time relative to the default, pixel-iterations."""

    errors: np.ndarray
    cpu: float
    pixel_iterations: float


def normalised(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """What the solver gets from a frame."""
    scaled = (image.astype(np.float64) - low) / (high - low + 1e-8)
    return gaussian_filter(scaled, (1, 1, 0)).astype(np.float32)


def measure(
    quality: str, part: str, side: int, n_frames: int, console: Console
) -> dict[str, Outcome]:
    """Solve all frames of all cells with every candidate in turn."""
    tried = candidates(quality)
    cells = [(motion, photons) for motion in MOTIONS for photons in PHOTONS]
    errors = np.zeros((len(tried), len(cells), n_frames))
    seconds = np.zeros_like(errors)
    work = np.zeros(len(tried))
    chosen = np.linspace(5, FRAMES - 5, n_frames).astype(int)
    for cell, (motion, photons) in enumerate(cells):
        recording = synthetic_recording(
            FRAMES, side, side, seed=SEEDS[part] + cell, photons=photons, **MOTIONS[motion]
        )
        reference = recording.reference.astype(np.float64)
        low, high = float(reference.min()), float(reference.max())
        fixed = normalised(reference, low, high)
        default = FlowParameters(min_level=QUALITIES[quality])
        parameters = [dataclasses.replace(default, **each.changes) for each in tried]
        prepared = [prepare_reference(fixed, None, each) for each in parameters]
        work[:] = [
            each.params.iterations * sum(level.rows * level.cols for level in each.levels)
            for each in prepared
        ]
        for number, t in enumerate(chosen):
            moving = normalised(recording.frame(t), low, high)
            before = solve_flow(prepared[0], normalised(recording.frame(t - 1), low, high))
            start = upsample_flow(before, (side, side))
            truth = recording.flow_at(t)[None]
            for row, candidate in enumerate(tried):
                began = time.thread_time()
                flow = solve_flow(prepared[row], moving, start if candidate.warm else None)
                seconds[row, cell, number] = time.thread_time() - began
                full = upsample_flow(flow, (side, side))[None]
                errors[row, cell, number] = endpoint_error(full, truth, border=BORDER).mean()
        console.print(f"{quality}, {part}: {motion}, {photons} photons", style="dim")
    # Medians of ratios on the same frame: other programs on the machine disturb both.
    cpu = np.median(seconds / seconds[0], axis=(1, 2))
    return {
        each.name: Outcome(errors[row].mean(axis=-1), float(cpu[row]), float(work[row]))
        for row, each in enumerate(tried)
    }


def passes(outcome: Outcome, default: Outcome) -> bool:
    """Not worse than the default in any cell, and cheaper."""
    return bool(
        (outcome.errors <= TOLERANCE * default.errors).all()
        and outcome.cpu < 1
        and outcome is not default
    )


def page_table(training: dict[str, Outcome], test: dict[str, Outcome]) -> list[str]:
    """Rows of markdown: relative error in each cell of the test recordings."""
    heads = [f"{motion}, {photons}" for motion in MOTIONS for photons in PHOTONS]
    lines = [
        f"| candidate | CPU | work | {' | '.join(heads)} | worst | passes training | test |",
        "|---|--:|--:|" + "--:|" * len(heads) + "--:|---|---|",
    ]
    base = test["default"]
    absolute = " | ".join(f"{error:.3f} px" for error in base.errors)
    lines.append(f"| default | 1 | 1 | {absolute} | | | |")
    for name, outcome in test.items():
        if name == "default":
            continue
        relative = outcome.errors / base.errors - 1
        cells = " | ".join(f"{100 * value:+.1f}" for value in relative)
        words = ["yes" if passes(of[name], of["default"]) else "no" for of in (training, test)]
        lines.append(
            f"| {name} | {outcome.cpu:.2f} | "
            f"{outcome.pixel_iterations / base.pixel_iterations:.2f} | {cells} | "
            f"{100 * relative.max():+.1f} % | {words[0]} | {words[1]} |"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--frames", type=int, nargs=2, default=[3, 5], help="training, test")
    parser.add_argument("--qualities", nargs="+", choices=QUALITIES, default=list(QUALITIES))
    parser.add_argument("--tables", type=Path, help="write the tables as markdown to this file")
    arguments = parser.parse_args()
    console = Console(width=150)
    warm_up()
    lines: list[str] = []
    for quality in arguments.qualities:
        training, test = (
            measure(quality, part, arguments.side, count, console)
            for part, count in zip(SEEDS, arguments.frames, strict=True)
        )
        table = Table("candidate", "CPU", "worst cell", "training", "test", title=quality)
        for name in test:
            row = [f"{test[name].cpu:.2f}"]
            row.append(f"{100 * (test[name].errors / test['default'].errors - 1).max():+.1f} %")
            row += [str(passes(of[name], of["default"])) for of in (training, test)]
            table.add_row(name, *row)
        console.print(table)
        lines += [f"## {quality}", "", *page_table(training, test), ""]
        if arguments.tables:
            arguments.tables.write_text("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
