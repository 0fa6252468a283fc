"""Completion records: which pieces of work are finished, and which files prove it.

Records stand beside the results, one small file for each piece of work. A record is written last,
after the files it names were written, synced and read back, and by an atomic rename, so a kill or
a power cut at any moment leaves work either finished and provable or not finished. A record counts
only if it is whole and of the form that its piece needs, its fingerprint is that of the present
settings, and every file it names still has the same bytes. In a remote store a record is one
object, stored whole; the files prove themselves by size and ETag.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from scopeflow.errors import ScopeflowError
from scopeflow.io.durable import sync_files
from scopeflow.io.files import (
    atomic_save_npz,
    file_digest,
    file_proof,
    remove_tree,
    writing,
)
from scopeflow.io.locations import Location, RemotePath, location
from scopeflow.io.state import (
    State,
    Text,
    array_digest,
    is_shallow,
    load_arrays,
    load_state,
    open_regular,
    save_state,
)

__all__ = ["Form", "Ledger", "Proof", "Record", "StoredRecord", "inner_proof"]

logger = logging.getLogger(__name__)

_LONGEST_NAME = 4096


def _inner_name(name: str) -> str:
    parts = name.split("/") if isinstance(name, str) else [""]
    if not set(parts).isdisjoint({"", ".", ".."}) or ":" in parts[0] or len(name) > _LONGEST_NAME:
        raise ValueError("a name below the folder of the results is needed")
    if "\0" in name or "\\" in name:
        raise ValueError("no character of a name of ours")
    return name


InnerName = Annotated[Text, AfterValidator(_inner_name)]
"""Name of a file below a folder: relative, without ``..``, no address."""


class Proof(State):
    """What other bytes of a file would change."""

    size: Annotated[int, Field(ge=0)]
    digest: Annotated[str, Field(max_length=400)]


class StoredRecord(State):
    """A completion record as it stands in its file.

    `arrays`: digest of the arrays beside it; none in records of earlier versions.
    """

    largest: ClassVar[int] = 2**28

    fingerprint: Annotated[str, Field(max_length=400)]
    values: Annotated[dict[str, Any], AfterValidator(is_shallow)]
    files: dict[InnerName, Proof] = Field(default_factory=dict)
    has_arrays: bool = False
    arrays: str | None = None


@dataclass(frozen=True)
class Form:
    """What the record of a piece must hold to count, whoever wrote it.

    `files`: names that it must prove, and no others; None where only the work itself knows them,
        which then must be some.
    `values`: model of its values; None where none are read.
    `length`: of each list among its values, one entry for each frame.
    `arrays`: dimensions of each array of numbers that it must have, by name.
    `without_arrays`: whether it counts without any array, too, as earlier versions kept none.
    """

    files: Collection[str] | None = None
    values: type[BaseModel] | None = None
    length: int | None = None
    arrays: Mapping[str, int] = field(default_factory=dict)
    without_arrays: bool = False

    def fits(self, record: StoredRecord) -> bool:
        """Tell whether a record has this form, but for its arrays."""
        if self.files is None:
            if not record.files:
                return False
        elif record.files.keys() != set(self.files):
            return False
        if self.values is None:
            return True
        try:
            read = self.values.model_validate(record.values, strict=True)
        except ValidationError:
            return False
        return self.length is None or all(len(one) == self.length for _, one in read)

    def holds(self, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Tell whether arrays are those of this form."""
        if not arrays and self.without_arrays:
            return True
        return all(
            name in arrays and arrays[name].ndim == count and arrays[name].dtype.kind in "biuf"
            for name, count in self.arrays.items()
        )


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
        return _place(self.folder) / f"{name}.json"

    def _arrays_path(self, name: str) -> Location:
        return _place(self.folder) / f"{name}.npz"

    def find(self, name: str, form: Form | None = None) -> Record | None:
        """Return the record of finished, undamaged work, else None.

        `form`: what it must hold; any form does where that is not known.
        Returns: None if it was never finished, was made with other settings, is damaged, or a file
            that it names is missing, has other bytes or stands outside of the root.
        """
        stored = load_state(self._record_path(name), StoredRecord)
        if stored is None or stored.fingerprint != self.fingerprint:
            return None
        if form is not None and not form.fits(stored):
            logger.debug("%s: the record has not the form that is needed", self._record_path(name))
            return None
        if not self._proves(stored):
            return None
        arrays = self._arrays(name, stored)
        if arrays is None or (form is not None and not form.holds(arrays)):
            return None
        return Record(stored.values, arrays)

    def _proves(self, stored: StoredRecord) -> bool:
        root = _place(self.root)
        for relative, proof in stored.files.items():
            try:
                if inner_proof(root, relative, proof.size) != (proof.size, proof.digest):
                    return False
            except ScopeflowError:
                raise
            except (OSError, ValueError) as error:
                logger.debug("%s of %s proves nothing: %s", relative, root, error)
                return False
        return True

    def _arrays(self, name: str, stored: StoredRecord) -> dict[str, NDArray[Any]] | None:
        if not stored.has_arrays:
            return {}
        arrays = load_arrays(self._arrays_path(name))
        if arrays is None or stored.arrays not in (None, array_digest(arrays)):
            return None
        return arrays

    def marks(self) -> Iterator[str]:
        """Yield the fingerprint of every whole record, whatever settings it is of."""
        for stored in self._stored("*"):
            yield stored.fingerprint

    def values(self, pattern: str) -> list[dict[str, Any]]:
        """Return the values of all records whose names match, whether their files still stand."""
        found = self._stored(pattern)
        return [one.values for one in found if one.fingerprint == self.fingerprint]

    def lost(self, pattern: str) -> list[str]:
        """Return files of this machine that records name and that are gone or of another size.

        One look at each, no digest.
        """
        root = _place(self.root)
        if isinstance(root, RemotePath):
            return []
        return sorted(
            name
            for stored in self._stored(pattern)
            for name, proof in stored.files.items()
            if _size(root / name) != proof.size
        )

    def _stored(self, pattern: str) -> Iterator[StoredRecord]:
        """Yield every whole record whose name matches."""
        folder = _place(self.folder)
        if not folder.is_dir():
            return
        for path in folder.glob(f"{pattern}.json"):
            stored = load_state(path, StoredRecord)
            if stored is not None:
                yield stored

    def clear(self) -> None:
        """Take back all records: their results must not be reused."""
        with writing(self.folder):
            remove_tree(self.folder)

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
            size, digest = file_proof(_place(self.root) / relative)
            proofs[relative] = Proof(size=size, digest=digest)
        if arrays:
            atomic_save_npz(self._arrays_path(name), **arrays)
        record = StoredRecord(
            fingerprint=self.fingerprint,
            values=values,
            files=proofs,
            has_arrays=bool(arrays),
            arrays=array_digest(arrays) if arrays else None,
        )
        save_state(self._record_path(name), record)


@lru_cache(maxsize=64)
def _place(given: str) -> Location:
    return location(given)


def inner_proof(root: Location, relative: str, size: int | None = None) -> tuple[int, str]:
    """Return size and digest of a file below a folder, as :func:`~scopeflow.io.files.file_proof`.

    Nothing but a regular file is opened, and no link that leads out of the folder is followed. A
    file of another `size` is not read, its digest is empty then.

    Raises OSError: it is missing, or may not be opened.
    """
    if isinstance(root, RemotePath):
        return file_proof(root / relative)
    # Texts, as these few steps are taken for every shard that a resumed run finds.
    base = os.fspath(root)
    path = f"{base}/{relative}"
    end = 0
    while end >= 0:
        end = relative.find("/", end + 1)
        if os.path.islink(path if end < 0 else f"{base}/{relative[:end]}"):
            path = os.path.realpath(path)
            if not Path(path).is_relative_to(os.path.realpath(base)):
                raise OSError(errno.EINVAL, "a link leads out of the results", path)
            break
    descriptor = open_regular(path)
    found = os.fstat(descriptor).st_size
    if size is not None and found != size:
        os.close(descriptor)
        return found, ""
    return found, file_digest(descriptor)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
