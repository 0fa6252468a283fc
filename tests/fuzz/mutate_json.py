"""Every value in the metadata of zarr and OME-Zarr, replaced by values that nobody expects."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.cases import Case, damaged
from tests.fuzz.seeds import Seeds

GROUP = "zarr metadata"
REMOVED = object()
HOSTILE: tuple[tuple[str, Any], ...] = (
    ("null", None),
    ("-1", -1),
    ("0", 0),
    ("2**63", 2**63),
    ("1e999", float("inf")),
    ("0.5", 0.5),
    ("true", True),
    ("text", "abc"),
    ("no text", ""),
    ("..", "../.."),
    ("[]", []),
    ("{}", {}),
    ("nested", [[[[1]]]]),
    ("removed", REMOVED),
)
Path_ = tuple[str | int, ...]


def places(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Yield where every value stands: leaves, and what holds them."""
    if at:
        yield at
    if isinstance(value, dict):
        for key, one in value.items():
            yield from places(one, (*at, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from places(one, (*at, number))


def replaced(value: Any, at: Path_, by: Any) -> Any:
    """Return a copy with another value at a place."""
    changed = copy.deepcopy(value)
    holder = changed
    for step in at[:-1]:
        holder = holder[step]
    if by is REMOVED:
        del holder[at[-1]]
    else:
        holder[at[-1]] = by
    return changed


def _damage(file: str, at: Path_, by: Any, folder: Path, rng: np.random.Generator) -> None:
    path = folder / file
    path.write_text(json.dumps(replaced(json.loads(path.read_text()), at, by)))


def _texts() -> Iterator[tuple[str, str]]:
    yield "deep list", "[" * 100_000 + "]" * 100_000
    yield "deep table", '{"a":' * 50_000 + "1" + "}" * 50_000
    yield "long integer", '{"zarr_format": ' + "9" * 6000 + "}"
    yield "not a table", "[1, 2]"
    yield "two documents", "{} {}"
    yield "byte order mark", "\ufeff{}"
    yield "repeated keys", '{"zarr_format": 3, "zarr_format": 2}'
    yield "NaN", '{"zarr_format": NaN}'
    yield "half", '{"zarr_format": 3, "node_type": "arr'


def _write(file: str, text: str, folder: Path, rng: np.random.Generator) -> None:
    (folder / file).write_text(text, encoding="utf-8")


def cases(seeds: Seeds) -> Iterator[Case]:
    """Yield every value of every description times every hostile value."""
    for seed, path in seeds.paths.items():
        if not seed.endswith(".zarr"):
            continue
        for described in sorted(
            one for one in path.rglob("*") if one.name.startswith((".z", "za"))
        ):
            file = described.relative_to(path).as_posix()
            for at in places(json.loads(described.read_text())):
                for name, by in HOSTILE:
                    place = f"{file} {'/'.join(map(str, at))}"
                    yield damaged(GROUP, f"{place} = {name}", seed, partial(_damage, file, at, by))
            for name, text in _texts():
                yield damaged(GROUP, f"{file}: {name}", seed, partial(_write, file, text))
