"""The folder of final results of a session: masks, bundles for Python and MATLAB, report."""

from __future__ import annotations

import io
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from scopeflow.engine.fingerprint import fingerprint
from scopeflow.engine.ledger import Ledger
from scopeflow.images.warp import warp
from scopeflow.io.files import atomic_path, atomic_save_npz, load_json, save_json
from scopeflow.io.pictures import save_png
from scopeflow.motion.store.outputs import STATE_FOLDER
from scopeflow.sessions.export import EXTENSIONS
from scopeflow.sessions.overlay import before_and_after
from scopeflow.sessions.recordings import SessionRecording, set_aside

logger = logging.getLogger(__name__)

FINAL = "final_valid_idx"
_MAT_TEXT = b"MATLAB 5.0 MAT-file, Platform: scopeflow"


@dataclass(frozen=True, eq=False)
class FinalResults:
    """What stage 3 has found.

    Attributes
    ----------
    recordings : list of SessionRecording
        In order.
    center : int
        Position of the reference.
    averages : list of ndarray, shape (H, W, C)
        Temporal averages.
    displacements : list of ndarray, shape (H, W, 2)
        Against the reference, pixels.
    masks, aligned_masks : list of ndarray of bool, shape (H, W)
        Valid in all frames of a recording, in its own frame and in that of the reference.
    final_valid : ndarray of bool, shape (H, W)
        Valid in all included recordings.
    included : ndarray of bool, shape (N,)
        Which recordings count.
    numbers : list of dict
        Similarity before and after, loop error, overlap of each recording.
    mismatches : list of str or None
        Why a recording does not match the reference.
    """

    recordings: list[SessionRecording]
    center: int
    averages: list[NDArray[np.float64]]
    displacements: list[NDArray[Any]]
    masks: list[NDArray[np.bool_]]
    aligned_masks: list[NDArray[np.bool_]]
    final_valid: NDArray[np.bool_]
    included: NDArray[np.bool_]
    numbers: list[dict[str, float | None]]
    mismatches: list[str | None]

    def report(self) -> dict[str, Any]:
        """Return the numbers of the session, JSON-able."""
        return {
            "center": self.recordings[self.center].name,
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
                for n, recording in enumerate(self.recordings)
            ],
        }


@dataclass(frozen=True)
class FinalFiles:
    """Names and records of the final results.

    Attributes
    ----------
    folder : Path
        ``final_results``.
    """

    folder: Path

    @property
    def state(self) -> Path:
        """Folder of our records."""
        return self.folder / STATE_FOLDER / "session"

    @property
    def status(self) -> Path:
        """Whether stage 3 is done."""
        return self.folder / "status.json"

    def ledger(self, mark: str) -> Ledger:
        """Return the ledger of products with the fingerprint `mark`."""
        return Ledger(str(self.state), str(self.folder), mark)

    @property
    def is_done(self) -> bool:
        """Whether the status file says that stage 3 is done."""
        status = load_json(self.status)
        return isinstance(status, dict) and status.get("stage3") == "done"

    @property
    def is_ours(self) -> bool:
        """Whether we have written here before."""
        return (self.state / "begun.json").exists()

    def set_done(self, *, done: bool) -> None:
        """Write down that stage 3 is done, or not any more."""
        if done != self.is_done:
            save_json(self.status, {"stage3": "done"} if done else {})

    def prepare(self, recordings: list[SessionRecording], align_format: str) -> None:
        """Make the folder; move aside what another program left unfinished; sweep partial files."""
        if not self.is_ours and self.folder.is_dir():
            names = [f"{FINAL}.{end}" for end in ("png", "npz", "mat")] + ["status.json"]
            for recording in recordings:
                names += [f"{recording.name}_valid_idx.png", f"{recording.name}_overlay.png"]
                names.append(f"{recording.name}_valid_idx_aligned.png")
                names.append(f"aligned_{recording.name}.{EXTENSIONS[align_format]}")
            set_aside(self.folder, names)
        save_json(self.state / "begun.json", ["stage3"])
        for partial in (*self.folder.glob("*.partial"), *self.state.glob("*.partial")):
            partial.unlink(missing_ok=True)

    def save(self, results: FinalResults, *, resume: bool) -> None:
        """Write the final mask, the bundles and the report; then the status."""
        save_json(self.folder / "session_report.json", results.report())
        bundle = self._bundle(results)
        mark = fingerprint(bundle)
        if not (resume and self.ledger(mark).find(FINAL) is not None):
            self.set_done(done=False)
            self.ledger(mark).begin(FINAL)
            save_png(self.folder / f"{FINAL}.png", results.final_valid)
            atomic_save_npz(self.folder / f"{FINAL}.npz", **bundle)
            _save_mat(self.folder / f"{FINAL}.mat", bundle)
            files = [f"{FINAL}.{end}" for end in ("png", "npz", "mat")]
            self.ledger(mark).complete(FINAL, {}, files)
        self.set_done(done=True)

    def _bundle(self, results: FinalResults) -> dict[str, NDArray[Any]]:
        fields = np.stack([np.asarray(w, np.float64) for w in results.displacements])
        videos = []
        for recording in results.recordings:
            found = sorted(self.folder.glob(f"aligned_{recording.name}.*"))
            videos.append(str(found[0]) if found else "")
        return {
            "final_valid": results.final_valid,
            "aligned_valid_masks": np.stack(results.aligned_masks),
            "per_seq_valid_masks": np.stack(results.masks),
            "displacement_fields_u": np.ascontiguousarray(fields[..., 0]),
            "displacement_fields_v": np.ascontiguousarray(fields[..., 1]),
            "temporal_averages": np.stack(results.averages),
            "compensated_h5_paths": np.array([str(r.corrected()) for r in results.recordings]),
            "reference_average": results.averages[results.center],
            "middle_idx": np.asarray(results.center, np.int64),
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
) -> None:
    """Write the pictures of one recording; runs inside a task.

    Parameters
    ----------
    folder : Path
        Of the final results.
    name : str
        The recording.
    mask, aligned_mask : ndarray of bool, shape (H, W)
        Valid in all its frames, in its own frame and in that of the reference.
    average, reference : ndarray, shape (H, W, C)
        Its average, and that of the center.
    displacement : ndarray, shape (H, W, 2)
        Against the reference, pixels.
    """
    save_png(folder / f"{name}_valid_idx.png", mask)
    save_png(folder / f"{name}_valid_idx_aligned.png", aligned_mask)
    flow = np.asarray(displacement, np.float32)
    moved = warp(average, flow, np.full_like(average, average.min()))
    save_png(folder / f"{name}_overlay.png", before_and_after(reference, average, moved))


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
    if files.is_ours or not files.is_done or not (files.folder / f"{FINAL}.png").is_file():
        return None
    try:
        with open(files.folder / f"{FINAL}.npz", "rb") as stream, np.load(stream) as archive:
            final = np.asarray(archive["final_valid"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return final.astype(np.bool_) if final.ndim == 2 else None
