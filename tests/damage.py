"""Damage to state files: every way in which disks, copies and strangers change them."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from scopeflow.errors import ScopeflowError

STATE = (".json", ".npz")


def state_files(folder: Path) -> list[Path]:
    """Return the state files of an output, relative to it."""
    return sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and ".scopeflow" in path.parts and path.suffix in STATE
    )


def results(folder: Path) -> dict[str, bytes]:
    """Return the bytes of everything that is a result; times of day are none."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".scopeflow" not in path.parts and path.name != "run.json"
    }


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Fail where something waits for ever, as for a pipe."""

    def stop(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for n in range(min(len(value), 2)):
            yield from _leaves(value[n], (*path, n))


def _changed(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    copy = json.loads(json.dumps({"root": value}))
    here: Any = copy
    *above, last = ("root", *path)
    for part in above:
        here = here[part]
    change(here, last)
    return copy.get("root")


def _delete(parent: Any, key: Any) -> None:
    del parent[key]


def _set(value: Any) -> Callable[[Any, Any], None]:
    def change(parent: Any, key: Any) -> None:
        parent[key] = value

    return change


def _rename(parent: Any, key: Any) -> None:
    if isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)


OTHER_VALUES = (
    None,
    True,
    -1,
    10**30,
    1.5,
    "",
    "x",
    "../../x",
    "/dev/zero",
    [],
    {},
    [[]],
    {"a": 1},
)


def json_damages(text: str) -> Iterator[tuple[str, bytes]]:
    """Yield names and texts: JSON of other shapes, without the checksum as of earlier versions.

    Another number in the place of a number has the right shape: only the checksum can tell, so it
    stays there.
    """
    whole = json.loads(text)
    plain = (
        {k: v for k, v in whole.items() if k != "checksum"} if isinstance(whole, dict) else whole
    )
    for path in _leaves(plain):
        name = ".".join(map(str, path))
        if path:
            yield f"without {name}", json.dumps(_changed(plain, path, _delete)).encode()
            yield f"renamed {name}", json.dumps(_changed(plain, path, _rename)).encode()
        for other in OTHER_VALUES:
            numbers = isinstance(other, int | float) and isinstance(_at(plain, path), int | float)
            changed = _changed(whole if numbers else plain, path, _set(other))
            yield f"{name}={other!r:.20}", json.dumps(changed).encode()


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


ADDRESSES = (
    "/dev/zero", "../../../../../../dev/zero", "http://127.0.0.1:9/x", "s3://nowhere/x",
    "file:///etc/passwd", "a/../../x", "pipe", "zero", ".", "", "a\\b", "nul\0", "a" * 5000,
)  # fmt: skip


def raw_damages(data: bytes) -> list[tuple[str, bytes]]:
    """Return names and bytes of files that are no whole state file any more."""
    middle = len(data) // 2
    flipped = bytearray(data)
    flipped[middle] ^= 1
    first = bytearray(data)
    first[0] ^= 0x20
    return [
        ("empty", b""),
        ("cut", data[:middle]),
        ("last byte cut", data[:-2]),
        ("flipped", bytes(flipped)),
        ("first flipped", bytes(first)),
        ("longer", data + b"x"),
        ("zeros", bytes(len(data))),
        ("nested", b"[" * 10**5 + b"]" * 10**5),
        ("nested tables", b'{"settings":' * 10**5 + b"1" + b"}" * 10**5),
        ("nested values", b'{"fingerprint":"a","settings":{"a":' + b"[" * 500 + b"]" * 500 + b"}}"),
        ("digits", b'{"fingerprint": ' + b"9" * 5000 + b"}"),
        ("no text", b"\xff\xfe\x00"),
    ]


def replacements(path: Path, elsewhere: Path) -> dict[str, Callable[[], object]]:
    """Return what strangers can put in the place of a file, by name."""
    elsewhere.mkdir(parents=True, exist_ok=True)
    copy = elsewhere / path.name
    copy.write_bytes(path.read_bytes())

    def instead(make: Callable[[], object]) -> Callable[[], object]:
        def do() -> None:
            path.unlink()
            make()

        return do

    return {
        "pipe": instead(lambda: os.mkfifo(path)),
        "link to a device": instead(lambda: path.symlink_to("/dev/zero")),
        "link to a copy": instead(lambda: path.symlink_to(copy)),
        "link to itself": instead(lambda: path.symlink_to(path)),
        "link to nothing": instead(lambda: path.symlink_to(elsewhere / "nothing")),
        "missing": path.unlink,
    }


def damages(path: Path, elsewhere: Path, count: int, seed: int = 0) -> dict[str, Callable[[], Any]]:
    """Return ways to damage a state file, by name: `count` of them, other ones by other seeds."""
    data = path.read_bytes()
    written = list(raw_damages(data))
    if path.suffix == ".json":
        written += json_damages(data.decode())
        value = json.loads(data)
        proofs = value.pop("files", None) if isinstance(value, dict) else None
        for address in ADDRESSES if proofs else ():
            first, *others = proofs.items()
            files = {address: first[1], **dict(others)}
            changed = {**value, "files": files}
            del changed["checksum"]
            written.append((f"file {address[:30]}", json.dumps(changed).encode()))
    found: dict[str, Callable[[], Any]] = {
        name: partial(path.write_bytes, content) for name, content in written
    }
    found |= replacements(path, elsewhere)
    chosen = random.Random(seed)
    worst = chosen.choice(["empty", "pipe", "link to a device"])
    others = chosen.sample(sorted(set(found) - {worst}), count - 1)
    return {name: found[name] for name in [worst, *others]}


def by_kind(files: list[Path]) -> dict[str, Path]:
    """Return one file of each kind: names of one kind differ in their numbers."""
    return {re.sub(r"\d+", "", path.name): path for path in files}


def survives(
    whole: Path,
    run: Callable[[Path], object],
    work: Path,
    out: Path | None = None,
    count: int = 2,
    first_seed: int = 0,
) -> list[str]:
    """Damage each kind of state file of an output and run again; return what went wrong.

    Right is an output with the bytes of the whole one, or an error of ours that names a place in
    it. Everything else is a fault: other bytes, other errors, waiting for ever. `out` is where the
    output stands while it is damaged, for outputs that hold their own place.
    """
    out = out or work / "out"
    truth, faults = results(whole), []
    shutil.copytree(whole, out)
    run(out)
    assert results(out) == truth, "an undamaged output is continued"
    for seed, (kind, file) in enumerate(by_kind(state_files(whole)).items(), first_seed):
        for n in range(count):
            shutil.rmtree(out)
            shutil.copytree(whole, out)
            name, damage = list(damages(out / file, work / "elsewhere", count, seed).items())[n]
            damage()
            where = f"{kind}, {name}"
            try:
                with at_most(60):
                    run(out)
                now = results(out)
                if now != truth:
                    others = sorted(k for k in now | truth if now.get(k) != truth.get(k))
                    faults.append(f"{where}: other bytes of {others[:4]}")
            except ScopeflowError as error:
                if str(out) not in str(error):
                    faults.append(f"{where}: names no file: {error}")
            except Exception as error:
                faults.append(f"{where}: {type(error).__name__}: {error}")
    shutil.rmtree(out)
    return faults
