"""One recording of a session aligned to the reference: what it is made from, and its file."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from scopeflow._shapes import VideoTYXC
from scopeflow.compiled.version import KERNEL_VERSION
from scopeflow.engine.fingerprint import fingerprint
from scopeflow.engine.ledger import Form
from scopeflow.engine.pieces import Piece, Result
from scopeflow.errors import InputError, InputNotFoundError
from scopeflow.images.interpolation import Interpolation
from scopeflow.io.open import Source, open_source
from scopeflow.io.recording import open_recording
from scopeflow.io.write.exports import open_writer
from scopeflow.motion.store.displacements import StoredMotion, open_motion
from scopeflow.motion.store.provenance import RunOptions
from scopeflow.sessions.align import align_corrected_frames, align_raw_frames
from scopeflow.sessions.config import SessionConfig
from scopeflow.sessions.products import ProductFolder
from scopeflow.sessions.recordings import SessionRecording, absent_frames, stage1_facts

logger = logging.getLogger(__name__)

EXTENSIONS = {"TIFF": "tif", "HDF5": "hdf5", "MAT": "mat"}


@dataclass(frozen=True, eq=False)
class AlignedExport:
    """Everything that the task of one aligned recording needs; picklable.

    `frames`: raw frames where `motion` is given, else corrected frames.
    `motion`: displacements within the recording, ``(T, h, w, 2)``.
    `between`, `fill`: displacement against the reference ``(H, W, 2)``, and the reference average
        ``(H, W, C)``.
    `interpolation`: ``{"cubic", "linear", "nearest"}``, of raw frames.
    `absent`: frames without pixels, which become zeros.
    """

    path: Path
    file_format: str
    chunk: int
    frames: Source
    motion: StoredMotion | None
    between: NDArray[Any]
    fill: NDArray[Any]
    dtype: str
    interpolation: Interpolation
    absent: tuple[int, ...] = ()

    def mark(self) -> str:
        """Return the fingerprint of all that decides the bytes of the file."""
        return fingerprint(
            {
                "frames": self.frames.identity(),
                "motion": None if self.motion is None else self.motion.identity(),
                "between": self.between,
                "fill": self.fill,
                "dtype": self.dtype,
                "interpolation": self.interpolation,
                "format": self.file_format,
                "kernel_version": KERNEL_VERSION,
                **({"absent": list(self.absent)} if self.absent else {}),
            }
        )


def plan_export(
    config: SessionConfig,
    recording: SessionRecording,
    between: NDArray[Any],
    reference: NDArray[np.float64],
    files: ProductFolder,
) -> Piece:
    """Work out how a recording is aligned, and return that work; reads headers only.

    `between` is its displacement ``(H, W, 2)`` against `reference`, the average ``(H, W, C)`` of
    the center; `files` is where it is written and recorded.

    Raises ScopeflowError: when products of stage 1 are missing or do not fit together.
    """
    target = recording.corrected()
    if target is None:
        raise InputNotFoundError(f"Missing {recording.folder / 'compensated.hdf5'}. Run Stage 1")
    corrected = open_source(target)
    if corrected.shape[1:] != reference.shape:
        raise InputError(
            f"{target} has frames {corrected.shape[1:]}, the reference {reference.shape}. Run "
            "Stage 1 again"
        )
    frames: Source = corrected
    motion: StoredMotion | None = None
    interpolation: Interpolation = "cubic"
    absent = absent_frames(recording)
    if config.align_method == "one_step":
        motion = open_motion(recording.folder)
        if motion is None:
            logger.warning(
                "%s: stage 1 has not kept its displacements, so the corrected frames are "
                "interpolated again (align_method two_step).",
                recording.name,
            )
    if motion is not None:
        frames, interpolation = _open_raw(config, recording)
        if frames.shape != corrected.shape or motion.shape[0] != frames.shape[0]:
            raise InputError(
                f"the raw recording {frames.shape}, its displacements {motion.shape} and the "
                f"corrected frames {corrected.shape} do not fit together. Run Stage 1 again"
            )
        if tuple(getattr(frames, "absent", ())) != absent:
            raise InputError(
                f"{frames.description} lacks the pixels of other frames than when it was "
                "corrected. Run Stage 1 again"
            )
    file_format = config.align_output_format
    name = f"aligned_{recording.name}"
    export = AlignedExport(
        files.folder / f"{name}.{EXTENSIONS[file_format]}",
        file_format,
        config.align_chunk_size,
        frames,
        motion,
        np.asarray(between),
        reference,
        str(corrected.dtype),
        interpolation,
        absent,
    )
    ledger = files.ledger(export.mark())
    form = Form((export.path.name,), _Written)
    return Piece(name, write_aligned, (export,), ledger, recording.name, frames.shape[0], form=form)


class _Written(BaseModel):
    clipped: int


def _open_raw(config: SessionConfig, recording: SessionRecording) -> tuple[Source, Interpolation]:
    """Open the raw recording as stage 1 did, and return its interpolation too."""
    facts = stage1_facts(recording)
    if facts is None:
        plain = config.stage1_options().model_dump(mode="json", exclude={"reference_frames"})
        options = RunOptions(**plain)
    else:
        options = facts.options
    channels = options.channel_idx
    video = open_recording(
        recording.path,
        bin_size=options.bin_size,
        channels=[channels] if isinstance(channels, int) else channels,
        **config.reading_choices(),
    ).video
    return video.source, options.interpolation_method  # type: ignore[union-attr]


def write_aligned(export: AlignedExport) -> Result:
    """Write an aligned recording, which appears complete or not at all.

    Its value ``clipped`` counts values that did not fit the dtype and were clipped.
    """
    clipped = 0
    frames, height, width, channels = export.frames.shape
    with open_writer(
        export.path,
        export.file_format,
        shape=(frames, height, width, channels),
        dtype=export.dtype,
        metadata=export.frames.metadata,
    ) as writer:
        for start in range(0, frames, export.chunk):
            stop = min(start + export.chunk, frames)
            aligned, count = _aligned(export, start, stop)
            writer.write(aligned)
            clipped += count
    return Result([export.path.name], {"clipped": clipped})


def _aligned(export: AlignedExport, start: int, stop: int) -> tuple[VideoTYXC, int]:
    """Return some frames aligned, and how many of their values were clipped."""
    block = export.frames.read(start, stop)
    motion = None if export.motion is None else export.motion.read(start, stop)
    gone = [frame - start for frame in export.absent if start <= frame < stop]
    if gone:
        block = np.delete(block, gone, axis=0)
        motion = None if motion is None else np.delete(motion, gone, axis=0)
    to = export.between, export.fill, export.dtype
    if motion is None:
        aligned, clipped = align_corrected_frames(block, *to)
    else:
        aligned, clipped = align_raw_frames(block, motion, *to, export.interpolation)
    if gone:
        before = np.array(gone) - np.arange(len(gone))
        aligned = np.insert(aligned, before, 0, axis=0)
    return aligned, clipped
