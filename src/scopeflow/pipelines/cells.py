"""The cell workflow: the story of its seven steps, from a recording to traces."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.blocks import cells as steps
from scopeflow.config.cells import WorkflowConfig
from scopeflow.config.registration import RegistrationConfig
from scopeflow.graph.cells import Outcome, Piece, tasks_of
from scopeflow.kernels.cells_background import tiles_of
from scopeflow.kernels.cells_features import resolve_features
from scopeflow.pipelines.cells_methods import preprocessors, segmentation_method
from scopeflow.pipelines.cells_plan import CONFIG_FILE, FovPlan, WorkflowPlan, plan_workflow
from scopeflow.pipelines.cells_traces import filter_cells, trace_table, write_traces
from scopeflow.runtime.executor import Executor, open_executor
from scopeflow.store.cells_store import CELLS, IMAGES, create_stack, write_array
from scopeflow.store.files import atomic_path, save_json

__all__ = ["STEPS", "run_plan", "run_workflow"]

logger = logging.getLogger(__name__)

STEPS = (
    "copy",
    "segmentation",
    "tracking",
    "background_estimation",
    "cropping",
    "extraction",
    "caching",
)
_GROUP_BYTES = 2**28

Progress = Callable[[dict[str, Any]], None]


class _Cancelled(Exception):  # noqa: N818 - no error
    """The caller asked to stop."""


def run_workflow(
    recording: Any,
    output: str | os.PathLike[str],
    config: WorkflowConfig | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    client: Any = None,
    cancel_event: Event | None = None,
    progress: Progress | None = None,
) -> bool:
    """Find, follow and measure cells in all fields of view (FOVs) of a recording.

    Seven steps: images are copied, cells found in phase contrast (LOG-STD), followed (IoU and
    Hungarian assignment), the background of fluorescence estimated, cells cut out, features
    measured, and small pictures made for viewers. Running it again continues an earlier run; steps
    whose parameters changed, and those after them, are done again.

    Parameters
    ----------
    recording : str, Path, list of them, ndarray or Source
        ND2, OME-TIFF, OME-Zarr or any other recording that scopeflow opens.
    output : path
        Folder of the results.
    config : WorkflowConfig, mapping or path, optional
        Channels and parameters; by default those of an earlier run in `output`.
    client : distributed.Client, optional
        Cluster to run on; by default the active client, else ``n_workers`` threads.
    cancel_event : threading.Event, optional
        Setting it stops the run; what was finished is kept, and the next run goes on from there.
    progress : callable, optional
        Called with ``{"step", "fov", "t", "T", "message"}``.

    Returns
    -------
    bool
        Whether every FOV was done. False after a cancellation or when one failed; the log says why.

    Raises
    ------
    ScopeflowError
        For input, options or output that cannot be used, before anything is written.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> movie = np.zeros((2, 32, 32, 1), "uint16")
    >>> run_workflow(movie, folder, {"channels": {"fl": [0]}, "params": {"copy_only": True}})
    True
    >>> sorted(path.name for path in Path(folder).glob("*"))
    ['.scopeflow', 'fov_000', 'processing_config.yaml']
    """
    plan = plan_workflow(recording, output, config)
    return run_plan(plan, client=client, cancel_event=cancel_event, progress=progress)


def run_plan(
    plan: WorkflowPlan,
    *,
    client: Any = None,
    cancel_event: Event | None = None,
    progress: Progress | None = None,
) -> bool:
    """Run a checked plan; parameters as for :func:`run_workflow`."""
    place = RegistrationConfig(n_jobs=plan.config.params.n_workers, client=client)
    _write_settings(plan)
    with open_executor(place) as executor:
        run = _Run(executor, cancel_event, progress)
        size = plan.config.params.batch_size
        try:
            for first in range(0, len(plan.fovs), size):
                run.batch([_Fov(fov) for fov in plan.fovs[first : first + size]])
        except _Cancelled:
            logger.warning("The workflow was cancelled; the same call continues it.")
            return False
    for fov, reason in sorted(run.failed.items()):
        logger.error("FOV %d failed: %s", fov, reason)
    return not run.failed


def _write_settings(plan: WorkflowPlan) -> None:
    file = plan.metadata["file_path"]
    save_json(plan.settings_path, {"recording": plan.identity, "file": file})
    text = plan.config.to_yaml(plan.metadata)
    target = plan.output / CONFIG_FILE
    if target.exists() and target.read_text(encoding="utf-8") != text:
        logger.warning("%s differs from this run and is replaced; changed steps run again", target)
    with atomic_path(target) as partial:
        partial.write_text(text, encoding="utf-8")


class _Fov:
    """What is known of a FOV while the steps run."""

    def __init__(self, plan: FovPlan) -> None:
        self.plan = plan
        self.made = plan.fingerprints()
        self.largest: dict[str, int] = {}
        self.regions: NDArray[np.int64] = np.zeros((0, 7), np.int64)
        self.overlaps: NDArray[np.int64] | None = None
        self.cells: NDArray[np.int64] = np.zeros((0, 8), np.int64)
        self.columns: dict[str, NDArray[Any]] = {}
        self.removed = {"too_small": 0, "too_large": 0}

    def piece(self, of: str, name: str, function: Any, *arguments: Any, frames: int = 0) -> Piece:
        ledger = self.plan.ledger(of, self.made)
        return Piece(self.plan.fov, name, ledger, function, arguments, frames)

    def create(self, of: str, level: str, dtype: Any, shape: Any = None) -> None:
        store = self.plan.folder / IMAGES
        create_stack(store, f"{of}/{level}", shape or self.plan.shape, dtype, self.made[of])


class _Run:
    """Runs pieces of many FOVs at once and keeps count of those that fail."""

    def __init__(self, executor: Executor, cancel: Event | None, progress: Progress | None) -> None:
        self.executor = executor
        self.cancel = cancel
        self.progress = progress
        self.failed: dict[int, str] = {}

    def batch(self, fovs: list[_Fov]) -> None:
        everything = (
            ("copy", _copy),
            ("segmentation", _segment),
            ("tracking", _track),
            ("background_estimation", _background),
            ("cropping", _crop),
            ("extraction", _extract),
            ("caching", _cache),
        )
        for step, function in everything:
            if step == "segmentation" and fovs and fovs[0].plan.config.params.copy_only:
                return
            self._check()
            function(self, step, fovs)

    def alive(self, fovs: list[_Fov]) -> list[_Fov]:
        return [fov for fov in fovs if fov.plan.fov not in self.failed]

    def guarded(self, fov: _Fov, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run what happens in this process; a failure is that of the FOV."""
        try:
            return function(*arguments)
        except Exception as error:
            logger.debug("FOV %d failed", fov.plan.fov, exc_info=True)
            self.failed.setdefault(fov.plan.fov, f"{type(error).__name__}: {error}")
            return None

    def do(self, step: str, pieces: list[Piece]) -> list[Outcome]:
        """Run pieces; outcomes are in their order."""
        outcomes: list[Outcome] = [Outcome(cancelled=True)] * len(pieces)
        totals: dict[int, int] = {}
        for piece in pieces:
            totals[piece.fov] = totals.get(piece.fov, 0) + piece.frames
        done = dict.fromkeys(totals, 0)

        def take(position: int, outcome: Outcome) -> None:
            outcomes[position] = outcome
            piece = pieces[position]
            if outcome.error is not None:
                self.failed.setdefault(piece.fov, f"{step}: {outcome.error}")
            done[piece.fov] += piece.frames
            if self.progress is not None and not outcome.cancelled:
                message = "reused" if outcome.reused else outcome.error or ""
                self.progress(
                    {
                        "step": step,
                        "fov": piece.fov,
                        "t": done[piece.fov],
                        "T": totals[piece.fov],
                        "message": message,
                    }
                )
            if not self.executor.shares_memory:
                self._check()

        # Threads of this process look at the event themselves, so none still writes at the end.
        shared = self.cancel if self.executor.shares_memory else None
        self.executor.run(tasks_of(pieces, shared), take)
        self._check()
        return outcomes

    def _check(self) -> None:
        if self.cancel is not None and self.cancel.is_set():
            raise _Cancelled


def _copy(run: _Run, step: str, fovs: list[_Fov]) -> None:
    pieces, owners = [], []
    for fov in run.alive(fovs):
        plan = fov.plan
        for name, channel in plan.copied().items():
            run.guarded(fov, fov.create, name, "0", np.uint16)
            for start, stop in plan.blocks:
                what: tuple[Any, ...] = (plan.folder, plan.source, channel, name, start, stop)
                pieces.append(
                    fov.piece(
                        name,
                        f"{name}-{start:06d}",
                        steps.copy_block,
                        *what,
                        plan.config.params.convert,
                        frames=stop - start,
                    )
                )
                owners.append((fov, name))
    clipped: dict[tuple[int, str], int] = {}
    for (fov, name), outcome in zip(owners, run.do(step, pieces), strict=True):
        values = outcome.values
        fov.largest[name] = max(fov.largest.get(name, 0), values.get("max", 0))
        key = (fov.plan.fov, name)
        clipped[key] = clipped.get(key, 0) + values.get("clipped", 0)
    for (number, name), count in clipped.items():
        if count:
            logger.warning("FOV %d, %s: %d pixels were rounded or clipped", number, name, count)


def _segment(run: _Run, step: str, fovs: list[_Fov]) -> None:
    pieces, owners = [], []
    for fov in run.alive(fovs):
        plan = fov.plan
        if plan.pc is None or plan.labelled is None:
            logger.warning("FOV %d: no phase-contrast channel; no cells are searched", plan.fov)
            continue
        run.guarded(fov, fov.create, plan.labelled, "0", np.uint16)
        method = segmentation_method(plan.config.params)
        for start, stop in plan.blocks:
            what: tuple[Any, ...] = (
                plan.folder,
                plan.pc,
                plan.labelled,
                start,
                stop,
                method,
                preprocessors(),
            )
            name = f"{plan.labelled}-{start:06d}"
            pieces.append(
                fov.piece(plan.labelled, name, steps.segment_block, *what, frames=stop - start)
            )
            owners.append(fov)
    tables: dict[int, list[NDArray[np.int64]]] = {}
    for fov, outcome in zip(owners, run.do(step, pieces), strict=True):
        if outcome.error is None:
            tables.setdefault(fov.plan.fov, []).append(outcome.arrays["regions"])
            for key in fov.removed:
                fov.removed[key] += outcome.values[key]
    for fov in run.alive(fovs):
        if fov.plan.fov in tables:
            fov.regions = np.concatenate(tables[fov.plan.fov])
        if fov.removed["too_large"]:
            logger.warning(
                "FOV %d: %d objects above max_object_size=%d px were left out",
                fov.plan.fov,
                fov.removed["too_large"],
                fov.plan.config.params.max_object_size,
            )


def _track(run: _Run, step: str, fovs: list[_Fov]) -> None:
    tracked = [fov for fov in run.alive(fovs) if fov.plan.tracked is not None]
    pieces, owners = [], []
    for fov in tracked:
        plan = fov.plan
        run.guarded(fov, fov.create, plan.tracked, "0", np.uint16)
        if plan.config.params.iou == "mask":
            for start, stop in plan.blocks:
                what: tuple[Any, ...] = (plan.folder, plan.labelled, start, stop)
                name = f"overlap-{start:06d}"
                pieces.append(fov.piece(str(plan.tracked), name, steps.overlap_block, *what))
                owners.append(fov)
    shared: dict[int, list[NDArray[np.int64]]] = {}
    for fov, outcome in zip(owners, run.do(step, pieces), strict=True):
        if outcome.error is None:
            shared.setdefault(fov.plan.fov, []).append(outcome.arrays["overlaps"])
    pieces, owners = [], run.alive(tracked)
    for fov in owners:
        overlaps = shared.get(fov.plan.fov)
        joined = None if overlaps is None else np.concatenate(overlaps)
        what = (fov.plan.shape[0], fov.regions, fov.plan.config.params.min_iou, joined)
        pieces.append(fov.piece(str(fov.plan.tracked), "links", steps.link_regions, *what))
    for fov, outcome in zip(owners, run.do(step, pieces), strict=True):
        if outcome.error is None:
            fov.cells = outcome.arrays["cells"]
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
    run.do(step, pieces)


def _background(run: _Run, step: str, fovs: list[_Fov]) -> None:
    pieces, owners = [], []
    for fov in run.alive(fovs):
        plan, params = fov.plan, fov.plan.config.params
        if plan.labelled is None:
            logger.warning("FOV %d: background without cells: every pixel counts", plan.fov)
        for fl in plan.config.channels.fl:
            out = f"fl_background_ch_{fl.channel}"
            run.guarded(fov, fov.create, out, "0", np.float32)
            for start, stop in plan.blocks:
                what: tuple[Any, ...] = (
                    plan.folder,
                    f"fl_ch_{fl.channel}",
                    plan.labelled,
                    start,
                    stop,
                )
                sizes = (params.background_tile_size, params.background_dilation)
                name = f"medians-{out}-{start:06d}"
                pieces.append(fov.piece(out, name, steps.medians_block, *what, *sizes))
                owners.append((fov, out))
    tables: dict[tuple[int, str], list[Outcome]] = {}
    for (fov, out), outcome in zip(owners, run.do(step, pieces), strict=True):
        tables.setdefault((fov.plan.fov, out), []).append(outcome)
    pieces = []
    for fov in run.alive(fovs):
        plan = fov.plan
        tiles = tiles_of(*plan.shape[1:], plan.config.params.background_tile_size)
        for fl in plan.config.channels.fl:
            out = f"fl_background_ch_{fl.channel}"
            parts = tables[plan.fov, out]
            medians = np.concatenate([part.arrays["medians"] for part in parts])
            low = np.concatenate([part.arrays["low"] for part in parts])
            medians = _fill_frames(medians.astype(np.float64), low, f"FOV {plan.fov}, {out}")
            for start, stop in plan.blocks:
                what = (plan.folder, out, start, medians[start:stop], tiles)
                pieces.append(
                    fov.piece(
                        out, f"{out}-{start:06d}", steps.surface_block, *what, frames=stop - start
                    )
                )
    run.do(step, pieces)


def _fill_frames(
    medians: NDArray[np.float64], low: NDArray[Any], where: str
) -> NDArray[np.float64]:
    """Give frames without any background that of the nearest frame in time."""
    empty = np.isnan(medians).all(axis=(1, 2))
    if not empty.any():
        return medians
    known = np.flatnonzero(~empty)
    logger.warning(
        "%s: cells cover %d frames; the background is that of the nearest frame, or the 5th "
        "percentile",
        where,
        int(empty.sum()),
    )
    filled = medians.copy()
    for t in np.flatnonzero(empty):
        filled[t] = medians[known[np.argmin(np.abs(known - t))]] if known.size else low[t]
    return filled


def _measured(fov: _Fov) -> list[steps.MeasuredChannel]:
    channels = fov.plan.config.channels
    weight = fov.plan.config.params.background_weight
    assert channels.pc is not None
    assert fov.plan.pc is not None
    features = resolve_features(channels.pc.features or (), "phase")
    chosen = [steps.MeasuredChannel(fov.plan.pc, channels.pc.channel, features)]
    for fl in channels.fl:
        features = resolve_features(fl.features or (), "fluorescence")
        background = f"fl_background_ch_{fl.channel}"
        name = f"fl_ch_{fl.channel}"
        chosen.append(steps.MeasuredChannel(name, fl.channel, features, background, weight))
    return chosen


def _crop_groups(fov: _Fov) -> list[NDArray[np.int64]]:
    """Cut the cells into groups whose crops fit into memory together; each reads all frames."""
    rows = fov.cells
    areas = (rows[:, 5] - rows[:, 3]) * (rows[:, 6] - rows[:, 4])
    cells, index, counts = np.unique(rows[:, 7], return_inverse=True, return_counts=True)
    cells_kept = counts >= fov.plan.config.params.crop_min_frames
    per_pixel = 3 + 6 * len(fov.plan.config.channels.fl)
    sizes = np.bincount(index, areas, minlength=len(cells)) * per_pixel
    groups: list[NDArray[np.int64]] = []
    members: list[int] = []
    total = 0.0
    for cell, size in zip(cells[cells_kept].tolist(), sizes[cells_kept].tolist(), strict=True):
        if members and (total + size > _GROUP_BYTES or len(members) >= 100):
            groups.append(rows[np.isin(rows[:, 7], members)])
            members, total = [], 0.0
        members.append(cell)
        total += size
    return [*groups, rows[np.isin(rows[:, 7], members)]] if members else groups


def _crop_names(plan: FovPlan) -> tuple[str, list[tuple[str, str]]]:
    """Return the name of the masks, and (stack, stack that gives the scale) of all crops."""
    assert plan.config.channels.pc is not None
    stacks = [(name, name) for name in plan.copied()]
    fl = plan.config.channels.fl
    stacks += [(f"fl_background_ch_{one.channel}", f"fl_ch_{one.channel}") for one in fl]
    return f"seg_mask_ch_{plan.config.channels.pc.channel}", stacks


def _crop_channels(fov: _Fov) -> tuple[str, list[steps.CropChannel]]:
    mask, stacks = _crop_names(fov.plan)
    return mask, [
        steps.CropChannel(stack, stack, float(fov.largest[of] or 1)) for stack, of in stacks
    ]


def _start_crops(fov: _Fov, groups: list[NDArray[np.int64]]) -> steps.Result:
    """Make an empty ``cells.zarr`` with its metadata; crops of other settings are removed."""
    import shutil

    import zarr

    store = fov.plan.folder / CELLS
    if store.exists():
        shutil.rmtree(store)
    zarr.create_group(str(store), zarr_format=3)
    n_frames = fov.plan.shape[0]
    rows = np.concatenate(groups) if groups else fov.cells[:0]
    ids = np.unique(rows[:, 7])
    boxes = np.zeros((len(ids), n_frames, 4), np.int32)
    valid = np.zeros((len(ids), n_frames), bool)
    where = np.searchsorted(ids, rows[:, 7])
    boxes[where, rows[:, 0]] = rows[:, 3:7]
    valid[where, rows[:, 0]] = True
    root = zarr.open_group(str(store), mode="r+")
    root.create_group("metadata")
    mask, channels = _crop_channels(fov)
    files = [f"{CELLS}/zarr.json", f"{CELLS}/metadata/zarr.json"]
    for name, scale in [(mask, 1.0), *((c.name, c.scale) for c in channels)]:
        root.create_group(name, attributes={"scale": scale})
        files.append(f"{CELLS}/{name}/zarr.json")
        for cell in ids.tolist():
            root.create_group(f"{name}/{cell}")
            files.append(f"{CELLS}/{name}/{cell}/zarr.json")
    files += write_array(store, "metadata/cell_ids", ids.astype(np.int32))
    files += write_array(store, "metadata/bboxes", boxes)
    files += write_array(store, "metadata/valid_frames", valid)
    return steps.Result(files)


def _crop(run: _Run, step: str, fovs: list[_Fov]) -> None:
    chosen = [fov for fov in run.alive(fovs) if fov.plan.tracked is not None]
    groups = {fov.plan.fov: _crop_groups(fov) for fov in chosen}
    first = [
        fov.piece("crops", "crops-metadata", _start_crops, fov, groups[fov.plan.fov])
        for fov in chosen
    ]
    # Here, not in tasks: they carry everything known of a FOV.
    from scopeflow.graph.cells import run_piece

    for fov, piece in zip(chosen, first, strict=True):
        outcome = run_piece(piece)
        if outcome.error is not None:
            run.failed.setdefault(fov.plan.fov, f"{step}: {outcome.error}")
        if not groups[fov.plan.fov]:
            logger.warning("FOV %d: no cell was found, so there are no crops", fov.plan.fov)
    pieces = []
    for fov in run.alive(chosen):
        plan = fov.plan
        mask, channels = _crop_channels(fov)
        for rows in groups[plan.fov]:
            name = f"crops-{int(rows[:, 7].min()):06d}"
            what: tuple[Any, ...] = (plan.folder, plan.tracked, mask, channels, rows, plan.shape[0])
            pieces.append(fov.piece("crops", name, steps.crop_cells, *what, frames=plan.shape[0]))
    run.do(step, pieces)


def _extract(run: _Run, step: str, fovs: list[_Fov]) -> None:
    chosen = [fov for fov in run.alive(fovs) if fov.plan.tracked is not None]
    pieces, owners = [], []
    for fov in chosen:
        plan = fov.plan
        for start, stop in plan.blocks:
            rows = fov.cells[(fov.cells[:, 0] >= start) & (fov.cells[:, 0] < stop)]
            what: tuple[Any, ...] = (plan.folder, plan.tracked, _measured(fov), start, stop, rows)
            name = f"measure-{start:06d}"
            pieces.append(
                fov.piece("measure", name, steps.measure_block, *what, frames=stop - start)
            )
            owners.append(fov)
    parts: dict[int, list[Outcome]] = {}
    for fov, outcome in zip(owners, run.do(step, pieces), strict=True):
        parts.setdefault(fov.plan.fov, []).append(outcome)
    for fov in run.alive(chosen):
        run.guarded(fov, _write_tables, fov, parts[fov.plan.fov])


def _write_tables(fov: _Fov, parts: list[Outcome]) -> None:
    plan, params = fov.plan, fov.plan.config.params
    failures: dict[str, int] = {}
    for part in parts:
        for name, count in part.values["failures"].items():
            failures[name] = failures.get(name, 0) + count
    for name, count in failures.items():
        logger.warning("FOV %d: %s failed in %d cells and frames; NaN there", plan.fov, name, count)
    measured = _measured(fov)
    names = [f"{name}_ch_{one.channel}" for one in measured for name in sorted(one.features)]
    columns = {
        name: np.concatenate([part.arrays.get(name, np.zeros(0)) for part in parts])
        for name in names
    }
    # Blocks hold the rows of a frame by cell.
    order = np.lexsort((fov.cells[:, 7], fov.cells[:, 0]))
    table = trace_table(plan.fov, fov.cells[order], columns)
    kept, counts = filter_cells(table, params.min_frames, params.border_margin, plan.shape[1:])
    summary = {"fov": plan.fov, **counts, **{f"objects_{k}": v for k, v in fov.removed.items()}}
    if counts["cells_tracked"] and not counts["cells_kept"]:
        logger.warning(
            "FOV %d: no trace is left: of %d cells %d were seen in fewer than min_frames=%d of %d "
            "frames and %d came within border_margin=%d px of the edge",
            plan.fov,
            counts["cells_tracked"],
            counts["cells_too_short"],
            params.min_frames,
            plan.shape[0],
            counts["cells_at_border"],
            params.border_margin,
        )
    write_traces(plan, kept, summary, fov.made)


def _cache(run: _Run, step: str, fovs: list[_Fov]) -> None:
    pieces, owners = [], []
    for fov in run.alive(fovs):
        plan = fov.plan
        frames, height, width = plan.shape
        for name in _stacks(fov):
            small = (frames, max(1, height // 2), max(1, width // 2))
            run.guarded(fov, fov.create, name, "1", np.uint8, small)
            if name.startswith("seg_"):
                continue
            for start, stop in plan.blocks:
                what: tuple[Any, ...] = (plan.folder, name, start, stop)
                pieces.append(
                    fov.piece(name, f"counts-{name}-{start:06d}", steps.count_block, *what)
                )
                owners.append((fov, name))
    counts: dict[tuple[int, str], list[Outcome]] = {}
    for (fov, name), outcome in zip(owners, run.do(step, pieces), strict=True):
        counts.setdefault((fov.plan.fov, name), []).append(outcome)
    pieces = []
    for fov in run.alive(fovs):
        plan = fov.plan
        for name in _stacks(fov):
            labels = name.startswith("seg_")
            low, high = _label_range(fov, name) if labels else _range(counts[plan.fov, name])
            for start, stop in plan.blocks:
                pieces.append(
                    fov.piece(
                        name,
                        f"display-{name}-{start:06d}",
                        _display_block,
                        plan.folder,
                        name,
                        start,
                        stop,
                        low,
                        high,
                        labels,
                        frames=stop - start,
                    )
                )
        if plan.tracked is not None:
            mask, stacks = _crop_names(plan)
            for rows in _crop_groups(fov):
                cells = np.unique(rows[:, 7]).tolist()
                crops = [f"{n}/{cell}" for n in (mask, *(s for s, _ in stacks)) for cell in cells]
                name = f"display-crops-{cells[0]:06d}"
                what = (plan.folder, crops, mask)
                pieces.append(fov.piece("crops", name, steps.display_crops, *what))
    run.do(step, pieces)


def _display_block(
    folder: Path, name: str, start: int, stop: int, low: float, high: float, labels: bool
) -> steps.Result:
    return steps.display_block(folder, name, start, stop, low, high, labels=labels)


def _stacks(fov: _Fov) -> list[str]:
    return [name for name in fov.made if name not in ("crops", "measure", "traces")]


def _label_range(fov: _Fov, name: str) -> tuple[float, float]:
    column = 1 if name == fov.plan.labelled else 7
    return 0.0, float(fov.cells[:, column].max(initial=1))


def _range(outcomes: list[Outcome]) -> tuple[float, float]:
    values = np.concatenate([one.arrays["values"] for one in outcomes])
    counts = np.concatenate([one.arrays["counts"] for one in outcomes])
    unique, index = np.unique(values, return_inverse=True)
    summed = np.bincount(index, counts).astype(np.int64)
    return steps.display_range(unique, summed)
