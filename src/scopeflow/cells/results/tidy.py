"""Samples of a YAML file, and merged traces as one table a feature; knows tables only."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from scopeflow.cells.store.tables import read_traces, write_csv
from scopeflow.engine.lock import only_writer_of_new
from scopeflow.errors import InputError, InputNotFoundError, OptionsError
from scopeflow.io.addresses import expanded
from scopeflow.io.files import atomic_path
from scopeflow.strict.text import TextError, file_text, read_yaml
from scopeflow.strict.values import shortened

__all__ = ["export_tidy", "read_samples"]

logger = logging.getLogger(__name__)


def read_samples(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the fields of view (FOVs) of samples.

    Parameters
    ----------
    path : path
        YAML: ``samples: [{name: control, fovs: "0-5, 7"}, {name: drug, fovs: [8, 9]}]``.

    Returns
    -------
    dict of str to str or list of int
        For :func:`~scopeflow.cells.results.merge.merge_traces`.

    Raises
    ------
    InputNotFoundError, OptionsError
        If the file is missing, is no YAML, or holds something else.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "samples.yaml"
    >>> _ = file.write_text("samples: [{name: A, fovs: 0-2}]")
    >>> read_samples(file)
    {'A': '0-2'}
    """
    file = expanded(path)
    try:
        read = read_yaml(file_text(file))
    except FileNotFoundError:
        raise InputNotFoundError(f"{file}: there is no such file of samples") from None
    except (TextError, OSError) as error:
        raise OptionsError(f"{file}: cannot be read as YAML: {error}") from None
    listed = read.get("samples") if isinstance(read, dict) else None
    form = "write such as samples: [{name: control, fovs: '0-5, 7'}]"
    if not isinstance(listed, list) or not listed:
        raise OptionsError(f"{file}: has no list samples; {form}")
    found: dict[str, Any] = {}
    for one in listed:
        if not isinstance(one, dict) or set(one) != {"name", "fovs"}:
            raise OptionsError(f"{file}: {shortened(one)} is no sample with name and fovs; {form}")
        name = str(one["name"])
        if name in found:
            raise OptionsError(f"{file}: the sample {shortened(name)} is named twice")
        found[name] = one["fovs"]
    return found


def export_tidy(
    table: str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    wait: bool = False,
) -> list[Path]:
    """Write a merged table as one small table a feature.

    Parameters
    ----------
    table : path
        ``{sample}_merged.csv``.
    target : path, optional
        Folder; by default that of the table.
    overwrite : bool, optional
        Replace files that exist.
    wait : bool, optional
        Wait for another run that writes there, instead of refusing.

    Returns
    -------
    list of Path
        ``{sample}_{feature}_ch_{id}.csv`` with the columns ``time, fov, cell, value``, ordered so,
        after the line ``# Time units: min``. Features without any value are left out, with a
        warning.

    Raises
    ------
    InputNotFoundError, InputError, OutputExistsError, OutputLockedError
        The table is missing or not merged, or a file exists or is written by another run.
    """
    source = expanded(table)
    if not source.is_file():
        raise InputNotFoundError(f"{source}: there is no such table; merge the traces first")
    merged = read_traces(source)
    if not {"time", "fov", "cell"} <= set(merged.columns):
        raise InputError(f"{source}: is no merged table; it has no columns time, fov and cell")
    sample = source.stem.removesuffix("_merged")
    folder = source.parent if target is None else expanded(target)
    features = [name for name in merged.columns if re.fullmatch(r".+_ch_\d+", name)]
    empty = [name for name in features if merged[name].isna().all()]
    if empty:
        logger.warning("%s: %s without values, left out", source, ", ".join(empty))
    chosen = {n: folder / f"{sample}_{n}.csv" for n in features if n not in empty}
    rows = merged.sort_values(["time", "fov", "cell"], kind="stable")
    with only_writer_of_new(list(chosen.values()), overwrite=overwrite, wait=wait):
        for name, path in chosen.items():
            kept = rows[["time", "fov", "cell", name]].rename(columns={name: "value"})
            with atomic_path(path) as partial:
                write_csv(kept, partial, ["Time units: min"])
    return list(chosen.values())
