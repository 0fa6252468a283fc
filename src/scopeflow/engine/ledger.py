"""Completion records: which pieces of work are finished, and which files prove it.

Records stand beside the results, one small file for each piece of work. A record is written last,
after the files it names were written, synced and read back, and by an atomic rename, so a kill or
a power cut at any moment leaves work either finished and provable or not finished. A record counts
only if its fingerprint is that of the present settings and every file it names still has the same
bytes. In a remote store a record is one object, stored whole; the files prove themselves by size
and ETag.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from scopeflow.errors import ScopeflowError
from scopeflow.io.durable import sync_files
from scopeflow.io.files import (
    atomic_save_npz,
    file_proof,
    load_arrays,
    load_json,
    save_json,
    writing,
)
from scopeflow.io.locations import Location, location


@dataclass(frozen=True)
class Record:
    """What a finished piece of work left behind."""

    values: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Ledger:
    """The completion records of one output.

    `root`: folder that the recorded file names are relative to.
    `fingerprint`: settings that the records must have been made with.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> ledger = Ledger(folder + "/records", folder, "settings-1")
    >>> ledger.complete("block-000000", {"frames": 3})
    >>> ledger.find("block-000000").values
    {'frames': 3}
    >>> Ledger(folder + "/records", folder, "settings-2").find("block-000000") is None
    True
    """

    folder: str
    root: str
    fingerprint: str

    def _record_path(self, name: str) -> Location:
        return location(self.folder) / f"{name}.json"

    def _arrays_path(self, name: str) -> Location:
        return location(self.folder) / f"{name}.npz"

    def find(self, name: str) -> Record | None:
        """Return the record of finished, undamaged work, else None.

        Returns: None if it was never finished, was made with other settings, or a file that it
            names is missing or has other bytes.
        """
        stored = load_json(self._record_path(name))
        if not isinstance(stored, dict) or stored.get("fingerprint") != self.fingerprint:
            return None
        for relative, proof in stored.get("files", {}).items():
            try:
                if file_proof(location(self.root) / relative) != (proof["size"], proof["digest"]):
                    return None
            except ScopeflowError:
                raise
            except OSError:
                return None
        arrays: dict[str, NDArray[Any]] | None = {}
        if stored.get("has_arrays"):
            arrays = load_arrays(self._arrays_path(name))
        return None if arrays is None else Record(stored["values"], arrays)

    def begin(self, name: str) -> None:
        """Take back an old record before its files are touched."""
        path = self._record_path(name)
        with writing(path):
            path.unlink(missing_ok=True)

    def complete(
        self,
        name: str,
        values: dict[str, Any],
        files: Iterable[str] = (),
        arrays: dict[str, NDArray[Any]] | None = None,
    ) -> None:
        """Record finished work, once its files are safe from a power cut. Call it last.

        `files`: files that the work owns, relative to `root`; those of this machine are read back.
        """
        proofs = {}
        files, root = list(files), location(self.root)
        if isinstance(root, Path):
            with writing(root):
                sync_files(root, [root / relative for relative in files])
        for relative in files:
            size, digest = file_proof(location(self.root) / relative)
            proofs[relative] = {"size": size, "digest": digest}
        if arrays:
            atomic_save_npz(self._arrays_path(name), **arrays)
        save_json(
            self._record_path(name),
            {
                "fingerprint": self.fingerprint,
                "values": values,
                "files": proofs,
                "has_arrays": bool(arrays),
            },
        )
