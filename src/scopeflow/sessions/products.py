"""The folder of one recording or of the final results: whose products stand there, what is done."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias, get_args

from pydantic import ConfigDict, RootModel

from scopeflow.engine.ledger import Ledger
from scopeflow.engine.pieces import Outcome, Piece, find_piece
from scopeflow.io.files import PARTIAL_SUFFIX, sweep_partials
from scopeflow.io.state import (
    DamagedStateError,
    State,
    Text,
    keep_state,
    load_state,
    read_state,
    save_state,
)
from scopeflow.motion.store.outputs import STATE_FOLDER

logger = logging.getLogger(__name__)

Product: TypeAlias = Literal["temporal_average", "w_to_reference", "stage3"]


class Begun(RootModel[list[Product]]):
    """The products that we have begun, in the order in which that happened."""

    model_config = ConfigDict(strict=True, frozen=True)


class Failures(State):
    """Why stages failed."""

    stage1: Text | None = None
    stage2: Text | None = None
    stage3: Text | None = None


class Status(RootModel[dict[str, Text]]):
    """Which stages are done; other programs read and write it too."""

    model_config = ConfigDict(strict=True, frozen=True)

    largest: ClassVar[int] = 2**20


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

    def sweep(self) -> None:
        """Remove partial files that killed runs left; only while this is the only writer."""
        # The corrected recording has a lock of its own: of files beside it, those of the session.
        for name in ("status.json", "temporal_average.npy", "w_to_reference.npz"):
            sweep_partials(self.folder / name)
        for partial in self.state.glob(f"*{PARTIAL_SUFFIX}"):
            partial.unlink(missing_ok=True)

    def _begun(self) -> list[Product] | None:
        """Return what we have begun; None where the file that says it is damaged."""
        try:
            return read_state(self.state / "begun.json", Begun).root
        except FileNotFoundError:
            return []
        except DamagedStateError as error:
            logger.debug("%s", error)
            return None

    def has_begun(self, product: Product) -> bool:
        """Tell whether we have ever begun a product; if not, what stands there is not ours."""
        # What is ours counts only with its record, so a damaged file makes all of it ours.
        begun = self._begun()
        return begun is None or product in begun or (self.state / f"{product}.json").exists()

    def set_begun(self, product: Product) -> None:
        """Note that a product is ours from now on."""
        begun = self._begun()
        if begun is None:
            begun = [one for one in get_args(Product) if (self.state / f"{one}.json").exists()]
        if product not in begun:
            save_state(self.state / "begun.json", Begun([*begun, product]))

    def stage_done(self, stage: int) -> bool:
        """Tell whether the status file says that a stage is done."""
        return self._stages().get(f"stage{stage}") == "done"

    def set_stage(self, stage: int, *, done: bool) -> None:
        """Write down that a stage is done, or begins anew; later stages then do so too."""
        before = self._stages()
        if done:
            status = {**before, f"stage{stage}": "done"}
            self.set_failure(stage, None)
        else:
            again = {f"stage{n}" for n in range(stage, 4)}
            status = {k: v for k, v in before.items() if k not in again}
        if done or status != before:
            keep_state(self.status, Status(status))

    def failure(self, stage: int) -> str | None:
        """Return why a stage failed, or None."""
        return self._failures().get(f"stage{stage}")

    def set_failure(self, stage: int, reason: str | None) -> None:
        """Keep, or forget, why a stage failed."""
        before = self._failures()
        failures = {name: why for name, why in before.items() if name != f"stage{stage}"}
        if reason is not None:
            failures[f"stage{stage}"] = reason
        if failures != before:
            save_state(self.state / "failures.json", Failures(**failures))

    def _stages(self) -> dict[str, str]:
        status = load_state(self.status, Status)
        return {} if status is None else status.root

    def _failures(self) -> dict[str, str]:
        failures = load_state(self.state / "failures.json", Failures)
        return {} if failures is None else failures.model_dump(exclude_none=True)

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
