"""The recordings of a session: which there are, and where their products stand."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scopeflow.engine.ledger import Form
from scopeflow.engine.lock import one_writer
from scopeflow.engine.place import RegistrationConfig
from scopeflow.errors import (
    InputError,
    InputNotFoundError,
    OptionsError,
    SessionError,
)
from scopeflow.io.formats import OutputFormat
from scopeflow.io.lazy import LazyVideo
from scopeflow.io.read.zarr import is_zarr
from scopeflow.io.state import DamagedStateError, load_array, load_arrays, read_state
from scopeflow.motion.store.outputs import OutputFiles, find_finished
from scopeflow.motion.store.provenance import RunFacts
from scopeflow.sessions.config import SessionConfig
from scopeflow.sessions.products import ProductFolder
from scopeflow.strict.values import shortened

AVERAGE: Final = "temporal_average"
_CORRECTED = ("compensated.hdf5", "compensated.HDF5", "compensated.h5", "compensated.zarr")
_STAGE1_FILES = (*_CORRECTED, "idx.hdf", "w.h5", "motion.h5", "statistics.npz",
                 "reference_frame.npy", "run.json", "temporal_average.npy",
                 "w_to_reference.npz", "status.json")  # fmt: skip


@dataclass(frozen=True)
class SessionRecording(ProductFolder):
    """One recording of a session and the folder of its products.

    `index`: position among the recordings, from 0.
    `name`: unique name; that of its folder of results.
    """

    index: int
    path: Path
    name: str

    @property
    def average(self) -> Path:
        """Mean of the corrected frames, ``(H, W, C)`` float64."""
        return self.folder / "temporal_average.npy"

    @property
    def displacement(self) -> Path:
        """Displacement against the session's reference, arrays ``u`` and ``v``, ``(H, W)``."""
        return self.folder / "w_to_reference.npz"

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
            # A damaged one is ours, too: stage 1 tells by the records what of it stays.
            if os.path.lexists(str(files.settings)):
                return files
        return None

    def has_foreign_stage1(self) -> bool:
        """Tell whether results of stage 1 stand there that we did not write."""
        return self.output_files() is None and any(
            (self.folder / name).exists() for name in _STAGE1_FILES
        )

    def is_damaged(self) -> bool:
        """Tell whether a file that our stage 1 proved has other bytes now; reads them all."""
        files = self.output_files()
        if files is None or files.format is not OutputFormat.ZARR:
            return files is not None and find_finished(files) is None
        ledger = files.ledger(_mark(files))
        blocks = sorted(Path(ledger.folder).glob("block-*.json"))
        return not blocks or any(ledger.find(path.stem, Form()) is None for path in blocks)

    def set_stage1_aside(self) -> None:
        """Move what another program left of stage 1 out of the way."""
        self.set_aside(_STAGE1_FILES)


def _mark(files: OutputFiles) -> str:
    """Return the fingerprint of the settings that our stage 1 has run with."""
    settings = files.stored_settings()
    return "" if settings is None else settings.fingerprint


def stage1_facts(recording: SessionRecording) -> RunFacts | None:
    """Return what our stage 1 has written down of its run; None where it has not run here.

    It tells, too, which frames are absent from the products of stage 1.

    Raises InputError: what it wrote is damaged.
    """
    try:
        return read_state(recording.folder / "run.json", RunFacts)
    except FileNotFoundError:
        return None
    except DamagedStateError as error:
        # Stage 1 may have been given other options than the session has.
        raise InputError(
            f"{error}. Remove it if stage 1 was run with the options of the session, else run "
            "stage 1 again without resuming"
        ) from None


def absent_frames(recording: SessionRecording) -> tuple[int, ...]:
    """Return the frames of a corrected recording that had no pixels, by what stage 1 wrote.

    Other programs know of none.
    """
    facts = None if recording.output_files() is None else stage1_facts(recording)
    return () if facts is None else tuple(facts.recording.absent)


def without_frames(video: LazyVideo, absent: tuple[int, ...]) -> LazyVideo:
    """Return a video without some frames.

    Raises InputError: none is left.
    """
    if not absent:
        return video
    left = frozenset(range(video.shape[0])).difference(absent)
    if not left:
        raise InputError("none of its frames has pixels. Run Stage 1 again")
    return video.select(tuple(sorted(left)))


def raise_failures(
    stage: int, recordings: Sequence[SessionRecording], failures: dict[str, str]
) -> None:
    """Write down and raise why recordings failed, by name; nothing happens if none did.

    Raises SessionError: names every recording that failed of those that the stage was for.
    """
    if not failures:
        return
    for recording in recordings:
        if recording.name in failures:
            recording.set_failure(stage, failures[recording.name])
    listing = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
    raise SessionError(
        f"stage {stage} failed for {len(failures)} of {len(recordings)} recordings ({listing}). "
        "The others are finished; run it again to resume",
        failures,
    )


def find_session_recordings(config: SessionConfig) -> list[SessionRecording]:
    """Find the recordings of a session, in the order of their sorted paths.

    The name of a recording is that of its file without suffix; where several would have the same,
    the folders below root are put before it.

    Raises InputNotFoundError: when nothing matches.
    Raises OptionsError: when an excluded recording does not exist.
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
            f"No files found matching pattern {shortened(config.pattern)} in {config.root}. "
            "Correct root or "
            "pattern"
        )
    left_out: set[int] = set()
    for name in config.exclude:
        positions = config.find_recordings(name, found)
        if not positions:
            raise OptionsError(
                f"exclude names {shortened(name)}, which is none of the recordings "
                f"{', '.join(str(p.relative_to(config.root)) for p in found)}"
            )
        left_out.update(positions)
    names = _unique_names(found, config.root)
    kept = [n for n in range(len(found)) if n not in left_out]
    if not kept:
        raise OptionsError("exclude leaves no recording; leave some of its names out")
    return [
        SessionRecording(outputs[0] / names[n], index, found[n], names[n])
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


@contextmanager
def session_writer(
    config: SessionConfig, recordings: Sequence[SessionRecording], *, whole: bool = True, wait: bool
) -> Iterator[None]:
    """Be the only one who writes products of recordings, and of the session unless not `whole`.

    Tasks of an array job each hold their recording alone, and so work side by side.

    Raises OutputLockedError: another run writes there.
    """
    folders = [recording.folder for recording in recordings]
    if whole:
        folders.append(config.resolve_output_paths()[1])
    with one_writer(*folders, wait=wait):
        for recording in recordings:
            recording.sweep()
        yield


def load_average(recording: SessionRecording) -> NDArray[np.float64]:
    """Read the temporal average of a recording.

    Raises InputNotFoundError: when stage 1 has not made it.
    Raises InputError: when it is damaged, or was changed since we wrote it.
    """
    path = recording.average
    if not path.is_file():
        raise InputNotFoundError(f"Missing temporal average: {path}. Run Stage 1 first")
    again = "Run Stage 1 again"
    try:
        average = load_array(path)
    except DamagedStateError as error:
        raise InputError(f"{error}. {again}") from None
    if average.dtype.kind not in "biuf" or average.ndim not in (2, 3):
        raise InputError(f"{path} holds no image (H, W, C). {again}")
    files = recording.output_files()
    if (
        files is not None
        and recording.has_begun(AVERAGE)
        and recording.ledger(_mark(files)).find(AVERAGE, Form(files=(path.name,))) is None
    ):
        raise InputError(f"{path} is not what stage 1 wrote. {again}")
    average = average if average.ndim == 3 else average[..., None]
    return np.ascontiguousarray(average, np.float64)


def load_averages(recordings: list[SessionRecording]) -> list[NDArray[np.float64]]:
    """Read the averages of all recordings, which must have one shape.

    Raises ScopeflowError: when any is missing, damaged, or of another shape; all are named.
    """
    missing = [r for r in recordings if not r.average.is_file()]
    if len(missing) > 1:
        raise InputNotFoundError(
            f"Missing temporal average of {', '.join(r.name for r in missing)}, such as "
            f"{missing[0].average}. Run Stage 1 first"
        )
    averages = [load_average(recording) for recording in recordings]
    odd = odd_shapes([(r.name, a.shape) for r, a in zip(recordings, averages, strict=True)])
    if odd:
        raise InputError("; ".join(f"{name}: {reason}" for name, reason in odd.items()))
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


def load_displacement(recording: SessionRecording, shape: tuple[int, int]) -> NDArray[Any] | None:
    """Read ``w_to_reference.npz`` as ``(H, W, 2)``; None if it is missing, damaged or unfit."""
    arrays = arrays_of(recording.displacement, "u", "v")
    if arrays is None or any(a.shape != shape or a.dtype.kind not in "iuf" for a in arrays):
        return None
    w = np.stack(arrays, axis=-1)
    return w if np.isfinite(w).all() else None


def arrays_of(path: Path, *names: str) -> list[NDArray[Any]] | None:
    """Read some arrays of an archive of anybody's; None if one is missing or damaged."""
    arrays = load_arrays(path)
    if arrays is None or not arrays.keys() >= set(names):
        return None
    return [arrays[name] for name in names]
