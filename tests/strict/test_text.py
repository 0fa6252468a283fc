"""Texts of others are read with limits; nothing but `TextError` comes out of the readers."""

from __future__ import annotations

import os
import resource

import pytest

from scopeflow.strict.text import (
    DEPTH,
    DIGITS,
    SIZE,
    TextError,
    file_text,
    read_json,
    read_toml,
    read_yaml,
)
from scopeflow.strict.values import shortened

READERS = {"json": read_json, "toml": read_toml, "yaml": read_yaml}


def laughs(levels: int, width: int) -> str:
    lines = [f"n0: &n0 [{', '.join('z' * width)}]"]
    lines += [
        f"n{i}: &n{i} {{{', '.join(f'k{j}: *n{i - 1}' for j in range(width))}}}"
        for i in range(1, levels)
    ]
    return "\n".join(lines)


def merges(levels: int) -> str:
    lines = ["m0: &m0 {a: 1, b: 2}"]
    lines += [f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}, *m{i - 1}]}}" for i in range(1, levels)]
    return "\n".join(lines)


BAD = {
    "json nested": ("json", '{"a":' * 9000 + "1" + "}" * 9000),
    "json nested, not closed": ("json", "[" * 200_000),
    "json nested a little": ("json", "[" * (DEPTH + 3) + "]" * (DEPTH + 3)),
    "json digits": ("json", '{"a": -' + "8" * 20_000 + "}"),
    "json digits below the limit of Python": ("json", "8" * (DIGITS + 60)),
    "json empty": ("json", ""),
    "json bytes": ("json", b'{"a": "\xff"}'),
    "json large": ("json", "[" + "1," * SIZE + "1]"),
    "toml nested": ("toml", "a = " + "[" * 4000 + "]" * 4000),
    "toml tables": ("toml", "a = " + "{b=" * 4000 + "1" + "}" * 4000),
    "toml name": ("toml", "x" + ".x" * 20_000 + " = 1"),
    "toml name with blanks": ("toml", "x" + " . 'y'" * 20_000 + " = 1"),
    "toml name in a table": ("toml", "a = {x" + '."y"' * 20_000 + " = 1}"),
    "toml name of a table": ("toml", "[x" + ".x" * 20_000 + "]\na = 1"),
    "toml behind a string": ("toml", 'a = """\\""""\nb' + ".x" * 9000 + " = 1"),
    "toml digits": ("toml", "a = " + "7" * 6000),
    "toml hexadecimal": ("toml", "a = 0x" + "7" * 6000),
    "toml date": ("toml", "a = 2001-13-99"),
    "toml open string": ("toml", 'a = "' + '"""\\' * 50_000),
    "yaml nested": ("yaml", "a: " + "[" * 5000 + "]" * 5000),
    "yaml nested blocks": ("yaml", "- " * 5000 + "a"),
    "yaml nested keys": ("yaml", "? " * 5000 + "a"),
    "yaml laughs": ("yaml", laughs(12, 9)),
    "yaml merges": ("yaml", merges(30)),
    "yaml itself": ("yaml", "a: &a [1, *a]"),
    "yaml itself as a key": ("yaml", "&a {*a : 1}"),
    "yaml digits": ("yaml", "a: " + "9" * 5000),
    "yaml octal": ("yaml", "a: 0" + "7" * 5000),
    "yaml base 60": ("yaml", "a: 1" + ":11" * 5000),
    "yaml date": ("yaml", "a: 2001-13-99"),
    "yaml tag": ("yaml", "a: !!python/object/apply:os.getcwd []"),
    "yaml number that is none": ("yaml", "a: !!int x"),
    "yaml truth that is none": ("yaml", "a: !!bool x"),
    "yaml time that is none": ("yaml", "a: !!timestamp x"),
    "yaml list as key": ("yaml", "{[a]: b}"),
    "yaml control character": ("yaml", "a: \x07"),
    "yaml unknown alias": ("yaml", "a: *b"),
}


@pytest.mark.parametrize("name", BAD)
def test_hostile_texts_are_refused_soon_and_in_one_short_line(name):
    kind, text = BAD[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TextError) as caught:
        READERS[kind](text)
    # Without limits some take gigabytes, others longer than any test may last.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
    assert 0 < len(str(caught.value)) <= 300
    assert "\n" not in str(caught.value)


def test_what_people_write_is_read_as_before():
    assert read_json('{"a": [1, 2.5, null, true, "x"], "b": NaN}')["a"] == [1, 2.5, None, True, "x"]
    assert read_json("8" * DIGITS) == int("8" * DIGITS)
    assert read_json("[" * DEPTH + "]" * DEPTH)
    assert read_yaml("a: 1\na: 2") == {"a": 2}
    assert read_yaml("x: &x {k: [1, 2]}\ny: *x\nz: {<<: *x, m: 3}")["z"] == {"k": [1, 2], "m": 3}
    assert read_yaml("t: 1:30\nn: 0x1F\nf: 1e-3\no: 010") == {"t": 90, "n": 31, "f": 1e-3, "o": 8}
    assert read_yaml("") is None
    toml = """
# a comment . . . with [[[[ and "quotes
a.b.'c.d'."e.f" = [0.5, 1.5, 2.5]
s = "a.b.c [[[" # and }}}
l = '''x.y ''''
m = \"\"\"one \\\"\"\" two [[[[\"\"\"\"
[t.u]
when = 2001-01-01T10:00:00.5Z
"""
    read = read_toml(toml)
    assert read["a"]["b"] == {"c.d": {"e.f": [0.5, 1.5, 2.5]}}
    assert (read["s"], read["l"], read["m"]) == ("a.b.c [[[", "x.y '", 'one """ two [[[["')
    assert read_toml("v = [" + ", ".join(["0.5"] * 5000) + "]")["v"] == [0.5] * 5000
    assert read_toml("v = '" + "." * 5000 + "'  # " + "." * 5000)["v"] == "." * 5000


def test_the_line_of_a_mistake_is_named():
    with pytest.raises(TextError, match="line 3"):
        read_json('{\n"a": 1,\n}')
    with pytest.raises(TextError, match="line 2"):
        read_toml("a = 1\nb = \n")
    with pytest.raises(TextError, match="line 2"):
        read_yaml("a: 1\nb: [")


def test_only_regular_files_of_text_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TextError, match="regular"):
        file_text(tmp_path / "pipe")
    with pytest.raises(TextError, match="regular"):
        file_text("/dev/zero")
    (tmp_path / "large").write_bytes(b"x" * 101)
    assert len(file_text(tmp_path / "large", 101)) == 101
    with pytest.raises(TextError, match="larger than 100"):
        file_text(tmp_path / "large", 100)
    (tmp_path / "latin").write_bytes("größe".encode("latin-1"))
    with pytest.raises(TextError, match="not text"):
        file_text(tmp_path / "latin")
    with pytest.raises(FileNotFoundError):
        file_text(tmp_path / "none")


def test_values_in_messages_are_short():
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    for value in (10**9000, "x" * 10**7, nested, [list(range(1000))] * 1000):
        assert len(shortened(value)) <= 80
