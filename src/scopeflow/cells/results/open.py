"""Results of the cell workflow as xarray and pandas objects, opened lazily; writes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from scopeflow.cells.config import WorkflowConfig, load_config
from scopeflow.cells.plan import CONFIG_FILE
from scopeflow.cells.results.merge import frame_times, trace_files
from scopeflow.cells.store.arrays import CELLS, IMAGES, fov_folder
from scopeflow.cells.store.tables import BASE_COLUMNS, LINEAGE_ENDING, read_traces
from scopeflow.errors import InputError, InputNotFoundError, nearest_name
from scopeflow.io.addresses import local_path
from scopeflow.strict.values import shortened

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FovResults", "Results", "Traces", "open_results"]

_UNITS = (
    (r"(position|bbox|centroid)_.*", "pixel"),
    (r"area_ch_\d+", "pixel²"),
    (r"intensity_.*", "count"),
)


@dataclass(frozen=True)
class Traces:
    """Rows of cells and frames, and the same as an array by field of view, cell and frame.

    Attributes
    ----------
    table : DataFrame
        One row for each cell and frame in which it was seen, see ``*_traces.csv``, with a column
        ``time``, minutes, after ``frame``.
    n_frames : int
        Frames of the recording.
    times : ndarray, shape (n_frames,), float64
        Minutes.
    attributes : dict
        Facts of the recording: ``pixel_size_um`` and others, where known.
    """

    table: pd.DataFrame
    n_frames: int
    times: NDArray[np.float64]
    attributes: dict[str, Any]

    def to_xarray(self) -> xr.Dataset:
        """Return the traces as arrays.

        Returns
        -------
        xarray.Dataset
            Dimensions ``(fov, cell, frame)``, one variable a column, float64, NaN where a cell was
            not seen; ``good`` is bool, False there. ``time``, minutes, is a coordinate of
            ``frame``. Cells are numbered in each field of view by itself.

        Examples
        --------
        >>> table = pd.DataFrame(
        ...     {"fov": [0, 0], "cell": [3, 3], "frame": [0, 2], "time": [0.0, 10.0],
        ...      "good": [True, True], "area_ch_0": [7, 9]}
        ... )
        >>> Traces(table, 3, np.array([0.0, 5.0, 10.0]), {}).to_xarray()["area_ch_0"].to_numpy()
        array([[[ 7., nan,  9.]]])
        """
        import xarray as xr

        table = self.table
        fovs, cells = np.unique(table["fov"]), np.unique(table["cell"])
        shape = (len(fovs), len(cells), self.n_frames)
        place = (
            np.searchsorted(fovs, table["fov"]),
            np.searchsorted(cells, table["cell"]),
            table["frame"].to_numpy(),
        )
        variables = {}
        for name in table.columns:
            if name in ("fov", "cell", "frame", "time"):
                continue
            values: NDArray[Any]
            values = np.zeros(shape, bool) if name == "good" else np.full(shape, np.nan)
            values[place] = table[name].to_numpy()
            units = [unit for pattern, unit in _UNITS if re.fullmatch(pattern, name)]
            attributes = {"units": units[0]} if units else {}
            variables[name] = (("fov", "cell", "frame"), values, attributes)
        coordinates = {
            "fov": fovs,
            "cell": cells,
            "frame": np.arange(self.n_frames),
            "time": ("frame", self.times, {"units": "min"}),
        }
        return xr.Dataset(variables, coordinates, dict(self.attributes))


@dataclass(frozen=True)
class FovResults:
    """Results of one field of view.

    Attributes
    ----------
    fov : int
        Its number.
    folder : Path
        ``fov_000`` and so on.
    config : WorkflowConfig
        Of the run.
    traces_path : Path or None
        Table of traces; an inspected one goes first. None before they are written.
    """

    fov: int
    folder: Path
    config: WorkflowConfig
    traces_path: Path | None

    @cached_property
    def names(self) -> list[str]:
        """Names of the stacks: ``pc_ch_0``, ``fl_ch_1``, ``seg_tracked_ch_0`` and others."""
        store = self.folder / IMAGES
        if not store.is_dir():
            return []
        return sorted(name for name, group in zarr.open_group(str(store), mode="r").groups())

    def stack(self, name: str) -> xr.DataArray:
        """Open a stack lazily.

        Parameters
        ----------
        name : str
            One of `names`.

        Returns
        -------
        xarray.DataArray
            Dimensions ``(T, Y, X)`` on a dask array of whole frames, with times in minutes as
            coordinate ``time`` of T.

        Raises
        ------
        InputError
            If there is no such stack.
        """
        from scopeflow.io.recording import open_video

        if name not in self.names:
            raise InputError(
                f"{self.folder / IMAGES}: has no stack "
                f"{shortened(name)}.{nearest_name(name, self.names)} "
                f"It has: {', '.join(self.names) or 'none'}"
            )
        opened = open_video(self.folder / IMAGES / name / "0", axes="TYX").isel(C=0, drop=True)
        times, _ = frame_times(self.config)
        minutes = np.array([times(t) for t in range(opened.sizes["T"])], np.float64)
        return opened.rename(name).assign_coords(time=("T", minutes, {"units": "min"}))

    def _first(self, pattern: str) -> xr.DataArray | None:
        found = [name for name in self.names if re.fullmatch(pattern, name)]
        return self.stack(found[0]) if found else None

    @property
    def images(self) -> dict[str, xr.DataArray]:
        """Copied images by name, phase contrast first, lazily."""
        order = sorted(self.names, key=lambda name: (name[:2] != "pc", int(name.split("_")[-1])))
        return {name: self.stack(name) for name in order if re.fullmatch(r"(pc|fl)_ch_\d+", name)}

    @property
    def labels(self) -> xr.DataArray | None:
        """Numbers of the cells, the same through time, ``(T, Y, X)`` uint16; None without cells."""
        return self._first(r"seg_tracked_ch_\d+")

    @property
    def objects(self) -> xr.DataArray | None:
        """Objects as segmentation found them, numbered in each frame; None without cells."""
        return self._first(r"seg_labeled_ch_\d+")

    @cached_property
    def table(self) -> pd.DataFrame:
        """Traces, without times; empty where there are none."""
        if self.traces_path is None:
            return pd.DataFrame({name: [] for name in BASE_COLUMNS}).astype({"good": bool})
        return read_traces(self.traces_path)

    @cached_property
    def regions(self) -> pd.DataFrame:
        """Bounding boxes of all followed cells, also of those that filters left out of the traces.

        Columns ``cell, frame, bbox_y0, bbox_x0, bbox_y1, bbox_x1``, sorted by cell and frame.
        """
        columns = ["cell", "frame", "bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1"]
        store = self.folder / CELLS / "metadata"
        if not store.is_dir():
            return pd.DataFrame({name: np.zeros(0, np.int64) for name in columns})
        read = {
            name: np.asarray(zarr.open_array(str(store / name), mode="r")[...])
            for name in ("cell_ids", "bboxes", "valid_frames")
        }
        n, frames = np.nonzero(read["valid_frames"])
        rows = [read["cell_ids"][n], frames, *read["bboxes"][n, frames].T]
        return pd.DataFrame(dict(zip(columns, (row.astype(np.int64) for row in rows), strict=True)))

    @cached_property
    def lineage(self) -> pd.DataFrame:
        """Columns ``cell, first_frame, last_frame, parent``; parent 0 where it is not known."""
        files = sorted(self.folder.glob(f"*_{LINEAGE_ENDING}"))
        if files:
            return pd.read_csv(files[0])
        frames = self.regions.groupby("cell")["frame"]
        found = frames.agg(first_frame="min", last_frame="max").reset_index()
        return found.assign(parent=0).astype(np.int64)

    @property
    def traces(self) -> Traces:
        """Traces with times."""
        return _traces([self], self.config)


@dataclass(frozen=True)
class Results(Mapping[int, FovResults]):
    """Results of a run by field of view (FOV): ``results[0]``, ``len(results)``, iteration.

    Attributes
    ----------
    folder : Path
        Folder of the run.
    config : WorkflowConfig
        Of the run.
    fovs : dict of int to FovResults
        By number.
    """

    folder: Path
    config: WorkflowConfig
    fovs: dict[int, FovResults]

    def __getitem__(self, fov: int) -> FovResults:
        if fov not in self.fovs:
            raise InputError(
                f"{self.folder}: has no results of FOV {fov}; it has {', '.join(map(str, self))}"
            )
        return self.fovs[fov]

    def __iter__(self) -> Iterator[int]:
        return iter(self.fovs)

    def __len__(self) -> int:
        return len(self.fovs)

    @property
    def metadata(self) -> dict[str, Any]:
        """Facts of the recording, from ``processing_config.yaml``."""
        return dict(self.config.metadata)

    @property
    def traces(self) -> Traces:
        """Traces of all FOVs together, with times."""
        return _traces(list(self.fovs.values()), self.config)


def _traces(fovs: list[FovResults], config: WorkflowConfig) -> Traces:
    facts = config.metadata
    tables = [fov.table for fov in fovs]
    rows = [table for table in tables if len(table)] or tables[:1]
    table = pd.concat(rows, ignore_index=True)
    longest = int(table["frame"].max()) + 1 if len(table) else 0
    n_frames = max(int(facts.get("n_frames") or 0), longest)
    times, origin = frame_times(config)
    minutes = np.array([times(t) for t in range(n_frames)], np.float64)
    by_row = minutes[table["frame"].to_numpy(np.int64)]
    table.insert(list(table.columns).index("frame") + 1, "time", by_row)
    kept = {key: facts[key] for key in ("base_name", "pixel_size_um") if facts.get(key)}
    return Traces(table, n_frames, minutes, {**kept, "time_from": origin})


def open_results(folder: str | os.PathLike[str]) -> Results:
    """Open the results of a cell workflow; tables are read, and frames loaded, when asked for.

    Parameters
    ----------
    folder : path
        Output of :func:`scopeflow.run_workflow`.

    Returns
    -------
    Results
        By field of view: ``results[0].images``, ``results[0].labels``, ``results.traces``.

    Raises
    ------
    InputNotFoundError
        If there are no such results.

    Examples
    --------
    >>> import tempfile
    >>> from scopeflow.cells.workflow import run_workflow
    >>> out = tempfile.mkdtemp()
    >>> movie = np.full((2, 32, 40, 1), 7, "uint16")
    >>> run_workflow(movie, out, {"channels": {"fl": [0]}, "params": {"copy_only": True}})
    True
    >>> results = open_results(out)
    >>> results[0].images["fl_ch_0"].sizes["X"], int(results[0].images["fl_ch_0"].max())
    (40, 7)
    """
    root = local_path(folder, "the results of the cell workflow")
    if not (root / CONFIG_FILE).is_file():
        raise InputNotFoundError(
            f"{root}: holds no {CONFIG_FILE}, so no results of a cell workflow; check the path"
        )
    config = load_config(root / CONFIG_FILE)
    tables = trace_files(root)
    names = [path.name for path in root.iterdir() if path.is_dir()]
    numbers = sorted(int(m[1]) for m in (re.fullmatch(r"fov_(\d{3,})", n) for n in names) if m)
    if not numbers:
        raise InputNotFoundError(f"{root}: holds no fov_* folders; run the cell workflow first")
    fovs = {n: FovResults(n, root / fov_folder(n), config, tables.get(n)) for n in numbers}
    return Results(root, config, fovs)
