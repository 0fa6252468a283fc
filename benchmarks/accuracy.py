"""Flow of scopeflow and of PyFlowReg against known truth, and against each other.

Two things are shown. The endpoint error says that exact sub-pixel warps cost no accuracy. The
difference with warp positions rounded to 1/32 px, as OpenCV 4 does, says that everything else is
the same method. Prints a table, writes docs/accuracy.md, and exits with 1 when a bound is not met.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.image import imread
from peers.client import run_peer
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter

from scopeflow.flow.parameters import FlowParameters
from scopeflow.report.metrics import endpoint_error
from scopeflow.testing import synthetic_recording

ROOT = Path(__file__).resolve().parents[1]
BORDER = 8
# Bounds on each single case: mean difference of the flows, and endpoint error.
EXACT_BOUND = 0.08
ROUNDED_BOUND = 0.015
EPE_FACTOR, EPE_OFFSET = 1.03, 0.003
# Rounding to 1/32 px turns tiny differences into jumps that the pyramid amplifies, so the peer also
# differs from itself when its images change a little. This relative change moves its coarsest flow
# on RubberWhale by 0.4 to 0.9e-4 px; single precision moves ours by 1e-4 px.
PERTURBATION = 2.0**-17
PERTURBATIONS = 3
SELF_FACTOR = 1.5

QUALITIES = {"fast": 6, "balanced": 4, "quality": 0}
# Brightness constancy is not normalised, so its smoothness weighs about 30 times more.
ALPHAS = {"gc": 1.5, "gray": 0.05, "cs": 1.5}
PAGE = """# Accuracy of the flow

Made by `python benchmarks/accuracy.py`; do not edit by hand.

PyFlowReg (head of its main branch, commit f2879cf, OpenCV 4.12) is run as a black box on the same
normalised and smoothed images with the same parameters. All numbers are pixels, means over the
frame without a border of {BORDER} px.

* *Endpoint error*: distance to the true flow. Cells: synthetic recordings of
  `scopeflow.testing.synthetic_recording`, two frames each; clear is 300 photons per pixel at unit
  signal, noisy 30. RubberWhale: S. Baker et al., A database and evaluation methodology for optical
  flow, International Journal of Computer Vision 92 (2011).
* *Difference*: distance between the two flows. PyFlowReg interpolates at positions rounded to
  1/32 px (a property of OpenCV 4), scopeflow at exact positions.
* *Rounded*: the difference with a test-only switch that makes scopeflow round as well. What remains
  is the effect of single precision.
* *Itself*: the difference of PyFlowReg to itself when every pixel of its images changes by at most
  2⁻¹⁷ of its value, the largest of {PERTURBATIONS} trials. Rounded positions turn tiny differences
  into jumps, and the pyramid amplifies them; below this number a difference between two programs
  says nothing.

Bounds on each case: difference ≤ {EXACT_BOUND}; rounded < {ROUNDED_BOUND} or {SELF_FACTOR} ×
itself; endpoint error ≤ {EPE_FACTOR} × theirs + {EPE_OFFSET}.

**{met} of {count} cases meet all bounds**, {plain} of them without the *or*. Largest difference
{difference:.4f}, largest rounded difference {rounded:.4f} (means {mean_difference:.4f} and
{mean_rounded:.4f}); endpoint error relative to PyFlowReg {mean_ratio:+.2f} % on average,
{worst_ratio:+.1f} % at worst.

One row stands for all channel counts: endpoint errors are means, differences are maxima.

| scene | case | channels | error, PyFlowReg | error, scopeflow | difference | rounded | itself |
|---|---|---|--:|--:|--:|--:|--:|
"""
# Robust smoothness holds small gradients together more strongly, which suits census less.
ROBUST: dict[str, dict[str, object]] = {
    term: {"alpha": [alpha, alpha], "min_level": 4, "a_smooth": 0.5}
    for term, alpha in {"gc": 1.5, "gray": 0.05, "cs": 0.05}.items()
}
SINGLE_SCENE_VARIANTS = {
    "quadratic data term": {"a_data": 1.0},
    "a_smooth 0.8": {"a_smooth": 0.8},
    "a_data 0.45, 0.6, 0.9": {"a_data": [0.45, 0.6, 0.9]},
    "alpha (1.5, 6)": {"alpha": [1.5, 6.0]},
    "alpha (6, 1.5)": {"alpha": [6.0, 1.5]},
    "eta 0.5, min_level 1": {"eta": 0.5, "min_level": 1},
    "update_lag 1": {"update_lag": 1},
    "update_lag 7, iterations 30": {"update_lag": 7, "iterations": 30},
    "levels 3": {"levels": 3},
    "initial flow (1.5, -0.7)": {"uv": [1.5, -0.7]},
    "unequal channel weights": {"weight": [0.7, 0.2, 0.1]},
}


@dataclass(frozen=True)
class Scene:
    """A reference, frames that moved against it by a known flow, and what to try on them."""

    name: str
    fixed: np.ndarray
    moving: np.ndarray
    truth: np.ndarray
    cases: dict[str, dict[str, object]]


@dataclass(frozen=True)
class Row:
    """One case of one scene: mean over its frames, pixels and seconds.

    ``peer_itself`` is the difference of the peer to itself on images that changed a little.
    """

    scene: str
    channels: int
    case: str
    epe_peer: float
    epe: float
    difference: float
    rounded: float
    peer_itself: float
    seconds_peer: float
    seconds: float

    @property
    def in_plain_bounds(self) -> bool:
        """Whether the bounds are met that take nothing else into account."""
        return self.difference <= EXACT_BOUND and self.rounded < ROUNDED_BOUND

    @property
    def failures(self) -> list[str]:
        """What is not met; a NaN meets nothing."""
        rounded_bound = max(ROUNDED_BOUND, SELF_FACTOR * self.peer_itself)
        met = {
            f"difference ≤ {EXACT_BOUND}": self.difference <= EXACT_BOUND,
            f"rounded difference < {rounded_bound:.3f}": self.rounded < rounded_bound,
            f"error ≤ {EPE_FACTOR} × theirs + {EPE_OFFSET}": self.epe
            <= EPE_FACTOR * self.epe_peer + EPE_OFFSET,
        }
        return [name for name, is_met in met.items() if not is_met]


def grid() -> dict[str, dict[str, object]]:
    """Every data term at every quality, and the robust smoothness and GNC of each data term."""
    cases: dict[str, dict[str, object]] = {}
    for term, alpha in ALPHAS.items():
        base: dict[str, object] = {"alpha": [alpha, alpha], "const_assumption": term}
        for quality, min_level in QUALITIES.items():
            cases[f"{term} {quality}"] = {**base, "min_level": min_level}
        cases[f"{term} balanced, a_smooth 0.5"] = {**base, **ROBUST[term]}
    return cases


def graduated() -> dict[str, dict[str, object]]:
    """Graduated non-convexity of each data term, with the robust smoothness it is meant for."""
    schedule = {"gnc_schedule": [0.0, 0.5, 1.0], "warping_steps": 3}
    return {
        f"{term} balanced, GNC": {"const_assumption": term, **robust, **schedule}
        for term, robust in ROBUST.items()
    }


def variants() -> dict[str, dict[str, object]]:
    """Options one at a time, away from their defaults."""
    base: dict[str, object] = {"alpha": [1.5, 1.5], "min_level": 4}
    return {f"gc balanced, {name}": {**base, **v} for name, v in SINGLE_SCENE_VARIANTS.items()}


def prepared(reference: np.ndarray, moving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both normalised by the range of the reference and smoothed, for both programs alike."""
    low, high = float(reference.min()), float(reference.max())
    scale = high - low + 1e-8
    fixed = gaussian_filter((reference - low) / scale, (1, 1, 0))
    return fixed, gaussian_filter((moving - low) / scale, (0, 1, 1, 0))


def synthetic_scenes() -> Iterator[Scene]:
    """Cells at two signal-to-noise ratios, one to three channels, square and odd sizes."""
    for photons, word in ((300, "clear"), (30, "noisy")):
        for height, width in ((144, 144), (131, 167)):
            for channels in (1, 2, 3):
                recording = synthetic_recording(
                    60, height, width, channels, seed=10 * channels, photons=photons
                )
                chosen = (7, 41)
                moving = np.stack([recording.frame(t).astype(np.float64) for t in chosen])
                fixed, moving = prepared(recording.reference.astype(np.float64), moving)
                cases = grid()
                if width == 167 and channels != 2:
                    cases |= graduated()
                if width == 167 and channels == 3:
                    cases |= variants()
                yield Scene(
                    name=f"cells, {word}, {height} × {width}",
                    fixed=fixed,
                    moving=moving,
                    truth=np.stack([recording.flow_at(t) for t in chosen]),
                    cases=cases,
                )


def read_flo(path: Path) -> np.ndarray:
    """Flow of a Middlebury .flo file, shape (H, W, 2), pixels, NaN where unknown."""
    raw = path.read_bytes()
    if raw[:4] != b"PIEH":
        raise ValueError(f"{path} does not begin with the mark of a .flo file.")
    width, height = np.frombuffer(raw, "<i4", 2, offset=4)
    flow = np.frombuffer(raw, "<f4", height * width * 2, offset=12).reshape(height, width, 2)
    return np.where(np.abs(flow) > 1e9, np.nan, flow)


def middlebury_scenes(data: Path) -> Iterator[Scene]:
    """RubberWhale, a real scene with measured truth."""
    folder = data / "middlebury_flow"
    if not folder.is_dir():
        print(f"RubberWhale is left out: {folder} is not present.", file=sys.stderr)
        return
    fixed, moving = (
        imread(folder / f"RubberWhale_frame{n}.png").astype(np.float64) for n in (10, 11)
    )
    if fixed.ndim == 3:
        fixed, moving = (image[..., :3] @ [0.299, 0.587, 0.114] for image in (fixed, moving))
    truth = read_flo(folder / "RubberWhale_flow10.flo")[np.newaxis]
    fixed, moving = prepared(fixed[..., np.newaxis], moving[np.newaxis, ..., np.newaxis])
    yield Scene("RubberWhale, 388 × 584", fixed, moving, truth, grid())


def flow_parameters(case: dict[str, object]) -> FlowParameters:
    """The same parameters in the form that the kernels take."""
    kept = {k: v for k, v in case.items() if k not in ("uv", "weight", "const_assumption")}
    kept = {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}
    # get_displacement has its own default for the depth; the peer is given no other.
    kept.setdefault("levels", 50)
    return FlowParameters(data_term=case.get("const_assumption", "gc"), **kept)  # type: ignore[arg-type]


def compare(scene: Scene, cache: Path, peer_only: bool) -> Iterator[Row]:
    """Run both programs on every case of one scene."""
    parameters = json.dumps(list(scene.cases.values()))
    images = {"fixed": scene.fixed, "moving": scene.moving}
    theirs = run_peer(cache, task="flow", parameters=parameters, **images)
    itself = np.zeros(len(scene.cases))
    for seed in range(PERTURBATIONS):
        rng = np.random.default_rng(seed)
        changed = {
            name: image * (1 + PERTURBATION * rng.uniform(-1, 1, image.shape))
            for name, image in images.items()
        }
        other = run_peer(cache, task="flow", parameters=parameters, **changed)["flow"]
        error = endpoint_error(other, theirs["flow"], border=BORDER).mean(axis=-1)
        itself = np.maximum(itself, error)
    if peer_only:
        return
    from scopeflow.flow.flow import get_displacement, solve_flow
    from scopeflow.flow.reference import prepare_reference
    from scopeflow.images.resize import upsample_flow

    frames, height, width, channels = scene.moving.shape
    for number, (name, case) in enumerate(scene.cases.items()):
        arguments = dict(case)
        initial = None
        if "uv" in arguments:
            initial = np.tile(np.float64(arguments["uv"]), (height, width, 1))
            arguments["uv"] = initial
        weight = np.asarray(arguments.get("weight", np.full(channels, 1 / channels)), np.float64)
        if "weight" in arguments:
            arguments["weight"] = weight
        reference = prepare_reference(scene.fixed, weight, flow_parameters(case))
        exact, rounded = np.empty((2, frames, height, width, 2))
        seconds = 0.0
        for frame, moving in enumerate(scene.moving):
            start = time.perf_counter()
            exact[frame] = get_displacement(scene.fixed, moving, **arguments)
            seconds += time.perf_counter() - start
            coarse = solve_flow(
                reference,
                moving.astype(np.float32),
                None if initial is None else initial.astype(np.float32),
                round_positions=True,
            )
            rounded[frame] = upsample_flow(coarse, (height, width))
        peer = theirs["flow"][number]
        yield Row(
            scene=scene.name,
            channels=channels,
            case=name,
            epe_peer=float(endpoint_error(peer, scene.truth, border=BORDER).mean()),
            epe=float(endpoint_error(exact, scene.truth, border=BORDER).mean()),
            difference=float(endpoint_error(exact, peer, border=BORDER).mean()),
            rounded=float(endpoint_error(rounded, peer, border=BORDER).mean()),
            peer_itself=float(itself[number]),
            seconds_peer=float(theirs["seconds"][number].mean()),
            seconds=seconds / frames,
        )


def print_table(rows: list[Row], console: Console) -> None:
    """Every case on one line."""
    table = Table(title=f"Endpoint error and difference, pixels ({BORDER} px border left out)")
    for heading in ("scene", "C", "case"):
        table.add_column(heading)
    for heading in ("EPE peer", "EPE", "|Δ|", "rounded", "itself", "s peer", "s"):
        table.add_column(heading, justify="right")
    for row in rows:
        numbers = (row.epe_peer, row.epe, row.difference, row.rounded, row.peer_itself)
        cells = [f"{n:.4f}" for n in numbers]
        cells += [f"{row.seconds_peer:.3f}", f"{row.seconds:.3f}"]
        style = "bold red" if row.failures else None
        table.add_row(row.scene, str(row.channels), row.case, *cells, style=style)
    console.print(table)


def markdown(rows: list[Row]) -> str:
    """The page docs/accuracy.md."""
    failed = [row for row in rows if row.failures]
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.scene, row.case].append(row)
    ratios = [row.epe / row.epe_peer for row in rows]
    head = PAGE.format(
        count=len(rows),
        met=len(rows) - len(failed),
        plain=sum(row.in_plain_bounds and not row.failures for row in rows),
        mean_difference=np.mean([row.difference for row in rows]),
        mean_rounded=np.mean([row.rounded for row in rows]),
        difference=max(row.difference for row in rows),
        rounded=max(row.rounded for row in rows),
        mean_ratio=100 * (np.mean(ratios) - 1),
        worst_ratio=100 * (max(ratios) - 1),
        **globals(),
    )
    lines = [head.rstrip()]
    for (scene, case), members in groups.items():
        mark = " **(bound not met)**" if any(row.failures for row in members) else ""
        numbers = (
            np.mean([row.epe_peer for row in members]),
            np.mean([row.epe for row in members]),
            max(row.difference for row in members),
            max(row.rounded for row in members),
            max(row.peer_itself for row in members),
        )
        channels = ", ".join(str(row.channels) for row in members)
        cells = " | ".join(f"{number:.4f}" for number in numbers)
        lines.append(f"| {scene} | {case}{mark} | {channels} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the peer's answers")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "accuracy.md")
    parser.add_argument("--peer-only", action="store_true", help="fill the cache, compare nothing")
    arguments = parser.parse_args()
    console = Console(width=130)
    rows: list[Row] = []
    for scene in (*synthetic_scenes(), *middlebury_scenes(arguments.data)):
        rows += compare(scene, arguments.cache, arguments.peer_only)
        console.print(f"{scene.name}, {scene.moving.shape[-1]} channels: {len(scene.cases)} cases")
    if arguments.peer_only:
        return 0
    print_table(rows, console)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(markdown(rows), encoding="utf-8")
    failed = [row for row in rows if row.failures]
    for row in failed:
        console.print(f"[red]{row.scene}, {row.channels} channels, {row.case}: {row.failures}")
    console.print(f"{len(rows) - len(failed)} of {len(rows)} cases meet all bounds.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
