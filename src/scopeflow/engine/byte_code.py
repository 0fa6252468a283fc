"""What the instructions of a function read: globals with their attributes, and imports."""

from __future__ import annotations

import dis
import importlib.util
from collections.abc import Iterator
from types import CodeType
from typing import Any

_BETWEEN = {"CACHE", "EXTENDED_ARG", "PUSH_NULL", "PRECALL", "NOP", "RESUME"}


def reads_constant(code: CodeType, number: int) -> bool:
    """Tell whether an instruction reads the constant of this number."""
    return any(
        one.opname.startswith(("LOAD_CONST", "RETURN_CONST")) and one.arg == number
        for one in dis.get_instructions(code)
    )


def codes(code: CodeType) -> Iterator[CodeType]:
    """Yield instructions and those of the functions inside."""
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from codes(one)


def globals_read(code: CodeType) -> Iterator[list[str]]:
    """Yield names that are read as globals, each with the attributes that are taken of it."""
    for each in codes(code):
        chain: list[str] = []
        for one in dis.get_instructions(each):
            if chain and one.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                chain.append(str(one.argval))
            elif one.opname not in _BETWEEN:
                if chain:
                    yield chain
                chain = [str(one.argval)] if one.opname in ("LOAD_GLOBAL", "LOAD_NAME") else []


def imports(code: CodeType, package: str | None) -> Iterator[str]:
    """Yield the names of modules that are imported while the code runs."""
    for each in codes(code):
        before: list[Any] = [None, None]
        for one in dis.get_instructions(each):
            if one.opname == "IMPORT_NAME":
                level, wanted = before if isinstance(before[0], int) else (0, before[1])
                name = str(one.argval)
                if level:
                    try:
                        name = importlib.util.resolve_name("." * level + name, package or "")
                    except ImportError:
                        continue
                yield name
                # What is imported from a package can be a module of its own.
                yield from (f"{name}.{part}" for part in wanted or () if part != "*")
            elif one.opname not in _BETWEEN:
                before = [before[1], one.argval]
