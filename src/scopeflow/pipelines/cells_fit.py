"""Fits of models to the traces of a table: one row a cell; the models themselves are kernels."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd

from scopeflow.config.addresses import local_path
from scopeflow.errors import InputError, InputNotFoundError, OutputExistsError, nearest_name
from scopeflow.kernels.cells_models import fit_trace, get_model
from scopeflow.pipelines.cells_traces import read_traces
from scopeflow.store.files import atomic_path

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
        Replace a file that exists.

    Returns
    -------
    Path
        Columns ``fov, cell, model_type, success, r_squared`` and the fitted parameters; a Parquet
        file with the same rows stands beside it. Cells that could not be fitted are logged with
        the reason, and have their start values.

    Raises
    ------
    InputNotFoundError, InputError, OptionsError, OutputExistsError
        The table, its column, the model or the target cannot be used.
    """
    source = local_path(table, "a merged table")
    get_model(model)
    if not source.is_file():
        raise InputNotFoundError(f"{source}: there is no such table; merge the traces first")
    traces = read_traces(source)
    for name in ("fov", "cell", "time", column):
        if name not in traces.columns:
            hint = nearest_name(name, traces.columns)
            raise InputError(f"{source}: has no column {name!r}.{hint} Give a merged table")
    name = f"{source.stem}_fitted_{model}.csv"
    path = source.with_name(name) if target is None else local_path(target, "fitted parameters")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; choose another target, or overwrite=True")
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    for (fov, cell), trace in traces.groupby(["fov", "cell"], sort=True):
        fit = fit_trace(trace["time"].to_numpy(float) / 60.0, trace[column].to_numpy(float), model)
        if not fit.success:
            failures.append(f"FOV {fov}, cell {cell}: {fit.message}")
        head = {"fov": fov, "cell": cell, "model_type": model}
        rows.append({**head, "success": fit.success, "r_squared": fit.r_squared, **fit.parameters})
    columns = ["fov", "cell", "model_type", "success", "r_squared", *get_model(model).free]
    if failures:
        shown = "; ".join(failures[:_NAMED]) + ("; …" if len(failures) > _NAMED else "")
        logger.warning("%d of %d cells could not be fitted: %s", len(failures), len(rows), shown)
    fitted = pd.DataFrame(rows, columns=columns)
    with atomic_path(path) as partial:
        fitted.to_csv(partial, index=False, lineterminator="\n")
    with atomic_path(path.with_suffix(".parquet")) as partial:
        fitted.to_parquet(partial, index=False)
    return path
