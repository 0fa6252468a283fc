"""What a case is: a group of the table, a name, and a function that makes its files."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.fuzz.seeds import Seeds

MARKER = "executed.marker"
"""File in the folder of a case that only code smuggled into an input would make."""

CORRECT = (
    *("--quality", "fast", "--set", "iterations=5"),
    *("--scheduler", "sequential", "--block-length", "2"),
)
"""Flags with which a tiny recording is corrected in this process, in three blocks."""


@dataclass(frozen=True)
class Case:
    """One bad input.

    `make`: writes it into an empty folder and returns the words of the command.
    `recording`: the input, relative to the folder, where `correct` can be tried on it afterwards.
    `is_right`: whether what was accepted led to the right bytes, where that is known.
    """

    group: str
    name: str
    make: Callable[[Path, Seeds, np.random.Generator], Sequence[str]]
    recording: str | None = None
    is_right: Callable[[Seeds], bool] | None = None

    @property
    def generator(self) -> np.random.Generator:
        """Return the random numbers of this case, the same in every run."""
        return np.random.default_rng(zlib.crc32(f"{self.group}/{self.name}".encode()))


def damaged(
    group: str, name: str, seed: str, damage: Callable[[Path, np.random.Generator], None]
) -> Case:
    """Return a case that copies a seed, damages it in place and inspects it."""

    def make(folder: Path, seeds: Seeds, rng: np.random.Generator) -> list[str]:
        damage(seeds.copy(seed, folder), rng)
        return ["inspect", seed]

    return Case(group, f"{seed}: {name}", make, recording=seed)


def written(group: str, name: str, file: str, write: Callable[[Path], None]) -> Case:
    """Return a case whose recording is written from nothing and inspected."""

    def make(folder: Path, seeds: Seeds, rng: np.random.Generator) -> list[str]:
        write(folder / file)
        return ["inspect", file]

    return Case(group, f"{file}: {name}", make, recording=file)
