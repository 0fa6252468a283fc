"""Files made from a finished run: exported videos, displacements, masks, statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scopeflow.io.files import atomic_save_npy, atomic_save_npz
from scopeflow.io.formats import OutputFormat
from scopeflow.io.locations import Location
from scopeflow.io.metadata import VideoMetadata
from scopeflow.io.write.exports import (
    STREAMED_FORMATS,
    ValidIndexWriter,
    open_displacement_writer,
    open_writer,
)
from scopeflow.io.zarr.ngff import ngff_attributes
from scopeflow.motion.block.values import STATISTICS, Reference
from scopeflow.motion.options.of_options import OFOptions
from scopeflow.motion.store.delivery import StoredFrames
from scopeflow.motion.store.layout import MOTION, REGISTERED, VALID, ResultStore
from scopeflow.motion.store.outputs import OutputFiles


def export_results(
    options: OFOptions,
    files: OutputFiles,
    store: ResultStore,
    reference: Reference,
    statistics: Mapping[str, NDArray[Any]],
    metadata: VideoMetadata,
) -> list[Location]:
    """Write everything that the options ask for from a complete store, block by block.

    `statistics`: statistics of all frames, ``(T,)`` each.
    """
    frames = StoredFrames(store)
    shape = store.layout.shape
    written: list[Location] = []
    if files.format in STREAMED_FORMATS and isinstance(files.target, Path):
        with open_writer(
            files.target,
            files.format,
            shape=shape,
            dtype=store.layout.dtype,
            metadata=metadata,
        ) as video:
            for start, stop in _blocks(store):
                video.write(frames.registered(start, stop))
        written += files.video_files
    if files.format is OutputFormat.ZARR:
        store.write_statistics(statistics)
        store.write_reference(reference.raw, reference.processed)
        ranges = [
            (float(plane.min()), float(plane.max())) for plane in np.moveaxis(reference.raw, -1, 0)
        ]
        store.set_attributes(**ngff_attributes(files.target.stem, REGISTERED, metadata, ranges))
    if options.save_w:
        path = files.side_file("w.h5")
        with open_displacement_writer(path, shape[:3]) as displacements:
            for start, stop in _blocks(store):
                displacements.write(frames.flow(start, stop))
        written.append(path)
    if options.save_motion:
        path = files.side_file("motion.h5")
        with open_displacement_writer(path, (shape[0], *store.layout.motion_shape)) as motion:
            for start, stop in _blocks(store):
                motion.write(store.read(MOTION, start, stop))
        written.append(path)
    if options.writes_valid_idx:
        path = files.side_file("idx.hdf")
        with ValidIndexWriter(path, shape[:3]) as masks:
            for start, stop in _blocks(store):
                masks.write(store.read(VALID, start, stop))
        written.append(path)
    if options.save_meta_info:
        path = files.side_file("statistics.npz")
        atomic_save_npz(path, **{name: statistics[name] for name in STATISTICS})
        written.append(path)
        path = files.side_file("reference_frame.npy")
        atomic_save_npy(path, reference.raw)
        written.append(path)
    return written


def exported_files(options: OFOptions, files: OutputFiles) -> list[Location]:
    """Return the files that :func:`export_results` writes besides the zarr store."""
    streamed = files.format in STREAMED_FORMATS and isinstance(files.target, Path)
    side_files = {
        "w.h5": options.save_w,
        "motion.h5": options.save_motion,
        "idx.hdf": options.writes_valid_idx,
        "statistics.npz": options.save_meta_info,
        "reference_frame.npy": options.save_meta_info,
    }
    asked = [files.side_file(name) for name, written in side_files.items() if written]
    return [*(files.video_files if streamed else []), *asked]


def _blocks(store: ResultStore) -> Iterator[tuple[int, int]]:
    n_frames, length = store.layout.shape[0], store.layout.block_length
    for start in range(0, n_frames, length):
        yield start, min(start + length, n_frames)
