"""Option files on disk: JSON of `OFOptions`, PyFlowReg and the MATLAB toolbox, as plain mappings.

A file begins with the line ``Compensation options YYYY-MM-DD``, an empty line, then one object.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from scopeflow.errors import InputNotFoundError, OptionsError, OutputError
from scopeflow.io.addresses import local_path
from scopeflow.io.read.boundary import understood
from scopeflow.strict.text import TextError, file_text, read_json
from scopeflow.strict.values import shortened

logger = logging.getLogger(__name__)

_SIZE = 64 << 20
"""Bytes; an option file may hold a reference image as numbers."""
REFERENCE_NAME = "reference_frames.tif"
"""File beside the JSON that holds a reference given as an array."""

MATLAB_KEYS = {
    "datatype": "type of the recording in MATLAB; here it is read from the file",
    "output_file_writer": "state of a MATLAB object",
}
"""Keys that only MATLAB-written files hold, and why they may be ignored. No other key is."""


def options_path(path: str | Path | None, output_path: str | Path) -> Path:
    """File that options are saved in: the given one, or ``options.json`` in the output folder."""
    return local_path(output_path if path is None else path, "an option file") / (
        "options.json" if path is None else ""
    )


def write_options(data: dict[str, Any], reference: Any, path: Path, *, in_memory: bool) -> None:
    """Write an option file; it appears complete or not at all.

    `data` are JSON-able options without ``reference_frames``, which are `reference`: an array goes
    to a TIFF beside the file. `in_memory` says that the recording has a value; a null then gets a
    log message.

    Raises OptionsError: when a value has no form in JSON.
    Raises OutputError: when the folder or file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_options({"eta": 0.8}, [0], Path(folder) / "o.json", in_memory=False)
    ...     read_options(Path(folder) / "o.json")["eta"]
    0.8
    """
    if in_memory and data.get("input_file") is None:
        logger.warning("input_file is held in memory: %s stores null in its place", path)
    array = None
    if isinstance(reference, list):
        stored: Any = reference
    elif isinstance(reference, (str, Path)):
        stored = str(reference)
    else:
        # Relative, so that the folder can be moved.
        stored, array = REFERENCE_NAME, reference
    today = datetime.date.today().isoformat()
    try:
        body = json.dumps({**data, "reference_frames": stored}, indent=2, allow_nan=False)
    except ValueError as error:
        raise OptionsError(
            f"Options cannot be stored as JSON: {error}. Use finite numbers"
        ) from error
    text = f"Compensation options {today}\n\n{body}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if array is not None:
            _replace(path.with_name(REFERENCE_NAME), lambda part: _write_image(part, array))
        _replace(path, lambda part: _write_text(part, text))
    except OSError as error:
        raise OutputError(
            f"Options cannot be written to {path}: {error.strerror or error}. "
            "Check permission and free space, or choose another output_path"
        ) from error


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_image(path: Path, image: Any) -> None:
    tifffile.imwrite(path, np.asarray(image), photometric="minisblack")


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_options(path: str | Path) -> dict[str, Any]:
    """Read an option file into arguments of `OFOptions`.

    MATLAB counts frames and channels from 1: the indices of a MATLAB-written file are moved to
    count from 0. Its empty values (``[]``) take the default. Arguments are unchecked; a reference
    image that exists is loaded.

    Raises InputNotFoundError: when the file, or the reference saved beside it, does not exist.
    Raises OptionsError: when the file holds no JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise InputNotFoundError(f"Option file {path} does not exist. Check the path")
    try:
        lines = file_text(path, _SIZE).splitlines()
    except TextError as error:
        raise OptionsError(f"{path} is no option file: {error}") from None
    start = next((n for n, line in enumerate(lines) if line.lstrip().startswith("{")), None)
    if start is None:
        raise OptionsError(
            f"{path} is no option file: no line starts with '{{'. "
            "Write one with OFOptions(...).save_options(path)"
        )
    try:
        # Empty lines in place of the heading: errors name the line of the file.
        data = read_json("\n" * start + "\n".join(lines[start:]), _SIZE)
    except TextError as error:
        raise OptionsError(f"{path} is damaged JSON: {error}. Correct it there") from None

    if MATLAB_KEYS.keys() & data.keys():
        data = _from_matlab(data, path)
    elif "temporal_boundary" not in data and data.get("output_typename") == "double":
        # PyFlowReg always writes this default, and never applies it to files.
        del data["output_typename"]
    if "reference_frames" in data:
        data["reference_frames"] = _loaded_reference(data["reference_frames"], path)
    return dict(data)


def _from_matlab(data: dict[str, Any], path: Path) -> dict[str, Any]:
    ignored = sorted(MATLAB_KEYS.keys() & data.keys())
    logger.info("%s was written by MATLAB: ignored %s", path, ", ".join(ignored))
    kept = {k: v for k, v in data.items() if k not in MATLAB_KEYS and v not in ([], {}, None, "")}
    for name in ("reference_frames", "channel_idx"):
        value = kept.get(name)
        single = isinstance(value, int) and not isinstance(value, bool)
        indices = [value] if single else value
        if isinstance(indices, list) and all(type(entry) is int for entry in indices):
            if min(indices) < 1:
                raise OptionsError(
                    f"{path}: {name} counts from 1 in MATLAB, but holds {shortened(value)}"
                )
            kept[name] = [entry - 1 for entry in indices]
            logger.info("%s: %s now counts from 0", path, name)
    # MATLAB writes whole numbers and logicals in either form.
    integers = ("levels", "min_level", "update_lag", "iterations", "bin_size", "buffer_size",
                "n_references", "min_frames_per_reference", "cc_hw", "cc_up")  # fmt: skip
    for name in integers:
        if isinstance(kept.get(name), float) and kept[name].is_integer():
            kept[name] = int(kept[name])
    booleans = ("update_reference", "verbose", "save_meta_info", "save_w", "save_valid_mask",
                "save_valid_idx", "cc_initialization", "update_initialization_w")  # fmt: skip
    for name in booleans:
        if type(kept.get(name)) in (int, float) and kept[name] in (0, 1):
            kept[name] = bool(kept[name])
    return kept


def _loaded_reference(value: Any, path: Path) -> Any:
    if not isinstance(value, str) or Path(value).suffix.lower() not in (".tif", ".tiff"):
        return value
    beside = path.parent / value
    image = beside if beside.is_file() else Path(value)
    if not image.is_file():
        if value == REFERENCE_NAME:
            raise InputNotFoundError(
                f"{path} needs the reference {beside}, which does not exist. "
                "Copy it there, or set reference_frames in the option file"
            )
        return value
    with understood(f"Reference {image}"):
        return tifffile.imread(image)
