"""Bytes of every format that are cut, flipped, zeroed, swapped, doubled or made absurd numbers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from tests.fuzz.cases import Case, damaged
from tests.fuzz.seeds import Seeds

GROUP = "bytes"
_NUMBERS = (0, 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, 0x4141414141414141)

Change = Callable[[bytearray, np.random.Generator], bytes]


def cut(share: float, data: bytearray, rng: np.random.Generator) -> bytes:
    """Keep the first part; a share below zero counts bytes from the end."""
    return bytes(data[: int(share)] if share < 0 else data[: int(len(data) * share)])


def flip(count: int, data: bytearray, rng: np.random.Generator) -> bytes:
    """Turn some bits over, mostly near the beginning and the end, where headers are."""
    for _ in range(count):
        data[_place(data, 1, rng)] ^= 1 << int(rng.integers(8))
    return bytes(data)


def zero(count: int, data: bytearray, rng: np.random.Generator) -> bytes:
    """Overwrite a run of bytes by zeros."""
    start = _place(data, count, rng)
    data[start : start + count] = bytes(len(data[start : start + count]))
    return bytes(data)


def number(width: int, data: bytearray, rng: np.random.Generator) -> bytes:
    """Overwrite a field of so many bytes by a number that a size would never be."""
    value = int(rng.choice(np.array(_NUMBERS, np.uint64))) % 2 ** (8 * width)
    start = _place(data, width, rng) // 2 * 2
    data[start : start + width] = value.to_bytes(width, "little" if rng.random() < 0.5 else "big")
    return bytes(data)


def swap(count: int, data: bytearray, rng: np.random.Generator) -> bytes:
    """Exchange two runs of bytes."""
    a, b = _place(data, count, rng), _place(data, count, rng)
    one, other = bytes(data[a : a + count]), bytes(data[b : b + count])
    data[b : b + count] = one
    data[a : a + count] = other
    return bytes(data)


def double(count: int, data: bytearray, rng: np.random.Generator) -> bytes:
    """Repeat a run of bytes, so that all that follows stands elsewhere; 0 repeats the file."""
    if not count:
        return bytes(data) * 2
    start = _place(data, count, rng)
    return bytes(data[: start + count] + data[start:])


def noise(count: int, data: bytearray, rng: np.random.Generator) -> bytes:
    """Overwrite a run by random bytes."""
    start = _place(data, count, rng)
    data[start : start + count] = rng.bytes(len(data[start : start + count]))
    return bytes(data)


def _place(data: bytearray, width: int, rng: np.random.Generator) -> int:
    last = max(0, len(data) - width)
    where = rng.random()
    if where < 0.45:
        return int(rng.integers(0, min(last, 512) + 1))
    if where < 0.65:
        return int(rng.integers(max(0, last - 512), last + 1))
    return int(rng.integers(0, last + 1))


_CUTS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, -1, -9)


def changes() -> Iterator[tuple[str, Change]]:
    """Yield all changes of one file, by name."""
    for share in _CUTS:
        yield f"cut to {share}", partial(cut, share)
    for turn in range(7):
        yield f"flip 1, {turn}", partial(flip, 1)
    for turn in range(4):
        yield f"flip 16, {turn}", partial(flip, 16)
    for count in (4, 16, 64, 512):
        yield f"zero {count}", partial(zero, count)
    for width in (2, 4, 8):
        for turn in range(3):
            yield f"number of {width} bytes, {turn}", partial(number, width)
    for count in (4, 64, 512):
        yield f"swap {count}", partial(swap, count)
    for count in (0, 1, 64, 512):
        yield f"double {count}", partial(double, count)
    for count in (8, 256):
        yield f"noise {count}", partial(noise, count)


def _apply(change: Change, path: Path, rng: np.random.Generator) -> None:
    if path.is_dir():  # mostly descriptions: they decide what chunks mean
        files = sorted(one for one in path.rglob("*") if one.is_file())
        described = [one for one in files if one.name.startswith((".z", "zarr", "ops"))]
        chosen = described if rng.random() < 0.6 else files
        path = chosen[int(rng.integers(len(chosen)))]
    data = bytearray(path.read_bytes())
    if data:
        path.write_bytes(change(data, rng))


def _replace(by: str, path: Path, rng: np.random.Generator) -> None:
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file())
        path = files[int(rng.integers(len(files)))]
    path.unlink()
    if by == "folder":
        path.mkdir()
    elif by == "fifo":
        os.mkfifo(path)
    elif by == "zeros":
        path.symlink_to("/dev/zero")
    elif by == "itself":
        path.symlink_to(path.name)
    elif by == "nowhere":
        path.symlink_to("nowhere")
    elif by == "text":
        path.write_text("This is no recording.\n")


def _foreign(name: str, seed: str, other: str) -> Case:
    def make(folder: Path, seeds: Seeds, rng: np.random.Generator) -> list[str]:
        target, source = folder / name, seeds.paths[other]
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
        return ["inspect", name]

    return Case(GROUP, f"{seed} is {other}", make, recording=name)


def cases(seeds: Seeds) -> Iterator[Case]:
    """Yield every change of every format, and files that are something else than their name."""
    for seed in seeds.paths:
        for name, change in changes():
            yield damaged(GROUP, name, seed, partial(_apply, change))
        for by in ("nothing", "folder", "fifo", "zeros", "itself", "nowhere", "text"):
            yield damaged(GROUP, f"replaced by {by}", seed, partial(_replace, by))
    for seed, path in seeds.paths.items():
        for other in ("classic.tif", "plain.h5", "plain5.mat", "made.nd2", "format3.zarr"):
            if other != seed and other in seeds.paths:
                yield _foreign(path.name, seed, other)
