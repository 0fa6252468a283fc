"""From words on the command line to options; reads option files, opens no recording."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from scopeflow.io.formats import OutputFormat

if TYPE_CHECKING:
    from scopeflow.engine.place import RegistrationConfig
    from scopeflow.motion.options.of_options import OFOptions

_PLACES = {"sequential": "sequential", "threads": "threading", "processes": "multiprocessing"}
_HDF5 = ("HDF5", "MULTIFILE_HDF5", "CAIMAN_HDF5")
_TIFF = ("TIFF", "OME_TIFF", "SUITE2P_TIFF", "MULTIFILE_TIFF")
# The first is meant where no format is named.
_FILE_FORMATS = {
    ".zarr": ("ZARR",),
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".mat": ("MAT", "MULTIFILE_MAT"),
}
# Names of option files that no file on disk can be: memory, and a layout that is not published.
_NO_FILES = ("ARRAY", "BEGONIA")
_USUAL = ("ZARR", "HDF5", "TIFF", "MAT")
_OTHERS = tuple(name for name in OutputFormat if name not in (*_USUAL, *_NO_FILES))
FORMATS = tuple(name.lower() for name in (*_USUAL, *_OTHERS))
"""Names that ``--format`` takes, the usual ones first."""


Wait: TypeAlias = Annotated[
    bool,
    typer.Option("--wait", help="Wait for another run that writes there, instead of refusing."),
]


def parse_assignments(given: Sequence[str], flag: str = "--set") -> dict[str, Any]:
    """Turn ``KEY=VALUE`` words into values of `OFOptions` by name, not yet checked.

    Raises
    ------
    typer.BadParameter
        As `assigned_values`; recording, output and functions are not given in this way.

    Examples
    --------
    >>> parse_assignments(["alpha=[2, 4]", "save_w=true", "min_level=0"])
    {'alpha': [2, 4], 'save_w': True, 'min_level': 0}
    """
    from scopeflow.motion.options.of_options import OFOptions

    elsewhere = (*OFOptions.callables, "input_file", "output_path", "output_file_name")
    known = [name for name in OFOptions.model_fields if name not in elsewhere]
    return assigned_values(given, known, flag, "alpha=4")


def assigned_values(
    given: Sequence[str], known: Sequence[str], flag: str, example: str
) -> dict[str, Any]:
    """Turn ``KEY=VALUE`` words into values by name; values are YAML scalars, lists or tables.

    Raises
    ------
    typer.BadParameter
        For a word without ``=``, an unknown or repeated name, or a value that is no YAML.
    """
    from scopeflow.errors import nearest_name
    from scopeflow.strict.text import TextError, read_yaml
    from scopeflow.strict.values import excerpt

    values: dict[str, Any] = {}
    for word in given:
        name, equals, text = word.partition("=")
        name = name.strip()
        if not equals:
            raise typer.BadParameter(
                f"{flag} {excerpt(word)}: write KEY=VALUE, such as {flag} {example}"
            )
        if name not in known:
            raise typer.BadParameter(
                f"{flag} {excerpt(name)}: there is no such option.{nearest_name(name, known)}"
            )
        if name in values:
            raise typer.BadParameter(f"{flag} {name} is given twice; give it once")
        try:
            values[name] = read_yaml(text)
        except TextError as error:
            raise typer.BadParameter(
                f"{flag} {excerpt(word)}: the value cannot be read: {error}"
            ) from None
        if _lacks_blank(values[name]):
            raise typer.BadParameter(
                f"{flag} {excerpt(word)}: a blank belongs behind each colon, such as {flag} "
                f"'{name}={{max_gap: 2}}'"
            )
    return values


def _lacks_blank(value: Any) -> bool:
    # YAML reads {a:1} as a key without a value.
    if not isinstance(value, dict):
        return False
    return any((":" in str(key) and one is None) or _lacks_blank(one) for key, one in value.items())


def parse_format(given: str) -> str:
    """Turn the name of a format, in any letter case, with ``-`` or ``_``, into that of an option.

    Raises
    ------
    typer.BadParameter
        For an unknown name.

    Examples
    --------
    >>> parse_format("ome-tiff")
    'OME_TIFF'
    """
    from scopeflow.errors import nearest_name

    name = given.strip().lower().replace("-", "_")
    if name.upper() in _NO_FILES:
        # The options say why not.
        return name.upper()
    if name not in FORMATS:
        raise typer.BadParameter(
            f"--format {given}: there is no such format.{nearest_name(name, FORMATS)} "
            f"Formats: {', '.join(FORMATS)}."
        )
    return name.upper()


_DIGITS = 7


def parse_reference(given: str) -> list[int] | str:
    """Turn ``A:B`` into frame numbers ``A`` to ``B - 1``; anything else is a path.

    Raises
    ------
    typer.BadParameter
        If the range holds no frame.

    Examples
    --------
    >>> parse_reference("3:6"), parse_reference("mean.tif")
    ([3, 4, 5], 'mean.tif')
    """
    from scopeflow.strict.values import excerpt

    match = re.fullmatch(r"(\d*):(\d+)", given, re.ASCII)
    if match is None:
        return given
    if max(map(len, match.groups(""))) > _DIGITS:
        raise typer.BadParameter(f"--reference {excerpt(given)}: no recording has so many frames")
    first, last = int(match[1] or 0), int(match[2])
    if first >= last:
        raise typer.BadParameter(
            f"--reference {given} holds no frame; A:B means frames A to B - 1, counted from 0"
        )
    return list(range(first, last))


def make_options(
    input_path: str | Path,
    output: str | Path,
    *,
    options_file: Path | None,
    flags: dict[str, Any],
    assignments: Sequence[str],
) -> OFOptions:
    """Combine an option file, flags and ``--set``; later ones win over the file.

    `output` is a folder, or the name of the registered recording if it has the suffix of a format.
    `flags` are options by name, None where one was not given.

    Raises
    ------
    typer.BadParameter
        For names or values that cannot be used, or options given in two ways.
    ScopeflowError
        If the option file cannot be used.
    """
    from scopeflow.errors import OptionsError
    from scopeflow.io.locations import location
    from scopeflow.motion.options.json_files import read_options
    from scopeflow.motion.options.of_options import OFOptions

    values = read_options(options_file) if options_file is not None else {}
    OFOptions(**values)  # a mistake in the file is not bad usage of the command
    given = {name: value for name, value in flags.items() if value is not None}
    assigned = parse_assignments(assignments)
    for name in sorted(given.keys() & assigned.keys()):
        raise typer.BadParameter(f"{name} is given by a flag and by --set; give it once")
    if "quality_setting" in {**given, **assigned} and "min_level" not in assigned:
        # In the file it would make the quality custom, and the flag would do nothing.
        values.pop("min_level", None)
    values.update(given)
    values.update(assigned)
    target = location(output)
    possible = _FILE_FORMATS.get(target.suffix.lower())
    values["input_file"] = str(input_path)
    values["output_path"] = output
    values["output_file_name"] = None
    if possible is not None:
        named = {**given, **assigned}.get("output_format")
        is_ome = target.name.lower().endswith((".ome.tif", ".ome.tiff"))
        file_format = "OME_TIFF" if is_ome else possible[0]
        if named is not None and str(named).upper() in possible:
            file_format = str(named).upper()
        elif named is not None:
            raise typer.BadParameter(
                f"OUTPUT {output} is a {file_format} file, the format is {named}; "
                "give a folder, or leave --format out"
            )
        values.update(
            output_path=str(target.parent), output_file_name=str(target), output_format=file_format
        )
    try:
        options = OFOptions(**values)
    except OptionsError as error:
        raise typer.BadParameter(str(error)) from None
    if options.output_format.value == "ARRAY":
        raise typer.BadParameter(
            "output_format=ARRAY keeps results in memory, which a command cannot return; "
            "use --format zarr"
        )
    return options


def make_config(
    scheduler: str | None,
    workers: int | None,
    *,
    resume: bool,
    block_length: int | None,
    verbose: bool,
    wait: bool = False,
) -> RegistrationConfig:
    """Say where a run computes, from ``--scheduler`` and ``--workers``.

    `scheduler` is ``sequential``, ``threads``, ``processes``, the address of a dask scheduler, or
    the scheduler file that it wrote; `workers` None uses all processors that may be used.

    Raises
    ------
    typer.BadParameter
        For an unknown place, or workers of a cluster that has its own.

    Examples
    --------
    >>> config = make_config("threads", 2, resume=True, block_length=None, verbose=False)
    >>> config.parallelization, config.n_jobs
    ('threading', 2)
    """
    from scopeflow.engine.place import RegistrationConfig
    from scopeflow.errors import OptionsError, nearest_name

    place: dict[str, Any] = {}
    if scheduler is not None and scheduler in _PLACES:
        place["parallelization"] = _PLACES[scheduler]
    elif scheduler is not None:
        address = _address(scheduler)
        if address is None:
            raise typer.BadParameter(
                f"--scheduler {scheduler}: use sequential, threads, processes, an address such as "
                f"tcp://host:8786, or a scheduler file.{nearest_name(scheduler, _PLACES)}"
            )
        place["scheduler_address"] = address
    if workers is not None and ("scheduler_address" in place or scheduler == "sequential"):
        raise typer.BadParameter(f"--workers has no effect with --scheduler {scheduler}")
    try:
        return RegistrationConfig(
            n_jobs=-1 if workers is None else workers,
            verbose=verbose,
            resume=resume,
            wait=wait,
            block_length=block_length,
            **place,
        )
    except OptionsError as error:
        raise typer.BadParameter(str(error)) from None


def _address(scheduler: str) -> str | None:
    from scopeflow.strict.text import file_text, read_json

    if re.fullmatch(r"\w+://.+|[\w.-]+:\d+", scheduler):
        return scheduler
    path = Path(scheduler)
    if not path.is_file():
        return None
    try:
        return str(read_json(file_text(path))["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
