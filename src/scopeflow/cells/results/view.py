"""Results of the cell workflow to look at: a picture of each field of view, layers for napari."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scopeflow.cells.results.ngff import sampled_range
from scopeflow.cells.results.open import FovResults, Results, open_results
from scopeflow.cells.results.picture import save_cells_picture
from scopeflow.cells.results.tracks import track_graph
from scopeflow.cells.store.arrays import fov_folder
from scopeflow.engine.lock import only_writer_of_new
from scopeflow.errors import InputError, OptionsError
from scopeflow.io.addresses import local_path
from scopeflow.io.files import atomic_path

__all__ = ["napari_layers", "open_in_napari", "save_pictures"]

_COLORS = ("green", "magenta", "cyan", "yellow", "red", "blue")


def save_pictures(
    results: str | os.PathLike[str] | Results,
    target: str | os.PathLike[str] | None = None,
    *,
    fovs: Sequence[int] | None = None,
    frame: int | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Save a PNG of each field of view (FOV): cells with their numbers, and their traces.

    Parameters
    ----------
    results : path or Results
        Folder of a run.
    target : path, optional
        Folder of the pictures, by default ``pictures`` in that of the run.
    fovs : sequence of int, optional
        Only these.
    frame : int, optional
        Frame to show, from 0; by default the middle one.
    overwrite : bool, optional
        Replace pictures that exist.

    Returns
    -------
    list of Path
        ``fov_000.png`` and so on.

    Raises
    ------
    InputNotFoundError, InputError, OutputExistsError
        No results, no such FOV or frame, or a picture that exists.

    Examples
    --------
    >>> import tempfile
    >>> from scopeflow.cells.workflow import run_workflow
    >>> out = tempfile.mkdtemp()
    >>> movie = np.full((2, 32, 40, 1), 7, "uint16")
    >>> run_workflow(movie, out, {"channels": {"fl": [0]}, "params": {"copy_only": True}})
    True
    >>> [path.name for path in save_pictures(out)]
    ['fov_000.png']
    """
    opened = results if isinstance(results, Results) else open_results(results)
    chosen = [opened[fov] for fov in (opened if fovs is None else fovs)]
    folder = opened.folder / "pictures" if target is None else local_path(target, "pictures")
    paths = [folder / f"{fov_folder(fov.fov)}.png" for fov in chosen]
    for fov in chosen:
        _check(fov, frame)
    pixel = opened.metadata.get("pixel_size_um")
    with only_writer_of_new(paths, overwrite=overwrite):
        for fov, path in zip(chosen, paths, strict=True):
            _save_picture(fov, path, frame, float(pixel) if pixel else None)
    return paths


def _check(fov: FovResults, frame: int | None) -> None:
    if not fov.images:
        raise InputError(f"{fov.folder}: holds no images; run the cell workflow there first")
    frames = next(iter(fov.images.values())).sizes["T"]
    if frame is not None and not 0 <= frame < frames:
        raise InputError(f"frame={frame}: FOV {fov.fov} has frames 0 to {frames - 1}")


def _save_picture(fov: FovResults, path: Path, frame: int | None, pixel: float | None) -> None:
    image = next(iter(fov.images.values()))
    frames = image.sizes["T"]
    shown = frames // 2 if frame is None else frame
    labels, traces = fov.labels, fov.traces
    regions = fov.regions
    kept, followed = traces.table["cell"].nunique(), regions["cell"].nunique()
    name = fov.config.metadata.get("base_name") or "recording"
    title = f"{name}, FOV {fov.fov}"
    if labels is not None:
        title += f": {followed} cells followed, {kept} in the traces"
    counts = None if labels is None else np.bincount(regions["frame"], minlength=frames)[:frames]
    with atomic_path(path) as partial:
        save_cells_picture(
            partial,
            image[shown].to_numpy(),
            None if labels is None else labels[shown].to_numpy(),
            traces.table,
            title=title,
            frame=shown,
            cells_in_frame=counts,
            times=traces.times if len(traces.times) >= frames else None,
            pixel_size_um=pixel,
        )


def napari_layers(fov: FovResults) -> list[tuple[Any, dict[str, Any], str]]:
    """Return layers of a field of view in the form that napari takes: images, labels, tracks.

    Parameters
    ----------
    fov : FovResults
        ``open_results(folder)[0]``.

    Returns
    -------
    list of tuple
        ``(data, keywords, kind)`` for ``napari.layers.Layer.create``. Images and labels are lazy,
        tracks have rows ``(cell, t, y, x)`` and the parents of cells as ``graph``.

    Examples
    --------
    >>> import tempfile
    >>> from scopeflow.cells.workflow import run_workflow
    >>> out = tempfile.mkdtemp()
    >>> movie = np.full((2, 32, 40, 1), 7, "uint16")
    >>> run_workflow(movie, out, {"channels": {"fl": [0]}, "params": {"copy_only": True}})
    True
    >>> [(words["name"], kind) for _, words, kind in napari_layers(open_results(out)[0])]
    [('fl_ch_0', 'image')]
    """
    pixel = fov.config.metadata.get("pixel_size_um")
    side = float(pixel) if pixel else 1.0
    common = {"scale": (1.0, side, side)}
    layers: list[tuple[Any, dict[str, Any], str]] = []
    colors = iter(_COLORS * 16)
    for name, image in fov.images.items():
        words = {
            "name": name,
            "colormap": "gray" if name.startswith("pc") else next(colors),
            "blending": "translucent" if name.startswith("pc") else "additive",
            "contrast_limits": sampled_range(image.data),
            **common,
        }
        layers.append((image.data, words, "image"))
    if fov.labels is None:
        return layers
    layers.append((fov.labels.data, {"name": "cells", "opacity": 0.4, **common}, "labels"))
    graph = track_graph(fov.regions, fov.lineage)
    if len(graph.nodes):
        tracks = graph.nodes[["cell", "t", "y", "x"]].to_numpy(np.float64)
        present = set(graph.nodes["cell"].tolist())
        pairs = fov.lineage[["cell", "parent"]].to_numpy(np.int64).tolist()
        parents = {c: [p] for c, p in pairs if p and c in present and p in present}
        layers.append((tracks, {"name": "tracks", "graph": parents, **common}, "tracks"))
    return layers


def open_in_napari(
    results: str | os.PathLike[str] | Results, fov: int | None = None, *, show: bool = True
) -> Any:
    """Open a field of view (FOV) in napari.

    Parameters
    ----------
    results : path or Results
        Folder of a run.
    fov : int, optional
        Which; by default the first.
    show : bool, optional
        Wait until the window is closed.

    Returns
    -------
    napari.Viewer
        With images, labels and tracks.

    Raises
    ------
    OptionsError
        If napari is not installed.
    InputNotFoundError, InputError
        No results, or no such FOV.
    """
    opened = results if isinstance(results, Results) else open_results(results)
    chosen = opened[next(iter(opened)) if fov is None else fov]
    try:
        import napari
    except ImportError as error:
        raise OptionsError(
            f"napari cannot be imported ({error}); install it with "
            "pip install 'scopeflow[napari]'. Pictures need no napari: scopeflow cells view RESULTS"
        ) from None
    viewer = napari.Viewer(title=f"{opened.folder.name}, FOV {chosen.fov}", show=show)
    for data, words, kind in napari_layers(chosen):
        getattr(viewer, f"add_{kind}")(data, **words)
    if show:
        napari.run()
    return viewer
