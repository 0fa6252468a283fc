"""Results of the cell workflow in formats of others: OME-NGFF, GEFF, CSV, Parquet."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from scopeflow._version import __version__
from scopeflow.cells.results.geff import Axis, Property, write_geff
from scopeflow.cells.results.merge import frame_times
from scopeflow.cells.results.ngff import write_image
from scopeflow.cells.results.open import FovResults, Results, open_results
from scopeflow.cells.results.tracks import track_graph
from scopeflow.cells.store.arrays import IMAGES, fov_folder
from scopeflow.cells.store.tables import write_csv, write_parquet
from scopeflow.engine.lock import only_writer_of_new
from scopeflow.errors import InputError, OptionsError, nearest_name
from scopeflow.io.addresses import local_path
from scopeflow.io.files import atomic_path
from scopeflow.io.folders import atomic_folder
from scopeflow.io.metadata import VideoMetadata
from scopeflow.strict.values import shortened

__all__ = ["FORMATS", "export_results"]

logger = logging.getLogger(__name__)

FORMATS = {
    "ome-ngff": ".ome.zarr",
    "geff": ".geff",
    "csv": "_traces.csv",
    "parquet": "_traces.parquet",
}
"""Formats and the endings of what they write."""


def export_results(
    results: str | os.PathLike[str] | Results,
    target: str | os.PathLike[str],
    format: str = "ome-ngff",  # noqa: A002 - the word that users know
    *,
    fovs: Sequence[int] | None = None,
    overwrite: bool = False,
    wait: bool = False,
) -> list[Path]:
    """Write results of a cell workflow for other programs.

    ``ome-ngff`` writes one OME-NGFF 0.5 image a field of view (FOV), with the copied channels as a
    pyramid and the labels ``cells`` (the same through time) and ``objects`` (of each frame).
    ``geff`` writes one graph of tracks a FOV (GEFF 1.3): a node is a cell in a frame, with the
    position of the centre of its box in pixel centres, its measured features, and its number in
    the labels; edges follow cells through time and lead from parents to daughters. ``csv`` and
    ``parquet`` write one table of the traces of all FOVs, with times in minutes.

    Parameters
    ----------
    results : path or Results
        Folder of a run.
    target : path
        Folder to write to; may hold other exports.
    format : {"ome-ngff", "geff", "csv", "parquet"}, optional
        What to write.
    fovs : sequence of int, optional
        Only these.
    overwrite : bool, optional
        Replace what exists.
    wait : bool, optional
        Wait for another run that writes there, instead of refusing.

    Returns
    -------
    list of Path
        What was written. Each appears under its name only when it is complete.

    Raises
    ------
    InputNotFoundError, InputError, OptionsError, OutputExistsError, OutputLockedError
        No results, a FOV without images or cells, an unknown format, or a target that exists or
        that another run writes; before anything is written.

    Examples
    --------
    >>> import tempfile
    >>> from scopeflow.cells.workflow import run_workflow
    >>> out = Path(tempfile.mkdtemp())
    >>> movie = np.full((2, 32, 40, 1), 7, "uint16")
    >>> run_workflow(movie, out / "run", {"channels": {"fl": [0]}, "params": {"copy_only": True}})
    True
    >>> [path.name for path in export_results(out / "run", out / "export", "ome-ngff")]
    ['recording_fov_000.ome.zarr']
    """
    if format not in FORMATS:
        raise OptionsError(
            f"format={shortened(format)} is not known.{nearest_name(format, FORMATS)} "
            f"Known: {', '.join(FORMATS)}"
        )
    opened = results if isinstance(results, Results) else open_results(results)
    chosen = [opened[fov] for fov in (opened if fovs is None else fovs)]
    folder = local_path(target, "an export")
    base = Path(str(opened.metadata.get("base_name") or "")).name or "recording"
    ending = FORMATS[format]
    if format in ("csv", "parquet"):
        path = folder / f"{base}{ending}"
        with only_writer_of_new([path], overwrite=overwrite, wait=wait):
            return [_export_table(opened, chosen, path)]
    paths = [folder / f"{base}_{fov_folder(fov.fov)}{ending}" for fov in chosen]
    for fov in chosen:
        _check(fov, format)
    with only_writer_of_new(paths, overwrite=overwrite, wait=wait):
        for fov, path in zip(chosen, paths, strict=True):
            with atomic_folder(path, overwrite=overwrite) as partial:
                if format == "ome-ngff":
                    _write_ngff(fov, partial, path.name.removesuffix(ending))
                else:
                    _write_geff(fov, partial, path)
            logger.info("%s is written", path)
    return paths


def _check(fov: FovResults, format: str) -> None:  # noqa: A002
    if format == "ome-ngff" and not any(name[:2] in ("pc", "fl") for name in fov.names):
        raise InputError(f"{fov.folder}: holds no images; run the cell workflow there first")
    if format == "geff" and not (fov.folder / "cells.zarr" / "metadata").is_dir():
        raise InputError(
            f"{fov.folder}: holds no followed cells; run the cell workflow with a phase-contrast "
            "channel first"
        )


def _export_table(results: Results, fovs: list[FovResults], path: Path) -> Path:
    wanted = [fov.fov for fov in fovs]
    table = results.traces.table
    table = table[table["fov"].isin(wanted)].reset_index(drop=True)
    with atomic_path(path) as partial:
        if path.suffix == ".csv":
            write_csv(table, partial)
        else:
            write_parquet(table, partial)
    return path


def _interval_s(fov: FovResults) -> float:
    """Return seconds from frame to frame: the median where they vary."""
    times, _ = frame_times(fov.config)
    n_frames = int(fov.config.metadata.get("n_frames") or 1)
    minutes = np.array([times(t) for t in range(n_frames)], np.float64)
    steps = np.diff(minutes)
    steps = steps[np.isfinite(steps)]
    return float(np.median(steps)) * 60.0 if steps.size else fov.config.params.frame_interval * 60


def _write_ngff(fov: FovResults, folder: Path, name: str) -> None:
    facts = fov.config.metadata
    stacks = {
        key: zarr.open_array(str(fov.folder / IMAGES / key / "0"), mode="r") for key in fov.names
    }
    pixel = facts.get("pixel_size_um")
    known = facts.get("channel_names") or []
    images = list(fov.images)
    numbers = [int(key.split("_")[-1]) for key in images]
    names = [known[n] if n < len(known) else key for n, key in zip(numbers, images, strict=True)]
    metadata = VideoMetadata(
        pixel_size_um=None if not pixel else (float(pixel), float(pixel)),
        frame_interval_s=_interval_s(fov),
        channel_names=tuple(names),
    )
    found = {"cells": "seg_tracked_ch_", "objects": "seg_labeled_ch_"}
    labels = {
        label: stack
        for label, start in found.items()
        for key, stack in stacks.items()
        if key.startswith(start)
    }
    grey = images[0].startswith("pc")
    write_image(folder, name, [stacks[key] for key in images], metadata, labels, grey_first=grey)


def _write_geff(fov: FovResults, folder: Path, path: Path) -> None:
    graph = track_graph(fov.regions, fov.lineage)
    nodes = {name: Property(graph.nodes[name].to_numpy()) for name in graph.nodes.columns}
    table = fov.table
    # Features stand where filters left the cell in the traces.
    keys = pd.MultiIndex.from_frame(graph.nodes[["cell", "t"]])
    measured = table.set_index(["cell", "frame"])
    row = measured.index.get_indexer(keys)
    for name in table.columns:
        if not name.rpartition("_ch_")[1]:
            continue
        values = table[name].to_numpy(np.float64)
        taken = np.zeros(len(keys))
        taken[row >= 0] = values[row[row >= 0]]
        missing = (row < 0) | np.isnan(taken)
        nodes[name] = Property(np.where(missing, 0.0, taken), None, missing)
    pixel = fov.config.metadata.get("pixel_size_um")
    space: tuple[Any, ...] = (float(pixel), "micrometer") if pixel else (None, None)
    axes = [
        Axis("t", "time", "frame", _interval_s(fov), "second"),
        Axis("y", "space", "pixel", *space),
        Axis("x", "space", "pixel", *space),
    ]
    image = path.with_name(path.name.removesuffix(FORMATS["geff"]) + FORMATS["ome-ngff"])
    related = []
    if (image / "labels" / "cells").is_dir():
        place = f"../{image.name}"
        related.append({"type": "image", "path": place})
        related.append({"type": "labels", "path": f"{place}/labels/cells", "node_prop": "cell"})
    write_geff(
        folder,
        nodes,
        graph.edges,
        axes,
        track_props={"tracklet": "tracklet", "lineage": "lineage"},
        related=related,
        extra={"software": {"name": "scopeflow", "version": __version__}},
    )
