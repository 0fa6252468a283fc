"""Fits of models to the traces of a table: one row a cell; the models themselves are kernels."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd

from scopeflow.cells.methods.models import fit_trace, get_model
from scopeflow.cells.results.fits_picture import FittedTrace, save_fits_picture
from scopeflow.cells.store.tables import read_traces, write_csv, write_parquet
from scopeflow.engine.lock import only_writer_of_new
from scopeflow.errors import InputNotFoundError
from scopeflow.io.addresses import local_path
from scopeflow.io.files import atomic_path

__all__ = ["fit_traces"]

logger = logging.getLogger(__name__)

_NAMED = 10


def fit_traces(
    table: str | os.PathLike[str],
    column: str,
    model: str = "maturation",
    *,
    target: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    picture: bool = False,
    wait: bool = False,
) -> Path:
    """Fit a model to every cell of a merged table.

    Parameters
    ----------
    table : path
        ``{sample}_merged.csv``, with times in minutes.
    column : str
        What to fit, such as ``intensity_total_ch_1``.
    model : str, optional
        ``maturation``, ``trivial`` or ``maturation_blocked``.
    target : path, optional
        By default ``{stem}_fitted_{model}.csv`` beside the table.
    overwrite : bool, optional
        Replace files that exist.
    picture : bool, optional
        Also save points and curves of up to 20 cells, as PNG beside the table of fits.

    Returns
    -------
    Path
        Columns ``fov, cell, model_type, success, r_squared`` and the fitted parameters; a Parquet
        file with the same rows stands beside it. Cells that could not be fitted are logged with
        the reason, and have their start values; parameters that ended at a bound are named too.

    Raises
    ------
    InputNotFoundError, InputError, OptionsError, OutputExistsError
        The table, its column, the model or the target cannot be used.
    """
    source = local_path(table, "a merged table")
    get_model(model)
    if not source.is_file():
        raise InputNotFoundError(f"{source}: there is no such table; merge the traces first")
    traces = read_traces(source, ("fov", "cell", "time", column))
    name = f"{source.stem}_fitted_{model}.csv"
    path = source.with_name(name) if target is None else local_path(target, "fitted parameters")
    targets = [path, path.with_suffix(".parquet")] + [path.with_suffix(".png")] * picture
    with only_writer_of_new(targets, overwrite=overwrite, wait=wait):
        _write_fits(source, traces, column, model, path, picture)
    return path


def _write_fits(
    source: Path, traces: pd.DataFrame, column: str, model: str, path: Path, picture: bool
) -> None:
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    drawn: list[FittedTrace] = []
    for (fov, cell), trace in traces.groupby(["fov", "cell"], sort=True):
        hours, values = trace["time"].to_numpy(float) / 60.0, trace[column].to_numpy(float)
        fit = fit_trace(hours, values, model)
        if not fit.success:
            failures.append(f"FOV {fov}, cell {cell}: {fit.message}")
        if picture:
            curve = get_model(model).function(hours, {**get_model(model).fixed, **fit.parameters})
            name = f"FOV {fov}, cell {cell}"
            drawn.append(FittedTrace(name, hours, values, curve, fit.success, fit.r_squared))
        head = {"fov": fov, "cell": cell, "model_type": model}
        rows.append({**head, "success": fit.success, "r_squared": fit.r_squared, **fit.parameters})
    columns = ["fov", "cell", "model_type", "success", "r_squared", *get_model(model).free]
    if failures:
        shown = "; ".join(failures[:_NAMED]) + ("; …" if len(failures) > _NAMED else "")
        logger.warning("%d of %d cells could not be fitted: %s", len(failures), len(rows), shown)
    fitted = pd.DataFrame(rows, columns=columns)
    _name_bounds(fitted, model)
    with atomic_path(path) as partial:
        write_csv(fitted, partial)
    with atomic_path(path.with_suffix(".parquet")) as partial:
        write_parquet(fitted, partial)
    if drawn:
        with atomic_path(path.with_suffix(".png")) as partial:
            save_fits_picture(partial, drawn, title=f"{source.stem}, {column}, {model}")


def _name_bounds(fitted: pd.DataFrame, model: str) -> None:
    """Log which parameters ended at their bounds, where their values say little."""
    done = fitted[fitted["success"].astype(bool)]
    found = []
    for name, (_, low, high) in get_model(model).free.items():
        near = 1e-6 * (high - low)
        count = int(((done[name] < low + near) | (done[name] > high - near)).sum())
        if count:
            found.append(f"{name} ({low:g} to {high:g}) in {count}")
    if found:
        logger.warning("of %d fits, parameters ended at a bound: %s", len(done), ", ".join(found))
