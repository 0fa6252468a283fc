"""The folder of final results of a session: masks, bundles for Python and MATLAB, report."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.io
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from scopeflow.engine.fingerprint import fingerprint
from scopeflow.engine.ledger import Form
from scopeflow.engine.pieces import Piece, Result, run_piece
from scopeflow.images.warp import warp
from scopeflow.io.files import atomic_path, atomic_save_npz
from scopeflow.io.pictures import save_png
from scopeflow.io.state import State, Text, save_state
from scopeflow.sessions.export import EXTENSIONS
from scopeflow.sessions.overlay import before_and_after
from scopeflow.sessions.products import ProductFolder, find_or_begin
from scopeflow.sessions.recordings import SessionRecording, arrays_of

FINAL = "final_valid_idx"
REPORT = "session_report.json"
_STAGE: Final = "stage3"
_MAT_TEXT = b"MATLAB 5.0 MAT-file, Platform: scopeflow"


@dataclass(frozen=True, eq=False)
class Inputs:
    """What stage 3 starts from, in the order of the recordings.

    Averages are ``(H, W, C)``, displacements against the reference ``(H, W, 2)`` in pixels; the
    center is the position of the reference.
    """

    recordings: list[SessionRecording]
    averages: list[NDArray[np.float64]]
    center: int
    displacements: list[NDArray[Any]]

    @property
    def reference(self) -> NDArray[np.float64]:
        """Average of the center."""
        return self.averages[self.center]


@dataclass(frozen=True, eq=False)
class FinalResults:
    """What stage 3 has found, in the order of the recordings.

    Masks ``(H, W)`` are valid in all frames, in the recording's own frame and, aligned, in that of
    the reference; the final one in all included recordings.
    """

    inputs: Inputs
    masks: list[NDArray[np.bool_]]
    aligned_masks: list[NDArray[np.bool_]]
    final_valid: NDArray[np.bool_]
    included: NDArray[np.bool_]
    numbers: list[dict[str, float | None]]
    mismatches: list[str | None]  # why a recording does not match the reference

    def report(self) -> dict[str, Any]:
        """Return the numbers of the session, JSON-able."""
        return {
            "center": self.inputs.recordings[self.inputs.center].name,
            "final_valid_share": float(self.final_valid.mean()),
            "recordings": [
                {
                    "name": recording.name,
                    "path": str(recording.path),
                    **self.numbers[n],
                    "valid_share": float(self.aligned_masks[n].mean()),
                    "mismatch": self.mismatches[n],
                    "included": bool(self.included[n]),
                }
                for n, recording in enumerate(self.inputs.recordings)
            ],
        }


class ReportedRecording(BaseModel):
    """What the report says of a recording; each number may be unknown."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: Text
    similarity_before: float | None = None
    similarity_after: float | None = None
    loop_error: float | None = None
    valid_share: float | None = None
    mismatch: Text | None = None
    included: bool = False


class Report(State):
    """The report of a session as it is read again."""

    model_config = ConfigDict(extra="allow")

    recordings: list[ReportedRecording]


class FinalFiles(ProductFolder):
    """Names and records of the final results."""

    def prepare(self, recordings: list[SessionRecording], align_format: str) -> None:
        """Make the folder; move aside what another program left unfinished; sweep partial files."""
        if not self.has_begun(_STAGE) and self.folder.is_dir():
            names = [f"{FINAL}.{end}" for end in ("png", "npz", "mat")] + ["status.json"]
            for recording in recordings:
                names += [f"{recording.name}_valid_idx.png", f"{recording.name}_overlay.png"]
                names.append(f"{recording.name}_valid_idx_aligned.png")
                names.append(f"aligned_{recording.name}.{EXTENSIONS[align_format]}")
            self.set_aside(names)
        self.set_begun(_STAGE)
        for partial in (*self.folder.glob("*.partial"), *self.state.glob("*.partial")):
            partial.unlink(missing_ok=True)

    def save(self, results: FinalResults, *, resume: bool) -> None:
        """Write the final mask, the bundles and the report; then the status."""
        save_state(self.folder / REPORT, results.report())
        bundle = self._bundle(results)
        piece = Piece(
            FINAL,
            self._write,
            (bundle,),
            self.ledger(fingerprint(bundle)),
            isolated=False,
            form=Form(files=[f"{FINAL}.{end}" for end in ("png", "npz", "mat")]),
        )
        if find_or_begin(piece, resume=resume) is None:
            self.set_stage(3, done=False)
            run_piece(piece)
        self.set_stage(3, done=True)

    def _write(self, bundle: dict[str, NDArray[Any]]) -> Result:
        save_png(self.folder / f"{FINAL}.png", bundle["final_valid"])
        atomic_save_npz(self.folder / f"{FINAL}.npz", **bundle)
        _save_mat(self.folder / f"{FINAL}.mat", bundle)
        return Result([f"{FINAL}.{end}" for end in ("png", "npz", "mat")])

    def _bundle(self, results: FinalResults) -> dict[str, NDArray[Any]]:
        inputs = results.inputs
        fields = np.stack([np.asarray(w, np.float64) for w in inputs.displacements])
        videos = []
        for recording in inputs.recordings:
            found = sorted(self.folder.glob(f"aligned_{recording.name}.*"))
            videos.append(str(found[0]) if found else "")
        return {
            "final_valid": results.final_valid,
            "aligned_valid_masks": np.stack(results.aligned_masks),
            "per_seq_valid_masks": np.stack(results.masks),
            "displacement_fields_u": np.ascontiguousarray(fields[..., 0]),
            "displacement_fields_v": np.ascontiguousarray(fields[..., 1]),
            "temporal_averages": np.stack(inputs.averages),
            "compensated_h5_paths": np.array([str(r.corrected()) for r in inputs.recordings]),
            "reference_average": inputs.reference,
            "middle_idx": np.asarray(inputs.center, np.int64),
            "aligned_video_paths": np.array(videos),
            "included": results.included,
        }


def save_pictures(
    folder: Path,
    name: str,
    mask: NDArray[np.bool_],
    aligned_mask: NDArray[np.bool_],
    average: NDArray[np.float64],
    displacement: NDArray[Any],
    reference: NDArray[np.float64],
) -> Result:
    """Write masks and an overlay of one recording; the reference is the average of the center."""
    save_png(folder / f"{name}_valid_idx.png", mask)
    save_png(folder / f"{name}_valid_idx_aligned.png", aligned_mask)
    flow = np.asarray(displacement, np.float32)
    moved = warp(average, flow, np.full_like(average, average.min()))
    save_png(folder / f"{name}_overlay.png", before_and_after(reference, average, moved))
    return Result()


def _save_mat(path: Path, bundle: dict[str, NDArray[Any]]) -> None:
    """Write the bundle for MATLAB: masks as uint8, the center counted from 1."""
    values: dict[str, Any] = {}
    for name, value in bundle.items():
        if name != "aligned_video_paths":
            values[name] = value.astype(np.uint8) if value.dtype == np.bool_ else value
    values["middle_idx"] = np.int64(bundle["middle_idx"] + 1)
    stream: Any = io.BytesIO()
    scipy.io.savemat(stream, values)
    # The header is free text; without the time of day the same results give the same bytes.
    content = _MAT_TEXT.ljust(116) + stream.getvalue()[116:]
    with atomic_path(path, len(content)) as partial:
        partial.write_bytes(content)


def finished_elsewhere(files: FinalFiles) -> NDArray[np.bool_] | None:
    """Return the final mask of a stage 3 that another program has finished, else None."""
    if files.has_begun(_STAGE) or not files.stage_done(3):
        return None
    stored = arrays_of(files.folder / f"{FINAL}.npz", "final_valid")
    if stored is None or not (files.folder / f"{FINAL}.png").is_file():
        return None
    mask = stored[0]
    return mask.astype(np.bool_) if mask.ndim == 2 and mask.dtype.kind in "biuf" else None
