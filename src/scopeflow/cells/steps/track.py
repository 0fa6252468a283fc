"""Step 3 of the cell workflow: label, link region tables, repaint; numerics are kernels."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.cells.methods.registered import tracker
from scopeflow.cells.run import Fov, Run
from scopeflow.cells.steps import blocks as steps
from scopeflow.cells.steps import links
from scopeflow.cells.steps.traces import LINEAGE_ENDING
from scopeflow.engine.pieces import Outcome

__all__ = ["track"]

logger = logging.getLogger(__name__)


def track(run: Run, step: str, fovs: list[Fov]) -> None:
    """Give the cells of all frames their numbers."""
    tracked = [fov for fov in run.alive(fovs) if fov.plan.tracked is not None]
    for fov in tracked:
        run.guarded(fov, fov.create, fov.plan.tracked, "0", np.uint16)
    seen = _look_at_frames(run, step, tracked)
    pieces, owners = [], run.alive(tracked)
    for fov in owners:
        plan, arrays = fov.plan, seen.get(fov.plan.fov, {})
        what: tuple[Any, ...] = (plan.folder, plan.labelled, plan.shape[0], fov.regions)
        what += (tracker(plan.config.params),)
        what += tuple(arrays.get(name) for name in ("overlaps", "offsets", "shifts"))
        pieces.append(fov.piece(str(plan.tracked), "links", links.link_regions, *what))
    lineages: dict[int, NDArray[np.int64]] = {}
    for fov, outcome in zip(owners, run.do(step, pieces), strict=True):
        if outcome.failure is None:
            fov.cells = outcome.arrays["cells"]
            lineages[fov.plan.fov] = outcome.arrays["lineage"]
    pieces = []
    for fov in run.alive(tracked):
        plan = fov.plan
        for start, stop in plan.blocks:
            rows = fov.cells[(fov.cells[:, 0] >= start) & (fov.cells[:, 0] < stop)]
            what = (plan.folder, plan.labelled, plan.tracked, start, stop, rows)
            name = f"{plan.tracked}-{start:06d}"
            pieces.append(
                fov.piece(str(plan.tracked), name, steps.repaint_block, *what, frames=stop - start)
            )
        path = plan.traces_path(LINEAGE_ENDING)
        if plan.config.params.tracking_method == "iou":
            run.guarded(fov, path.unlink, True)  # of a method that was used before
        else:
            what = (path, fov.cells, lineages[plan.fov])
            pieces.append(fov.piece(str(plan.tracked), "lineage", links.write_lineage, *what))
    run.do(step, pieces)


def _look_at_frames(run: Run, step: str, fovs: list[Fov]) -> dict[int, dict[str, NDArray[Any]]]:
    """Return what links need from pixels: shared pixels of masks, and drift, by FOV."""
    pieces, owners = [], []
    for fov in run.alive(fovs):
        plan, params = fov.plan, fov.plan.config.params
        masks, mode = params.iou == "mask", params.drift_correction
        for start, stop in plan.blocks:
            if mode != "none":
                what: tuple[Any, ...] = (plan.folder, plan.pc, plan.labelled, start, stop)
                name = f"drift-{start:06d}"
                piece = fov.piece(str(plan.tracked), name, links.drift_block, *what, mode, masks)
            elif masks:
                what = (plan.folder, plan.labelled, start, stop)
                name = f"overlap-{start:06d}"
                piece = fov.piece(str(plan.tracked), name, steps.overlap_block, *what)
            else:
                continue
            pieces.append(piece)
            owners.append(fov)
    outcomes: dict[int, list[Outcome]] = {}
    for fov, outcome in zip(owners, run.do(step, pieces), strict=True):
        outcomes.setdefault(fov.plan.fov, []).append(outcome)
    found: dict[int, dict[str, NDArray[Any]]] = {}
    for fov in run.alive([fov for fov in fovs if fov.plan.fov in outcomes]):
        parts = [one.arrays for one in outcomes[fov.plan.fov]]
        joined = {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
        if fov.plan.config.params.iou != "mask":
            joined.pop("overlaps", None)
        if "shifts" in joined:
            _report_drift(fov.plan.fov, joined["shifts"])
        found[fov.plan.fov] = joined
    return found


def _report_drift(fov: int, shifts: NDArray[np.float64]) -> None:
    total = np.cumsum(shifts[:, 1:], axis=0)
    logger.info(
        "FOV %d drifted by up to %.1f px from frame to frame, %.1f px in all",
        fov,
        float(np.hypot(shifts[:, 1], shifts[:, 2]).max()),
        float(np.hypot(total[:, 0], total[:, 1]).max()),
    )
