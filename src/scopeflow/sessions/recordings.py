"""The recordings of a session: which there are, where their products stand, what is finished."""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.engine.ledger import Ledger
from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import InputError, InputNotFoundError, OptionsError
from scopeflow.io.files import load_json, save_json
from scopeflow.io.formats import OutputFormat
from scopeflow.io.read.zarr import is_zarr
from scopeflow.motion.store.outputs import STATE_FOLDER, OutputFiles, find_finished
from scopeflow.sessions.config import SessionConfig

logger = logging.getLogger(__name__)

AVERAGE = "temporal_average"
_CORRECTED = ("compensated.hdf5", "compensated.HDF5", "compensated.h5", "compensated.zarr")
_STAGE1_FILES = (*_CORRECTED, "idx.hdf", "w.h5", "motion.h5", "statistics.npz",
                 "reference_frame.npy", "run.json", "temporal_average.npy",
                 "w_to_reference.npz", "status.json")  # fmt: skip


@dataclass(frozen=True)
class SessionRecording:
    """One recording of a session and the places of its products.

    Attributes
    ----------
    index : int
        Position among the recordings, from 0.
    path : Path
        The raw recording.
    name : str
        Unique name; that of its folder of results.
    folder : Path
        Folder of its results.
    """

    index: int
    path: Path
    name: str
    folder: Path

    @property
    def average(self) -> Path:
        """Mean of the corrected frames, ``(H, W, C)`` float64."""
        return self.folder / "temporal_average.npy"

    @property
    def displacement(self) -> Path:
        """Displacement against the session's reference, arrays ``u`` and ``v``, ``(H, W)``."""
        return self.folder / "w_to_reference.npz"

    @property
    def status(self) -> Path:
        """Which stages are done."""
        return self.folder / "status.json"

    @property
    def state(self) -> Path:
        """Folder of our records about the products of the session."""
        return self.folder / STATE_FOLDER / "session"

    @property
    def failure(self) -> Path:
        """Why a stage failed, by stage."""
        return self.state / "failures.json"

    def corrected(self) -> Path | None:
        """Return the corrected recording, whatever its format and whoever wrote it."""
        return next((p for n in _CORRECTED if (p := self.folder / n).exists()), None)

    def output_files(self) -> OutputFiles | None:
        """Return the names of our stage 1 in this folder; None if we have not run it here."""
        for name, kind in (
            ("compensated.hdf5", OutputFormat.HDF5),
            ("compensated.zarr", OutputFormat.ZARR),
        ):
            files = OutputFiles(self.folder, self.folder / name, kind)
            if load_json(files.settings) is not None:
                return files
        return None

    def ledger(self, fingerprint: str) -> Ledger:
        """Return the ledger of products that stand in the recording's folder."""
        return Ledger(str(self.state), str(self.folder), fingerprint)

    def has_begun(self, product: str) -> bool:
        """Tell whether we have ever begun a product; if not, what stands there is not ours."""
        begun = load_json(self.state / "begun.json")
        return isinstance(begun, list) and product in begun

    def begin(self, product: str, fingerprint: str) -> Ledger:
        """Take back the record of a product before its file is touched; return the ledger."""
        if not self.has_begun(product):
            begun = load_json(self.state / "begun.json")
            save_json(self.state / "begun.json", [*(begun or []), product])
        ledger = self.ledger(fingerprint)
        ledger.begin(product)
        return ledger

    def stage_done(self, stage: int) -> bool:
        """Tell whether the status file says that a stage is done."""
        status = load_json(self.status)
        return isinstance(status, dict) and status.get(f"stage{stage}") == "done"

    def set_stage(self, stage: int, *, done: bool) -> None:
        """Write down that a stage is done, or begins anew; later stages then do so too."""
        status = load_json(self.status)
        status = status if isinstance(status, dict) else {}
        before = dict(status)
        if done:
            status[f"stage{stage}"] = "done"
            self.set_failure(stage, None)
        else:
            status = {k: v for k, v in status.items() if k not in _stages_from(stage)}
        if status != before or (done and not self.status.exists()):
            save_json(self.status, status)

    def set_failure(self, stage: int, reason: str | None) -> None:
        """Keep, or forget, why a stage failed."""
        failures = load_json(self.failure)
        failures = failures if isinstance(failures, dict) else {}
        if failures.pop(f"stage{stage}", None) is None and reason is None:
            return
        if reason is not None:
            failures[f"stage{stage}"] = reason
        save_json(self.failure, failures)


def _stages_from(stage: int) -> set[str]:
    return {f"stage{n}" for n in range(stage, 4)}


def find_session_recordings(config: SessionConfig) -> list[SessionRecording]:
    """Find the recordings of a session.

    Parameters
    ----------
    config : SessionConfig
        Root, pattern, excluded recordings, output folder.

    Returns
    -------
    list of SessionRecording
        In the order of their sorted paths. The name of a recording is that of its file without
        suffix; where several would have the same, the folders below root are put before it.

    Raises
    ------
    InputNotFoundError
        When nothing matches.
    OptionsError
        When an excluded recording does not exist.
    """
    outputs = config.resolve_output_paths()
    found = sorted(
        path
        for path in config.root.glob(config.pattern)
        if not any(path == folder or folder in path.parents for folder in outputs)
        and not any(part.startswith(".") for part in path.relative_to(config.root).parts)
        and not any(is_zarr(parent) for parent in path.parents)
    )
    if not found:
        raise InputNotFoundError(
            f"No files found matching pattern {config.pattern!r} in {config.root}. Correct root or "
            "pattern"
        )
    left_out: set[int] = set()
    for name in config.exclude:
        positions = config.find_recordings(name, found)
        if not positions:
            raise OptionsError(
                f"exclude names {name!r}, which is none of the recordings "
                f"{', '.join(str(p.relative_to(config.root)) for p in found)}"
            )
        left_out.update(positions)
    names = _unique_names(found, config.root)
    kept = [n for n in range(len(found)) if n not in left_out]
    if not kept:
        raise OptionsError("exclude leaves no recording; leave some of its names out")
    return [
        SessionRecording(index, found[n], names[n], outputs[0] / names[n])
        for index, n in enumerate(kept)
    ]


def _unique_names(paths: list[Path], root: Path) -> list[str]:
    forms: list[Callable[[Path], str]] = [
        lambda path: path.stem,
        lambda path: "__".join(path.relative_to(root).with_suffix("").parts),
        lambda path: "__".join(path.relative_to(root).parts).replace(".", "_"),
    ]
    names = [forms[0](path) for path in paths]
    for form in forms[1:]:
        # Folders may ignore letter case.
        count = Counter(name.casefold() for name in names)
        if max(count.values()) == 1:
            break
        names = [
            form(path) if count[name.casefold()] > 1 else name
            for path, name in zip(paths, names, strict=True)
        ]
    if len({name.casefold() for name in names}) < len(names):
        raise InputError(
            f"the recordings {', '.join(map(str, paths))} cannot be told apart by name; rename some"
        )
    return names


def execution_of(config: SessionConfig, execution: RegistrationConfig | None) -> RegistrationConfig:
    """Return where the stages of a session run; what is given wins over the session's fields."""
    if execution is None:
        execution = RegistrationConfig(
            n_jobs=config.n_workers,
            parallelization="dask" if config.scheduler == "dask" else None,
        )
    return replace(execution, resume=config.resume)


def load_average(recording: SessionRecording) -> NDArray[np.float64]:
    """Read the temporal average of a recording.

    Raises
    ------
    InputNotFoundError
        When stage 1 has not made it.
    InputError
        When it is damaged, or was changed since we wrote it.
    """
    path = recording.average
    if not path.is_file():
        raise InputNotFoundError(f"Missing temporal average: {path}. Run Stage 1 first")
    again = "Run Stage 1 again"
    try:
        average = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged ({error}). {again}") from None
    if not isinstance(average, np.ndarray) or average.ndim not in (2, 3):
        raise InputError(f"{path} holds no image (H, W, C). {again}")
    files = recording.output_files()
    if (
        files is not None
        and recording.has_begun(AVERAGE)
        and recording.ledger(settings_mark(files)).find(AVERAGE) is None
    ):
        raise InputError(f"{path} is not what stage 1 wrote. {again}")
    average = average if average.ndim == 3 else average[..., None]
    return np.ascontiguousarray(average, np.float64)


def load_averages(recordings: list[SessionRecording]) -> list[NDArray[np.float64]]:
    """Read the averages of all recordings, which must have one shape.

    Raises
    ------
    ScopeflowError
        When any is missing, damaged, or of another shape; all are named.
    """
    missing = [r for r in recordings if not r.average.is_file()]
    if len(missing) > 1:
        raise InputNotFoundError(
            f"Missing temporal average of {', '.join(r.name for r in missing)}, such as "
            f"{missing[0].average}. Run Stage 1 first"
        )
    averages = [load_average(recording) for recording in recordings]
    check_shapes([(r.name, a.shape) for r, a in zip(recordings, averages, strict=True)])
    return averages


def odd_shapes(shapes: list[tuple[str, tuple[int, ...]]]) -> dict[str, str]:
    """Return why recordings do not fit the session: another (H, W, C) than most."""
    if not shapes:
        return {}
    usual = Counter(shape for _, shape in shapes).most_common(1)[0][0]
    return {
        name: f"its frames have (H, W, C) = {shape}, those of the session {usual}; exclude it, or "
        "choose channels with flow_options"
        for name, shape in shapes
        if shape != usual
    }


def check_shapes(shapes: list[tuple[str, tuple[int, ...]]]) -> None:
    """Raise an `InputError` if recordings differ in height, width or channels."""
    odd = odd_shapes(shapes)
    if odd:
        raise InputError("; ".join(f"{name}: {reason}" for name, reason in odd.items()))


def settings_mark(files: OutputFiles) -> str:
    """Return the fingerprint of the settings that our stage 1 has run with."""
    settings: dict[str, Any] = load_json(files.settings) or {}
    return str(settings.get("fingerprint"))


def is_undamaged(files: OutputFiles) -> bool:
    """Tell whether every file that our stage 1 proved has still the same bytes."""
    if files.format is not OutputFormat.ZARR:
        return find_finished(files) is not None
    ledger = files.ledger(settings_mark(files))
    blocks = sorted(Path(ledger.folder).glob("block-*.json"))
    return bool(blocks) and all(ledger.find(path.stem) is not None for path in blocks)


def set_aside(folder: Path, names: list[str]) -> None:
    """Move files that another program left into a folder beside; nothing is deleted."""
    existing = [path for name in names if (path := folder / name).exists()]
    if not existing:
        return
    number = 1
    while (target := folder / f"set_aside_{number}").exists():
        number += 1
    target.mkdir()
    for path in existing:
        shutil.move(path, target / path.name)
    logger.warning(
        "%s: %s are not from a finished run of ours; moved to %s.",
        folder,
        ", ".join(path.name for path in existing),
        target.name,
    )


def set_stage1_aside(recording: SessionRecording) -> None:
    """Move what another program left of stage 1 out of the way."""
    set_aside(recording.folder, list(_STAGE1_FILES))


def has_foreign_stage1(recording: SessionRecording) -> bool:
    """Tell whether results of stage 1 stand there that we did not write."""
    return recording.output_files() is None and any(
        (recording.folder / name).exists() for name in _STAGE1_FILES
    )


def fields(displacement: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return a displacement ``(H, W, 2)`` as the arrays of ``w_to_reference.npz``."""
    return {
        "u": np.ascontiguousarray(displacement[..., 0]),
        "v": np.ascontiguousarray(displacement[..., 1]),
    }


def load_displacement(recording: SessionRecording, shape: tuple[int, int]) -> NDArray[Any] | None:
    """Read ``w_to_reference.npz`` as ``(H, W, 2)``; None if it is missing, damaged or unfit."""
    try:
        with open(recording.displacement, "rb") as stream, np.load(stream) as archive:
            w = np.stack([archive["u"], archive["v"]], axis=-1)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return w if w.shape == (*shape, 2) and np.isfinite(w).all() else None
