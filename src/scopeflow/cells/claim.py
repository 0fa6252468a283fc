"""May the folder of a run be continued, and what of it stays? Asked before anything is written.

Results of another recording, or of nobody known, are refused. What was made with other settings,
another method or another version is taken away and made again, with the reason; it is refused where
it would stay beside new results.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from scopeflow.cells.config import WorkflowConfig
from scopeflow.cells.plan import CELLS_VERSION, CONFIG_FILE, RECORDS, TABLES, FovPlan, WorkflowPlan
from scopeflow.cells.store.arrays import CELLS, IMAGES, fov_folder
from scopeflow.cells.store.tables import LINEAGE_ENDING
from scopeflow.compiled.version import KERNEL_VERSION
from scopeflow.engine.claim import changed_settings
from scopeflow.engine.fingerprint import settings_dict
from scopeflow.engine.ledger import StoredRecord
from scopeflow.engine.lock import one_writer
from scopeflow.errors import OutputExistsError
from scopeflow.io.files import atomic_path, sweep_below, sweep_partials
from scopeflow.io.state import (
    DamagedStateError,
    State,
    Table,
    Text,
    load_state,
    read_state,
    save_state,
)
from scopeflow.strict.text import file_text, read_yaml

__all__ = ["check_output", "take_output", "taken_output"]

logger = logging.getLogger(__name__)

_STACK = re.compile(r"(pc|fl|seg_labeled|seg_tracked|fl_background)_ch_\d+")
_INSPECTED = "traces_inspected.csv"
# No result depends on these; the features stand in the channels.
_WITHOUT_EFFECT = {
    "fovs", "batch_size", "n_workers", "copy_only", "frame_interval", "time_mapping", "features",
}  # fmt: skip
_SHOWN = 6


class CellsSettings(State):
    """What the results are of, as it stands in the settings file.

    `recording`: fingerprint of the recording.
    `file`: its name, for people.
    `settings`: what else decides the results; none from early versions.
    """

    recording: str
    file: Text
    settings: Table | None = None


class _Array(BaseModel):
    """Metadata of an array of ours."""

    attributes: Table


def _settings(plan: WorkflowPlan) -> dict[str, Any]:
    """Return what decides the results, by names that tell people what changed."""
    program = {"kernels": KERNEL_VERSION, "cells": CELLS_VERSION}
    methods = plan.fovs[0].methods.by_name()
    return {"program": program, "methods": settings_dict(methods), **_options(plan.config)}


def _options(config: WorkflowConfig) -> dict[str, Any]:
    plain = config.model_dump(mode="json")
    params = {name: one for name, one in plain["params"].items() if name not in _WITHOUT_EFFECT}
    fl = {str(one["channel"]): one for one in plain["channels"]["fl"]}
    return {"channels": {"pc": plain["channels"]["pc"], "fl": fl}, "params": params}


def check_output(plan: WorkflowPlan) -> None:
    """Refuse a folder that this run may not continue; touches nothing.

    Raises OutputExistsError: it is a file, or holds results of another program or recording; fields
        of view (FOVs) that this run leaves alone have results of other settings; or quality marks
        that were made by hand belong to traces that this run replaces.
    """
    if plan.output.exists() and not plan.output.is_dir():
        raise OutputExistsError(f"{plan.output} is a file; results go into a folder")

    results = next(iter(sorted(plan.output.glob("fov_*"))), None)
    try:
        found = read_state(plan.settings_path, CellsSettings)
    except FileNotFoundError:
        if results is not None:
            raise OutputExistsError(
                f"{plan.output} holds {results.name} of another program, or of a run that was "
                "damaged. Choose another folder, or remove it"
            ) from None
        return
    except DamagedStateError as damage:
        if results is not None and not any(map(_is_of_this_recording, plan.fovs)):
            raise OutputExistsError(
                f"{damage}, and no record proves of which recording the results are. Choose "
                f"another folder, or remove {plan.output}"
            ) from None
        logger.info("%s. Its records are of this recording: it is continued.", damage)
    else:
        # Results of other settings are no reason to refuse: they are replaced, one by one.
        if found.recording != plan.identity:
            raise OutputExistsError(
                f"{plan.output} holds results of another recording ({found.file}), or the "
                "recording has changed since. Choose another folder, or remove it"
            )
    _check_mixture(plan)


def _is_of_this_recording(fov: FovPlan) -> bool:
    known = set(fov.made.values())  # each depends on the recording
    records = (load_state(path, StoredRecord) for path in fov.records.glob("*.json"))
    return any(record is not None and record.fingerprint in known for record in records)


def _check_mixture(plan: WorkflowPlan) -> None:
    chosen = {fov.fov: fov for fov in plan.fovs}
    for n, source in enumerate(plan.sources):
        name = fov_folder(n)
        records = plan.output / RECORDS / name
        if not records.is_dir():
            continue
        fov = chosen.get(n) or replace(
            plan.fovs[0], fov=n, source=source, folder=plan.output / name, records=records
        )
        stale = _stale_records(fov)
        if n not in chosen and stale:
            raise OutputExistsError(
                f"{fov.folder}: its results were made with other parameters, or by another version "
                f"of the program ({stale[0].stem}; {_reasons(plan)}), and this run leaves FOV {n} "
                "alone. Run all FOVs again, use the earlier parameters, or choose another folder"
            )
        inspected = fov.traces_path(_INSPECTED)
        if n in chosen and inspected.exists() and fov.records / "traces.json" in stale:
            raise OutputExistsError(
                f"{inspected}: these marks belong to traces of other parameters, which this run "
                f"replaces ({_reasons(plan)}). Move the file away, or choose another folder"
            )


def _stale_records(fov: FovPlan) -> list[Path]:
    known = set(fov.made.values())
    found = []
    for path in sorted(fov.records.glob("*.json")):
        record = load_state(path, StoredRecord)
        if record is not None and record.fingerprint not in known:
            found.append(path)
    return found


def _reasons(plan: WorkflowPlan) -> str:
    """Return why results of the folder are not those of this run."""
    found, settings = load_state(plan.settings_path, CellsSettings), _settings(plan)
    changes: list[str] = []
    if found is not None and found.settings is not None:
        changes = changed_settings(found.settings, settings)
    else:
        # Results from before settings were kept: the options stand in the file for people.
        try:
            stored = read_yaml(file_text(plan.output / CONFIG_FILE))
            changes = changed_settings(_options(WorkflowConfig(**stored)), _options(plan.config))
        except Exception:  # missing, damaged, or options of another version
            logger.debug("%s cannot be read", plan.output / CONFIG_FILE, exc_info=True)
    if not changes:
        return "another version of the program, or another method of the same name"
    more = ["…"] if len(changes) > _SHOWN else []
    return "; ".join([*changes[:_SHOWN], *more])


@contextmanager
def taken_output(plan: WorkflowPlan, *, wait: bool = False) -> Iterator[None]:
    """Be the only one who writes the fields of view (FOVs) of a run, and check and take them.

    Runs of other FOVs of the same output may go on at the same time.

    Raises OutputLockedError: another run writes one of them.
    Raises OutputExistsError: as :func:`check_output`, before anything is changed.
    """
    with one_writer(*(fov.folder for fov in plan.fovs), wait=wait):
        for fov in plan.fovs:
            for folder in (fov.folder, fov.records):
                sweep_below(folder)
        # The settings of all FOVs are written in a moment, so this always waits.
        with one_writer(plan.output / CONFIG_FILE, wait=True):
            for file in (plan.output / CONFIG_FILE, plan.settings_path):
                sweep_partials(file)
            take_output(plan)
        yield


def take_output(plan: WorkflowPlan) -> None:
    """Check the folder, take away what is stale, and write which settings the results are of.

    Raises OutputExistsError: as :func:`check_output`, before anything is changed.
    """
    check_output(plan)
    settings = _settings(plan)
    lost = changed_settings(settings, settings)
    if lost:
        logger.warning(
            "A later run cannot keep all results, but makes them again: %s", "; ".join(lost)
        )
    _remove_stale(plan)
    facts = CellsSettings(
        recording=plan.identity, file=plan.metadata["file_path"], settings=settings
    )
    save_state(plan.settings_path, facts)
    text = plan.config.to_yaml(plan.metadata)
    target = plan.output / CONFIG_FILE
    if target.exists() and target.read_text(encoding="utf-8") != text:
        logger.warning("%s differs from this run and is replaced; changed steps run again", target)
    with atomic_path(target) as partial:
        partial.write_text(text, encoding="utf-8")


def _remove_stale(plan: WorkflowPlan) -> None:
    """Take away what was made with other settings, once before the steps.

    A run that is interrupted leaves nothing that contradicts ``processing_config.yaml``.
    """
    reasons = ""
    for fov in plan.fovs:
        stale = _stale_records(fov) if fov.records.is_dir() else []
        if not stale:
            continue
        reasons = reasons or _reasons(plan)
        removed = _remove_results(fov, {path.stem for path in stale})
        # Records last: an interruption in between is seen again.
        for path in stale:
            path.with_suffix(".npz").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        listing = ", ".join(name for name in removed if name)
        if listing:
            logger.warning(
                "FOV %d: made again, as settings changed (%s): %s", fov.fov, reasons, listing
            )


def _remove_results(fov: FovPlan, stale: set[str]) -> list[str]:
    """Remove what stale records are of; return the names, empty where there was nothing."""
    removed: list[str] = []
    if "traces" in stale:
        removed += [_remove(fov.traces_path(ending)) for ending in TABLES]
    if "lineage" in stale:
        removed.append(_remove(fov.traces_path(LINEAGE_ENDING)))
    if any(name.startswith("crops-") for name in stale):
        removed.append(_remove(fov.folder / CELLS))
    for group in sorted((fov.folder / IMAGES).glob("*_ch_*")):
        if not _STACK.fullmatch(group.name):
            continue
        if group.name not in fov.made:
            removed.append(_remove(group))
            continue
        for level in sorted(path for path in group.iterdir() if path.is_dir()):
            facts = load_state(level / "zarr.json", _Array)
            if facts is None or facts.attributes.get("fingerprint") != fov.made[group.name]:
                removed.append(_remove(level))
        if not any(path.is_dir() for path in group.iterdir()):
            _remove(group)
    return removed


def _remove(path: Path) -> str:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    else:
        return ""
    return path.name if not path.name.isdigit() else f"{path.parent.name}/{path.name}"
