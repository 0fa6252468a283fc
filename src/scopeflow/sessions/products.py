"""The folder of one recording or of the final results: whose products stand there, what is done."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scopeflow.engine.ledger import Ledger
from scopeflow.engine.pieces import Outcome, Piece, find_piece
from scopeflow.io.files import load_json, save_json
from scopeflow.motion.store.outputs import STATE_FOLDER

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProductFolder:
    """A folder of products that other programs may have written, too.

    Ledgers prove what we have made, each with a fingerprint of its own; `status.json` says which
    stages are done, to people and to other programs.
    """

    folder: Path

    @property
    def state(self) -> Path:
        """Folder of our records about the products of the session."""
        return self.folder / STATE_FOLDER / "session"

    @property
    def status(self) -> Path:
        """Which stages are done."""
        return self.folder / "status.json"

    def ledger(self, fingerprint: str) -> Ledger:
        """Return the ledger of products that stand in the folder."""
        return Ledger(str(self.state), str(self.folder), fingerprint)

    def has_begun(self, product: str) -> bool:
        """Tell whether we have ever begun a product; if not, what stands there is not ours."""
        begun = load_json(self.state / "begun.json")
        return isinstance(begun, list) and product in begun

    def set_begun(self, product: str) -> None:
        """Note that a product is ours from now on."""
        if not self.has_begun(product):
            begun = load_json(self.state / "begun.json")
            save_json(self.state / "begun.json", [*(begun or []), product])

    def stage_done(self, stage: int) -> bool:
        """Tell whether the status file says that a stage is done."""
        return _dict(self.status).get(f"stage{stage}") == "done"

    def set_stage(self, stage: int, *, done: bool) -> None:
        """Write down that a stage is done, or begins anew; later stages then do so too."""
        before = _dict(self.status)
        if done:
            status = {**before, f"stage{stage}": "done"}
            self.set_failure(stage, None)
        else:
            again = {f"stage{n}" for n in range(stage, 4)}
            status = {k: v for k, v in before.items() if k not in again}
        if status != before or (done and not self.status.exists()):
            save_json(self.status, status)

    def failure(self, stage: int) -> str | None:
        """Return why a stage failed, or None."""
        return _dict(self.state / "failures.json").get(f"stage{stage}")

    def set_failure(self, stage: int, reason: str | None) -> None:
        """Keep, or forget, why a stage failed."""
        path = self.state / "failures.json"
        failures = _dict(path)
        if failures.pop(f"stage{stage}", None) is None and reason is None:
            return
        if reason is not None:
            failures[f"stage{stage}"] = reason
        save_json(path, failures)

    def set_aside(self, names: Iterable[str]) -> None:
        """Move files that another program left into a folder beside; nothing is deleted."""
        existing = [path for name in names if (path := self.folder / name).exists()]
        if not existing:
            return
        number = 1
        while (target := self.folder / f"set_aside_{number}").exists():
            number += 1
        target.mkdir()
        for path in existing:
            shutil.move(path, target / path.name)
        logger.warning(
            "%s: %s are not from a finished run of ours; moved to %s.",
            self.folder,
            ", ".join(path.name for path in existing),
            target.name,
        )


def _dict(path: Path) -> dict[str, Any]:
    stored = load_json(path)
    return stored if isinstance(stored, dict) else {}


def find_or_begin(piece: Piece, *, resume: bool) -> Outcome | None:
    """Return what an earlier run has finished; else take its record back and return None.

    Asked before tasks are made: what is finished needs no open files and nothing of other tasks.
    """
    outcome = find_piece(piece) if resume else None
    if outcome is None:
        take_back(piece)
    return outcome


def take_back(piece: Piece) -> None:
    """Remove the record of a piece that has to be made anew, so that its task does not find it."""
    if piece.ledger is not None:
        piece.ledger.begin(piece.name)
