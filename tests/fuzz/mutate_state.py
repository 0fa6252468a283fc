"""Everything that finished and unfinished runs keep, damaged or forged; then the run goes on.

What the run ends with has to be the bytes of an undisturbed one, or one clear error.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.workloads import contents, prepare, write_inputs
from tests.fuzz.cases import CORRECT, MARKER, Case
from tests.fuzz.mutate_bytes import cut, double, flip, noise, number, zero
from tests.fuzz.mutate_json import REMOVED, places, replaced
from tests.fuzz.mutate_pickles import Call
from tests.fuzz.seeds import Seeds
from tests.fuzz.server import ForkServer

GROUP = "state and products"
_PLACES_OF_A_FILE = 10  # values of a JSON file that are replaced
_VALUES: tuple[tuple[str, Any], ...] = (
    ("null", None),
    ("-1", -1),
    ("2**63", 2**63),
    ("1e999", float("inf")),
    ("text", "abc"),
    ("[]", []),
    ("{}", {}),
    ("removed", REMOVED),
)
# A record that names a file makes the next run read it.
_NAMES = (
    "/dev/zero",
    "/dev/stdin",
    "/etc/passwd",
    "../../../../../../etc/passwd",
    "FIFO",
    "http://127.0.0.1:9/x",
    "s3://bucket/key",
    "file:///etc/passwd",
    "",
    ".",
    "a\0b",
    "x" * 5000,
)


@dataclass(frozen=True)
class Output:
    """What a run left behind, and how it is gone on with.

    `kept`: a copy that stays as it is; `root`: where the run has to find it.
    """

    kept: Path
    root: Path
    words: tuple[str, ...]
    expected: dict[str, str]

    def restore(self) -> None:
        """Put what the run left behind in its place."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.kept, self.root, symlinks=True)

    def is_right(self) -> bool:
        """Return whether the results are those of an undisturbed run."""
        return contents(self.root) == self.expected


def dies(completed: int, *words: str) -> None:
    """Run a command that ends without any clean-up after so many pieces of work."""
    from scopeflow.cli.app import main
    from scopeflow.engine.ledger import Ledger

    complete, done = Ledger.complete, []

    def complete_or_die(self: Ledger, name: str, *more: Any, **settings: Any) -> None:
        complete(self, name, *more, **settings)
        done.append(name)
        if len(done) == completed:
            os._exit(9)

    Ledger.complete = complete_or_die  # type: ignore[method-assign]
    sys.argv = ["scopeflow", *words]
    main()


def make_outputs(scratch: Path, server: ForkServer) -> dict[str, Output]:
    """Run every product to its end, and again until it dies; keep what is left each time."""
    inputs = scratch / "inputs"
    write_inputs(inputs)
    root = scratch / "output"
    movie, cells = str(inputs / "movie.tif"), str(inputs / "cells.ome.tif")
    out = str(root / "out")
    commands: dict[str, tuple[str, ...]] = {
        "zarr": ("correct", movie, out, *CORRECT),
        "hdf5": ("correct", movie, out, "--format", "hdf5", *CORRECT),
        "session": (
            *("session", "run", "--config", str(root / "session.toml")),
            *("--scheduler", "sequential"),
        ),
        "cells": (
            *("cells", "run", cells, out, "--pc", "0", "--fl", "1", "--set", "min_frames=2"),
            *("--set", "border_margin=5", "--set", "background_tile_size=50"),
            *("--set", "n_workers=1"),
        ),
    }
    outputs = {}
    for name, words in commands.items():
        _begin(name, inputs, root)
        ended = server.run(words, scratch)
        if ended.code != 0:
            raise RuntimeError(f"{name}: {ended.err}")
        expected = contents(root)
        kept = scratch / "kept" / name
        shutil.copytree(root, kept)
        outputs[name] = Output(kept, root, words, expected)
        _begin(name, inputs, root)
        completed = {"zarr": 9, "hdf5": 9, "session": 14, "cells": 9}[name]
        ended = server.call("tests.fuzz.mutate_state:dies", completed, *words, folder=scratch)
        if ended.code != 9:
            raise RuntimeError(f"{name} did not die: {ended.err}")
        kept = scratch / "kept" / f"half {name}"
        shutil.copytree(root, kept)
        outputs[f"half {name}"] = Output(kept, root, words, expected)
    return outputs


def _begin(name: str, inputs: Path, root: Path) -> None:
    prepare(name, inputs, root)
    if name == "session":
        (root / "session.toml").write_text(
            'root = "."\ncenter = "rec_1.tif"\nalign_chunk_size = 2\n[flow_options]\n'
            'quality_setting = "fast"\niterations = 5\nreference_frames = [0]\nbuffer_size = 4\n'
        )


Damage = Callable[[Path, np.random.Generator], None]


def _byte_damages() -> Iterator[tuple[str, Damage]]:
    def applied(change: Any) -> Damage:
        def damage(path: Path, rng: np.random.Generator) -> None:
            path.write_bytes(change(bytearray(path.read_bytes()), rng))

        return damage

    yield "0 bytes", applied(partial(cut, 0.0))
    yield "half", applied(partial(cut, 0.5))
    yield "short of a byte", applied(partial(cut, -1))
    yield "a bit turned", applied(partial(flip, 1))
    yield "zeros", applied(partial(zero, 64))
    yield "noise", applied(partial(noise, 32))
    yield "a number", applied(partial(number, 4))
    yield "twice", applied(partial(double, 0))


def _other_things() -> Iterator[tuple[str, Damage]]:
    def replaced_by(make: Callable[[Path], object]) -> Damage:
        def damage(path: Path, rng: np.random.Generator) -> None:
            path.unlink()
            make(path)

        return damage

    yield "removed", replaced_by(lambda path: None)
    yield "a folder", replaced_by(Path.mkdir)
    yield "a FIFO", replaced_by(os.mkfifo)
    yield "/dev/zero", replaced_by(lambda path: path.symlink_to("/dev/zero"))
    yield "a link to nowhere", replaced_by(lambda path: path.symlink_to("nowhere"))
    yield "a link to itself", replaced_by(lambda path: path.symlink_to(path.name))


def _json_damages(path: Path, rng: np.random.Generator) -> Iterator[tuple[str, Damage]]:
    stored = json.loads(path.read_text())
    found = [at for at in places(stored) if len(at) <= 4]
    few = rng.permutation(len(found))[:_PLACES_OF_A_FILE]
    for at in (found[n] for n in sorted(few)):
        for name, by in _VALUES:
            yield f"{'/'.join(map(str, at))} = {name}"[:120], partial(_set_json, at, by)
    for name, whole in (("null", None), ("[]", []), ("5", 5), ("text", "abc"), ("{}", {})):
        yield f"the whole = {name}", partial(_write_text, json.dumps(whole))
    yield "deep", partial(_write_text, "[" * 100_000)
    yield "a long integer", partial(_write_text, '{"fingerprint": ' + "9" * 6000 + "}")
    if isinstance(stored, dict) and isinstance(stored.get("files"), dict):
        for name in _NAMES:
            yield f"names {name[:30]!r}", partial(_name_file, name)
            yield f"names {name[:30]!r} alone", partial(_name_only, name)
        for size, digest in ((-1, "00"), (2**63, ""), ("5", 5), (None, None)):
            proof = {"size": size, "digest": digest}
            yield f"proof {size!r}", partial(_set_proof, proof)
            yield f"short proof {size!r}", partial(_set_proof, [size, digest])
        yield "no proof", partial(_set_json, ("files",), {})


def _set_json(at: tuple[str | int, ...], by: Any, path: Path, rng: np.random.Generator) -> None:
    path.write_text(json.dumps(replaced(json.loads(path.read_text()), at, by)))


def _write_text(text: str, path: Path, rng: np.random.Generator) -> None:
    path.write_text(text)


def _hostile_name(name: str, path: Path) -> str:
    if name == "FIFO":
        fifo = path.parent / "fifo"
        os.mkfifo(fifo)
        return str(fifo)
    return name


def _name_file(name: str, path: Path, rng: np.random.Generator) -> None:
    stored = json.loads(path.read_text())
    proof = next(iter(stored["files"].values()), {"size": 0, "digest": ""})
    stored["files"] = {_hostile_name(name, path): proof, **stored["files"]}
    path.write_text(json.dumps(stored))


def _name_only(name: str, path: Path, rng: np.random.Generator) -> None:
    stored = json.loads(path.read_text())
    stored["files"] = {_hostile_name(name, path): {"size": 0, "digest": ""}}
    path.write_text(json.dumps(stored))


def _set_proof(proof: Any, path: Path, rng: np.random.Generator) -> None:
    stored = json.loads(path.read_text())
    stored["files"] = dict.fromkeys(stored["files"], proof)
    path.write_text(json.dumps(stored))


def _npz_damages(path: Path) -> Iterator[tuple[str, Damage]]:
    with np.load(path) as archive:
        names = list(archive.files)
    for name in names[:2]:
        for shown, change in (
            ("empty", lambda a: a[:0] if a.ndim else a),
            ("an axis more", lambda a: a[None]),
            ("text", lambda a: np.full(a.shape, "abc")),
            ("complex", lambda a: a.astype(complex) if a.dtype.kind in "iufb" else a[None]),
            ("NaN", lambda a: np.full(a.shape, np.nan)),
            ("longer", lambda a: np.concatenate([a, a]) if a.ndim else np.array([a, a])),
            ("5", lambda a: np.array(5)),
        ):
            yield f"{name} is {shown}", partial(_set_array, name, change)
        yield f"no {name}", partial(_set_array, name, None)
        yield f"{name} runs code", partial(_objects, name)
        yield f"{name} has 2**40 values", partial(_header, name, (2**40,))
        yield f"{name} has -1 values", partial(_header, name, (-1,))
        yield f"{name} expands to 4 GB", partial(_bomb, name)


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def _set_array(name: str, change: Any, path: Path, rng: np.random.Generator) -> None:
    arrays = _arrays(path)
    changed = None if change is None else change(arrays[name])
    arrays.pop(name)
    if changed is not None:
        arrays[name] = changed
    path.unlink()
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _member(name: str, content: bytes, path: Path) -> None:
    arrays = _arrays(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for other, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, array)
            archive.writestr(f"{other}.npy", content if other == name else stream.getvalue())


def _npy(header: dict[str, Any], content: bytes) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + content


def _objects(name: str, path: Path, rng: np.random.Generator) -> None:
    marker = path
    while marker.name != "output":  # the folder beside which the command runs
        marker = marker.parent
    touch = f"touch '{marker.parent / 'case' / MARKER}'"
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    _member(name, _npy(header, pickle.dumps(Call(os.system, touch))), path)


def _header(name: str, shape: tuple[int, ...], path: Path, rng: np.random.Generator) -> None:
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    _member(name, _npy(header, bytes(80)), path)


def _bomb(name: str, path: Path, rng: np.random.Generator) -> None:
    arrays = _arrays(path)
    zeros = bytes(2**20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for other, array in arrays.items():
            with archive.open(f"{other}.npy", "w", force_zip64=True) as member:
                if other != name:
                    np.save(member, array)
                    continue
                header = {"descr": "|u1", "fortran_order": False, "shape": (2**26,)}
                member.write(_npy(header, b""))
                for _ in range(64):
                    member.write(zeros)


def _case(output: str, file: str, name: str, damage: Damage) -> Case:
    def make(folder: Path, seeds: Seeds, rng: np.random.Generator) -> Sequence[str]:
        made: Output = seeds.outputs[output]
        made.restore()
        damage(made.root / file, rng)
        return made.words

    def is_right(seeds: Seeds) -> bool:
        right: bool = seeds.outputs[output].is_right()
        return right

    return Case(GROUP, f"{output}, {file}: {name}", make, is_right=is_right)


def cases(seeds: Seeds) -> Iterator[Case]:
    """Yield all damages of state files, and some of each kind of product."""
    for output, made in seeds.outputs.items():
        rng = np.random.default_rng(5)
        files = [one for one in sorted(made.kept.rglob("*")) if one.is_file()]
        for path in files:
            file = path.relative_to(made.kept).as_posix()
            if file.endswith((".toml", "rec_0.tif", "rec_1.tif")):
                continue
            damages = [*_byte_damages(), *_other_things()]
            state = ".scopeflow" in path.parts
            # Many files are made alike: a few of the damages of each.
            count = len(damages) if state and output in ("zarr", "half hdf5") else 2
            chosen = [damages[n] for n in sorted(rng.permutation(len(damages))[:count])]
            if path.suffix == ".json" and (state or path.name in ("status.json", "run.json")):
                found = list(_json_damages(path, rng))
                few = len(found) // (1 if "settings" in file or "finished" in file else 9)
                chosen += [found[n] for n in sorted(rng.permutation(len(found))[:few])]
            if path.suffix == ".npz":
                found = list(_npz_damages(path))
                few = 5 if state else 3
                chosen += [found[n] for n in sorted(rng.permutation(len(found))[:few])]
            for name, damage in chosen:
                yield _case(output, file, name, damage)
