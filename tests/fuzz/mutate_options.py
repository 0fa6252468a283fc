"""Option files, session files and words of the command line that nobody should write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tests.fuzz.cases import MARKER, Case
from tests.fuzz.seeds import Seeds

GROUP = "options and arguments"
_LONG = "9" * 5000
_LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
_OPTIONS = (
    *("alpha", "iterations", "buffer_size", "sigma", "levels", "quality_setting", "weight"),
    *("reference_frames", "output_typename", "flow_backend", "channel_normalization"),
)
_VALUES = (
    *("null", "-1", "1e999", ".nan", "abc", "''", "[]", "{}", "[[[[1]]]]", _LONG, "[" * 4000),
    *(
        "!!python/object/apply:os.system [touch executed.marker]",
        "0x7fffffffffffffff",
        "2001-01-01",
    ),
    *("&a [*a]", "true", "'\x1b[31m'", "!!binary aGVsbG8=", "{a: {b: [1, {c: 2}]}}", "1" * 30),
)


def _texts() -> Iterator[tuple[str, str, str]]:
    """Yield suffix, name and text of files that every reader of options may be given."""
    shared = {
        "empty": "",
        "a word": "abc",
        "zeros": "\0" * 100,
        "a long line": "a" * 200_000,
        "control characters": "\x1b[31m = 1\n",
    }
    for suffix in ("yaml", "toml", "json"):
        for name, text in shared.items():
            yield suffix, name, text
    yaml = {
        "laughs": _LAUGHS + "root: .\npattern: *a9\n",
        "laughs as root": _LAUGHS + "root: *a9\n",
        "deep lists": "root: " + "[" * 5000 + "]" * 5000,
        "deep tables": "root: " + "{a: " * 3000 + "1" + "}" * 3000,
        "deep blocks": "".join(f"{' ' * n}a:\n" for n in range(800)),
        "a long integer": f"root: .\nalpha_between: {_LONG}\n",
        "a circle": "root: &a [*a]\n",
        "merged circle": "a: &a\n  <<: *a\n",
        "python": "root: !!python/object/apply:os.system ['touch executed.marker']\n",
        "python name": "root: !!python/name:os.system\n",
        "a list": "- 1\n- 2\n",
        "repeated": "root: .\nroot: /\n",
        "many documents": "---\n1\n" * 3000,
        "an anchor nobody set": "root: *b\n",
        "a date": "root: 2001-01-01\n",
        "a set": "root: !!set {a, b}\n",
        "key of a list": "? [a, b]\n: 1\n",
        "base 60": f"root: {':'.join(['59'] * 2000)}\n",
        "hexadecimal": f"root: 0x{'f' * 20000}\n",
        "a million keys": "".join(f"k{n}: 1\n" for n in range(30_000)),
    }
    toml = {
        "deep lists": "a = " + "[" * 3000 + "]" * 3000,
        "deep tables": "a = " + "{b=" * 3000 + "1" + "}" * 3000,
        "dotted": ".".join("a" * 20_000) + " = 1\n",
        "dotted table": "[" + ".".join("a" * 20_000) + "]\n",
        "a long integer": f"root = '.'\nalpha_between = {_LONG}\n",
        "hexadecimal": f"a = 0x{'f' * 20000}\n",
        "infinite": "root = '.'\nalpha_between = inf\n",
        "a date": "root = 2001-01-01\n",
        "repeated": "root = '.'\nroot = '.'\n",
        "not closed": "root = '",
        "many tables": "".join(f"[t{n}]\n" for n in range(20_000)),
    }
    json_ = {
        "deep lists": "[" * 100_000,
        "deep tables": '{"a":' * 50_000,
        "a long integer": f'{{"alpha": {_LONG}}}',
        "NaN": '{"alpha": NaN}',
        "a list": "[1]",
        "repeated": '{"alpha": 1, "alpha": 2}',
        "half a surrogate": '{"alpha": "\\ud800"}',
        "null": "null",
    }
    for suffix, texts in (("yaml", yaml), ("toml", toml), ("json", json_)):
        for name, text in texts.items():
            yield suffix, name, text


def _command(name: str, suffix: str, text: str, words: Sequence[str]) -> Case:
    def make(folder: Path, seeds: Seeds, rng: np.random.Generator) -> list[str]:
        seeds.copy("classic.tif", folder)
        (folder / f"given.{suffix}").write_text(text, encoding="utf-8")
        return list(words)

    return Case(GROUP, name, make)


def _words(name: str, *words: str) -> Case:
    def make(folder: Path, seeds: Seeds, rng: np.random.Generator) -> list[str]:
        seeds.copy("classic.tif", folder)
        return list(words)

    return Case(GROUP, name, make)


def cases(seeds: Seeds) -> Iterator[Case]:
    """Yield files for every reader, values for options, and odd arguments."""
    assert MARKER == "executed.marker"
    for suffix, name, text in _texts():
        file = f"given.{suffix}"
        readers: dict[str, tuple[str, ...]] = {
            "session": ("session", "run", "--config", file, "--dry-run"),
            "session status": ("session", "status", "--config", file),
            "correct": ("correct", "classic.tif", "out", "--options", file, "--dry-run"),
            "cells": ("cells", "run", "classic.tif", "out", "--config", file, "--dry-run"),
            "samples": ("cells", "merge", ".", "--samples", file),
            "scheduler": ("correct", "classic.tif", "out", "--scheduler", file, "--dry-run"),
            "inspect": ("inspect", file),
        }
        for reader, words in readers.items():
            yield _command(f"{reader}: {suffix}, {name}", suffix, text, words)
    for option in _OPTIONS:
        for number, value in enumerate(_VALUES):
            word = f"{option}={value}"
            shown = f"--set {word[:40]!r} {number}"
            yield _words(shown, "correct", "classic.tif", "out", "--dry-run", "--set", word)
    for number, value in enumerate(_VALUES):
        for option in ("alpha", "frame_shape"):
            text = f"{option}: {value}\n"
            words = ("correct", "classic.tif", "out", "--options", "given.yaml", "--dry-run")
            yield _command(f"{option} of a file, {number}", "yaml", text, words)
            text = json.dumps({option: value})
            words = ("correct", "classic.tif", "out", "--options", "given.json", "--dry-run")
            yield _command(f"{option} as text of a file, {number}", "json", text, words)
    odd = (
        *("", " ", ".", "..", "/", "~", "~nobody-here", "-", "--", "-x", "*", "*.tif", "[1-3].tif"),
        *(
            "a\nb",
            "\x1b[31m",
            "x" * 300,
            "/".join("d" * 2000),
            "/dev/zero",
            "/dev/null",
            "/dev/stdin",
        ),
        *(
            "/proc/self/mem",
            "/etc/passwd",
            "http://127.0.0.1:9/x.tif",
            "s3://",
            "s3://b/k",
            "file:///",
        ),
        *("C:\\x.tif", "\udcff.tif", "$(touch executed.marker)", "`touch executed.marker`", "=1+1"),
        *("1:2", "zarr::x", "memory://x", "github://a:b@c/x", "%s%n", "{0}", "nul\\0"),
    )
    for number, word in enumerate(odd):
        yield _words(f"inspect {word[:20]!r} {number}", "inspect", word)
        flags = ("--set", "iterations=5", "--scheduler", "sequential")
        yield _words(f"correct {word[:20]!r} {number}", "correct", word, "out", *flags)
        more = ("--dry-run", "--quality", "fast")
        yield _words(f"to {word[:20]!r} {number}", "correct", "classic.tif", word, *more)
        for flag in ("--reference", "--axes", "--scheduler", "--format", "--dataset", "--options"):
            name = f"{flag} {word[:20]!r} {number}"
            yield _words(name, "correct", "classic.tif", "out", "--dry-run", flag, word)
        yield _words(f"cells status {word[:20]!r} {number}", "cells", "status", word)
        yield _words(f"cells fit {word[:20]!r} {number}", "cells", "fit", word, "--column", "a")
        yield _words(f"preview {word[:20]!r} {number}", "preview", word)
