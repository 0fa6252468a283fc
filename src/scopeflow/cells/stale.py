"""Results of other settings in the folder of a run: refused where they stay, else taken away."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from scopeflow.cells.plan import RECORDS, FovPlan, WorkflowPlan
from scopeflow.cells.steps.traces import LINEAGE_ENDING
from scopeflow.cells.store.arrays import CELLS, IMAGES, fov_folder
from scopeflow.errors import OutputExistsError
from scopeflow.io.files import load_json

__all__ = ["check_mixture", "remove_stale"]

logger = logging.getLogger(__name__)

_STACK = re.compile(r"(pc|fl|seg_labeled|seg_tracked|fl_background)_ch_\d+")
_TABLES = ("traces.csv", "traces.parquet", "quality.json")
_INSPECTED = "traces_inspected.csv"


def check_mixture(plan: WorkflowPlan) -> None:
    """Refuse a run after which one folder would hold results of different settings.

    Raises
    ------
    OutputExistsError
        Fields of view (FOVs) that this run leaves alone have results of other settings, or quality
        marks that were made by hand belong to traces that this run replaces.
    """
    chosen = {fov.fov for fov in plan.fovs}
    for n, source in enumerate(plan.sources):
        fov = FovPlan(
            n,
            source,
            plan.output / fov_folder(n),
            plan.output / RECORDS / fov_folder(n),
            plan.fovs[0].base,
            plan.config,
        )
        if not fov.records.is_dir():
            continue
        made = fov.fingerprints()
        stale = _stale_records(fov, made)
        if n not in chosen and stale:
            raise OutputExistsError(
                f"{fov.folder}: its results were made with other parameters, or by another version "
                f"of the program ({stale[0].stem}), and this run leaves FOV {n} alone. Run all "
                "FOVs again, use the earlier parameters, or choose another folder"
            )
        inspected = fov.traces_path(_INSPECTED)
        if n in chosen and inspected.exists() and fov.records / "traces.json" in stale:
            raise OutputExistsError(
                f"{inspected}: these marks belong to traces of other parameters, which this run "
                "replaces. Move the file away, or choose another folder"
            )


def _stale_records(fov: FovPlan, made: Mapping[str, str]) -> list[Path]:
    known = set(made.values())
    found = []
    for path in sorted(fov.records.glob("*.json")):
        record = load_json(path)
        if isinstance(record, dict) and record.get("fingerprint") not in known:
            found.append(path)
    return found


def remove_stale(plan: WorkflowPlan) -> None:
    """Take away what was made with other settings, so that results never mix.

    Called once before the steps: a run that is interrupted leaves nothing that contradicts
    ``processing_config.yaml``.
    """
    for fov in plan.fovs:
        made = fov.fingerprints()
        stale = _stale_records(fov, made) if fov.records.is_dir() else []
        if not stale:
            continue
        removed: list[str] = []
        names = {path.stem for path in stale}
        if "traces" in names:
            removed += [_remove(fov.traces_path(ending)) for ending in _TABLES]
        if "lineage" in names:
            removed.append(_remove(fov.traces_path(LINEAGE_ENDING)))
        if any(name.startswith("crops-") for name in names):
            removed.append(_remove(fov.folder / CELLS))
        for group in sorted((fov.folder / IMAGES).glob("*_ch_*")):
            if not _STACK.fullmatch(group.name):
                continue
            if group.name not in made:
                removed.append(_remove(group))
                continue
            for level in sorted(path for path in group.iterdir() if path.is_dir()):
                facts = load_json(level / "zarr.json") or {}
                if facts.get("attributes", {}).get("fingerprint") != made[group.name]:
                    removed.append(_remove(level))
            if not any(path.is_dir() for path in group.iterdir()):
                _remove(group)
        # Records last: an interruption in between is seen again.
        for path in stale:
            path.with_suffix(".npz").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        listing = ", ".join(name for name in removed if name)
        if listing:
            logger.warning("FOV %d: parameters changed; made again: %s", fov.fov, listing)


def _remove(path: Path) -> str:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    else:
        return ""
    return path.name if not path.name.isdigit() else f"{path.parent.name}/{path.name}"
