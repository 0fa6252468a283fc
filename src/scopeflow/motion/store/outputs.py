"""Which files a correction writes, what may already stand there, and what makes a run the same."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from scopeflow.engine.claim import Claim, StoredSettings
from scopeflow.engine.identity import NOT_IDENTIFIED
from scopeflow.engine.ledger import Ledger
from scopeflow.errors import OptionsError, OutputError
from scopeflow.io.durable import sync_folder
from scopeflow.io.files import (
    file_digest,
    file_proof,
    remove_tree,
    sweep_below,
    sweep_partials,
    writing,
)
from scopeflow.io.formats import OutputFormat
from scopeflow.io.locations import Location, RemotePath, location
from scopeflow.io.sizes import bytes_text
from scopeflow.io.state import State, Text, load_state, open_regular, save_state
from scopeflow.io.write.exports import video_paths
from scopeflow.motion.options.enums import NamingConvention
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.store.layout import (
    ResultStore,
    StoreLayout,
    create_store,
    read_layout,
    restore_store,
)

logger = logging.getLogger(__name__)

STATE_FOLDER = ".scopeflow"

REMOTE_FORMATS = (OutputFormat.ZARR, OutputFormat.NULL)
"""Formats that are written block by block, and so to remote stores too."""

EXTENSIONS = {
    OutputFormat.ZARR: "zarr",
    OutputFormat.HDF5: "hdf5",
    OutputFormat.TIFF: "tiff",
    OutputFormat.MAT: "mat",
    OutputFormat.OME_TIFF: "ome.tiff",
    OutputFormat.SUITE2P_TIFF: "tif",
    OutputFormat.MULTIFILE_TIFF: "tiff",
    OutputFormat.MULTIFILE_HDF5: "hdf5",
    OutputFormat.MULTIFILE_MAT: "mat",
    OutputFormat.CAIMAN_HDF5: "hdf5",
}

SIDE_FILES = ("w.h5", "motion.h5", "idx.hdf", "statistics.npz", "reference_frame.npy", "run.json")


class Finished(State):
    """What a complete run has exported, as it stands in its file.

    `files`: size and digest of every exported file, by its name; earlier versions wrote the whole
        path, of which the name alone counts: outputs are copied and moved.
    `statistics`: numbers of each frame, by name.
    `fingerprint`: of the settings; earlier versions did not write it.
    """

    largest: ClassVar[int] = 2**30

    files: dict[Text, Annotated[tuple[int, str], Field(strict=False)]]
    statistics: dict[str, list[float]]
    fingerprint: str | None = None


@dataclass(frozen=True)
class OutputFiles:
    """Names of everything that one correction writes.

    `folder`: ``output_path``.
    `target`: the registered video; for formats without one, or with one file a channel, a name for
        the state only.
    `side_prefix`: start of the names of side files, where several recordings share a folder.
    """

    folder: Location
    target: Location
    format: OutputFormat
    side_prefix: str = ""
    channels: int = 1

    @property
    def video_files(self) -> list[Location]:
        """Files or folder of the registered video; none for ``NULL``."""
        if self.format is OutputFormat.NULL:
            return []
        if isinstance(self.target, RemotePath):
            return [self.target]
        return [*video_paths(self.target, self.format, self.channels)]

    @property
    def state(self) -> Location:
        """Folder of records and unfinished work, beside the target."""
        return self.target.parent / STATE_FOLDER / self.target.name

    @property
    def store(self) -> Location:
        """The zarr store that blocks are written to."""
        return self.target if self.format is OutputFormat.ZARR else self.state / "work.zarr"

    @property
    def settings(self) -> Location:
        """Settings of the run whose records stand in the state folder."""
        return self.state / "settings.json"

    @property
    def finished(self) -> Location:
        """Proof that the run was completed, with digests of the exported files."""
        return self.state / "finished.json"

    @property
    def reference(self) -> Location:
        """The reference of the run."""
        return self.state / "reference.npz"

    def side_file(self, name: str) -> Location:
        """Return the path of a side file such as ``statistics.npz``."""
        return self.folder / f"{self.side_prefix}{name}"

    def named_files(self) -> list[Location]:
        """Return every file that a run may write under its final name, outside of the state."""
        return [self.target, *self.video_files, *(self.side_file(name) for name in SIDE_FILES)]

    def written_together(self) -> tuple[Location, ...]:
        """Return what only one run may write at a time; side files are shared by all formats."""
        return self.target, self.side_file("run.json")

    def claim(self, settings: dict[str, Any]) -> Claim:
        """Return the answer to whether a run with these settings may write here."""
        return Claim(self.target, self.settings, settings, _in_todays_form, self.marks)

    def marks(self) -> Iterator[str]:
        """Yield the fingerprints of the records that stand here, whole ones only."""
        yield from self.ledger("").marks()
        finished = load_state(self.finished, Finished)
        if finished is not None and finished.fingerprint is not None:
            yield finished.fingerprint

    def stored_settings(self) -> StoredSettings | None:
        """Return the settings of the results that stand here; None if missing or damaged."""
        return load_state(self.settings, StoredSettings)

    def strangers(self) -> Iterator[str]:
        """Yield why files under our names, which no settings of ours belong to, have to stay."""
        foreign = [path for path in self.named_files() if path.exists()]
        if not foreign:
            return
        ours = sorted(path.parent.name for path in self.state.parent.glob("*/settings.json"))
        if ours:
            yield (
                f"{foreign[0]} belongs to the results {', '.join(ours)} in the same folder; choose "
                "another output folder, or naming_convention='batch' for other recordings"
            )
        yield (
            f"{foreign[0]} exists and there is no record that scopeflow wrote it; move it "
            "away or choose another output folder"
        )

    def ledger(self, mark: str) -> Ledger:
        """Return the ledger for settings with the fingerprint `mark`."""
        return Ledger(str(self.state / "ledger"), str(self.store), mark)


def output_files(options: OFOptions, input_paths: Iterable[str], channels: int = 1) -> OutputFiles:
    """Work out the names of a run's output.

    `input_paths`: files of the recording; the first gives the stem for the batch convention.
    Raises OptionsError: if a format that is not written block by block is to go to a remote store.
    """
    folder = location(options.output_path).absolute()
    output_format = options.output_format
    prefix = ""
    extension = EXTENSIONS.get(output_format, output_format.value.lower())
    if options.output_file_name:
        target = location(options.output_file_name).absolute()
    else:
        first = next(iter(input_paths), None)
        if options.naming_convention is NamingConvention.BATCH and first is not None:
            prefix = f"{_stem(first)}_"
        target = folder / f"{prefix}compensated.{extension}"
    if isinstance(target, RemotePath) and output_format not in REMOTE_FORMATS:
        raise OptionsError(
            f"{target}: {output_format.value} cannot be written block by block to a remote store. "
            "Choose output_format ZARR, or a folder on this machine"
        )
    return OutputFiles(folder, target, output_format, prefix, channels)


def _stem(path: str) -> str:
    name = Path(path).name
    for double in (".ome.tif", ".ome.tiff", ".ome.zarr"):
        if name.lower().endswith(double):
            return name[: -len(double)]
    return Path(name).stem


def check_writable(files: OutputFiles, input_paths: Iterable[str], bytes_needed: int) -> None:
    """Refuse outputs that would harm the input or cannot be written; creates nothing.

    `bytes_needed`: least bytes that the results will take.
    Raises OutputError: if input and output contain each other, permission is missing, the disk is
        too full, or a remote store cannot be reached.
    """
    folders: set[Location] = {files.folder, files.target.parent}
    for given in input_paths:
        source = location(given).absolute().resolve()
        for folder in (folder.resolve() for folder in folders):
            if source == folder or folder in source.parents:
                raise OutputError(
                    f"the input {given} lies inside the output folder {folder}; choose another "
                    f"output folder, for instance {folder / 'corrected'}"
                )
            if source in folder.parents and source.is_dir():
                raise OutputError(
                    f"the output folder {folder} lies inside the input {given}; choose a folder "
                    "outside of it"
                )
    for folder in folders:
        if isinstance(folder, RemotePath):
            with writing(folder):
                folder.check_reachable()
            continue
        existing = folder
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir():
            raise OutputError(f"cannot write to {folder}: {existing} is a file, not a folder")
        effective = os.access in os.supports_effective_ids
        if not os.access(existing, os.W_OK | os.X_OK, effective_ids=effective):
            raise OutputError(
                f"cannot write to {folder}: permission is denied for {existing}; choose a folder "
                "that you may write to"
            )
        free = shutil.disk_usage(existing).free
        if bytes_needed > free:
            raise OutputError(
                f"cannot write to {folder}: at least {bytes_text(bytes_needed)} are needed and "
                f"{bytes_text(free)} are free; free some space or choose another output folder"
            )


def _in_todays_form(settings: dict[str, Any]) -> dict[str, Any]:
    """Take functions that older versions knew by their names alone out of their old place."""
    backend = settings.get("backend")
    if not (isinstance(backend, list) and len(backend) == 3):
        return settings
    if not (isinstance(backend[2], dict) and backend[2]):
        return settings
    reason = "the version that made these results kept its name alone"
    known = {name: {"name": one, NOT_IDENTIFIED: reason} for name, one in backend[2].items()}
    return {**settings, "backend": [*backend[:2], {}], "functions": known}


def take_claim(files: OutputFiles, settings: dict[str, Any], *, resume: bool) -> str:
    """Take possession of an output, see :meth:`Claim.take`; return the mark for its ledger."""
    mark = files.claim(settings).take(
        resume=resume, discard=lambda: discard(files), strangers=files.strangers
    )
    sweep(files)
    return mark


def continue_store(files: OutputFiles, wanted: StoreLayout, facts: dict[str, Any]) -> ResultStore:
    """Continue the store of an earlier run, with its block length, or create an empty one.

    `wanted`: what this run needs; an existing store may hold more arrays.
    """
    existing = read_layout(files.store)
    if existing is not None and set(existing.arrays) >= set(wanted.arrays):
        comparable = replace(existing, block_length=wanted.block_length, arrays=wanted.arrays)
        if comparable == wanted:
            restore_store(files.store, existing, facts)
            return ResultStore(str(files.store), existing)
    with writing(files.target):
        remove_tree(files.ledger("").folder)
    create_store(files.store, wanted, facts)
    return ResultStore(str(files.store), wanted)


def discard(files: OutputFiles) -> None:
    """Remove the results and records of an earlier run of ours."""
    with writing(files.target):
        removed = (*files.named_files(), files.state)
        for path in removed:
            remove_tree(path)
        # Old results must not come back with a power cut, beside the settings of new ones.
        for folder in {path.parent for path in removed}:
            if isinstance(folder, Path):
                sync_folder(folder)


def sweep(files: OutputFiles) -> None:
    """Remove partly written files that a killed run left behind; remote stores have none."""
    for folder in (files.state, files.store):
        if isinstance(folder, Path):
            sweep_below(folder)
    for named in files.named_files():
        sweep_partials(named)


def record_finished(
    files: OutputFiles, mark: str, written: Iterable[Location], **facts: Any
) -> None:
    """Record that the run is complete, with a digest of every exported file.

    `mark`: fingerprint of the settings.
    `written`: exported files; the zarr store proves itself through the ledger.
    """
    proofs = {path.name: file_proof(path) for path in written}
    save_state(files.finished, Finished(files=proofs, fingerprint=mark, **facts))


def find_finished(files: OutputFiles, needed: Iterable[Location] | None = None) -> Finished | None:
    """Return the facts of a finished run whose exported files are still the same, else None.

    `needed`: files that must be among them, besides the video. No file is opened that a run does
        not write here.
    """
    facts = load_state(files.finished, Finished)
    if facts is None:
        return None
    proofs = {name.rpartition("/")[2]: proof for name, proof in facts.files.items()}
    known = {path.name: path for path in files.named_files()}
    if not {path.name for path in (*files.video_files, *(needed or ()))} <= proofs.keys():
        return None
    if not proofs.keys() <= known.keys():
        logger.debug("%s names files that no run writes here", files.finished)
        return None
    for name, proof in proofs.items():
        try:
            if _proof_of(known[name], proof[0]) != proof:
                return None
        except (OSError, ValueError):
            return None
    return facts


def _proof_of(path: Location, size: int) -> tuple[int, str]:
    """Return size and digest of an export; a user may have put a link in its place."""
    if isinstance(path, RemotePath):
        return file_proof(path)
    descriptor = open_regular(os.path.realpath(path))
    found = os.fstat(descriptor).st_size
    if found != size:
        os.close(descriptor)
        return found, ""
    return found, file_digest(descriptor)
