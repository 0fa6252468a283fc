"""What a function of a user is, in facts that change whenever its results can change.

A resumed run may keep results only if the functions that made them are the same. Their names are
no proof: an edited script, another `functools.partial`, a closure over another value, an object
with another attribute and a global that was set anew all keep the name. What is looked at here is
what Python runs: byte code with its constants, defaults, values closed over, attributes, and the
globals and modules that the code reads, each followed in the same way. What scopeflow and other
installed packages define is known by name and version; everything else is the user's.

An object whose ``__dask_tokenize__`` says what counts is taken at its word. Files, the environment
and the clock that a function reads are not looked at. The byte code of one Python version is not
that of another, so results of functions of a user are not continued after Python was changed.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

import numpy as np

from scopeflow.compiled.version import KERNEL_VERSION
from scopeflow.engine.byte_code import globals_read, imports, reads_constant
from scopeflow.engine.installed import file_of, is_users, origin_of, package_version
from scopeflow.errors import ScopeflowError

__all__ = ["UnidentifiedError", "identity", "identity_or_reason"]

NOT_IDENTIFIED = "cannot be identified"
"""Fact that :func:`identity_or_reason` gives in place of an identity."""

_LONGEST = 60
_SIMPLE = (type(None), bool, int, float, complex, str, bytes)
_UNSEEN = {"eval", "exec", "globals", "__import__", "compile"}


class UnidentifiedError(ScopeflowError):
    """A function depends on something whose equality cannot be told from one run to the next."""


def identity(function: Any) -> dict[str, str]:
    """Return what a function of a user is, as flat facts that can be stored and compared.

    `function`: function, lambda, method, partial, class or object with ``__call__``.
    Returns: facts by place, such as ``{"name": "shift", "global STEP": "2", …}``; equal exactly
        when nothing that was looked at has changed.
    Raises UnidentifiedError: if it depends on something without an identity, such as a lock, an
        open file, or code that is made while it runs (``eval``).

    Examples
    --------
    >>> def brighter_than(least):
    ...     return lambda frame: frame > least
    >>> identity(brighter_than(3)) == identity(brighter_than(3))
    True
    >>> identity(brighter_than(3))["closure least"], identity(brighter_than(4))["closure least"]
    ('3', '4')
    """
    facts = _Facts()
    try:
        facts.add("", function)
    except RecursionError:
        raise UnidentifiedError("what it depends on is nested too deeply") from None
    return facts.found


def identity_or_reason(function: Any) -> dict[str, str]:
    """Return :func:`identity`, or the name of the function and why it has none."""
    try:
        return identity(function)
    except UnidentifiedError as error:
        return {"name": _name(function), NOT_IDENTIFIED: str(error)}


class _Facts:
    """Facts about one function; values that several parts share are described once."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._seen: dict[int, tuple[str, Any]] = {}

    def add(self, place: str, value: Any) -> None:
        """Note what `value` is under the name of its place."""
        text = _leaf(value)
        if text is not None:
            self.found[place] = text if len(text) <= _LONGEST else _digest(text)
            return
        # Kept beside its name, so that its id is not given to another object meanwhile.
        before = self._seen.setdefault(id(value), (place, value))
        if before[0] != place:
            self.found[place] = f"as {before[0] or 'itself'}"
            return
        for name, part in self._parts(place, value):
            self.add(f"{place}.{name}" if place else name, part)

    def _parts(self, place: str, value: Any) -> Iterator[tuple[str, Any]]:
        """Yield what a value consists of, with names that tell where it was found."""
        if isinstance(value, FunctionType):
            yield from _of_function(value)
        elif isinstance(value, (BuiltinFunctionType, MethodWrapperType)):
            yield "method", _Text(value.__name__)
            yield "self", value.__self__
        elif isinstance(value, _Imported):
            yield from _of_module(value.name, origin_of(value.name), set())
        elif isinstance(value, CodeType):
            yield from _of_code(value)
        elif isinstance(value, functools.partial):
            yield "partial", _Text(_name(value.func))
            yield "function", value.func
            yield from ((f"argument {n}", one) for n, one in enumerate(value.args))
            yield from ((f"argument {name}", one) for name, one in sorted(value.keywords.items()))
        elif isinstance(value, MethodType):
            yield "method", value.__func__
            yield "self", value.__self__
        elif isinstance(value, ModuleType):
            yield from _of_module(value.__name__, getattr(value, "__file__", None), set())
        elif isinstance(value, type):
            yield from _of_class(value)
        elif isinstance(value, (staticmethod, classmethod)):
            yield "function", value.__func__
        elif isinstance(value, property):
            yield from (("get", value.fget), ("set", value.fset), ("delete", value.fdel))
        elif isinstance(value, functools.cached_property):
            yield "get", value.func
        elif hasattr(value, "py_func"):  # compiled by numba
            yield "type", type(value)
            yield "compiled", value.py_func
            yield "compiled with", _Text(repr(getattr(value, "targetoptions", None)))
        elif hasattr(value, "__wrapped__"):
            yield "type", type(value)
            yield "wrapped", value.__wrapped__
            yield from _state(vars(value) if hasattr(value, "__dict__") else {}, {"__wrapped__"})
        elif isinstance(value, Enum):
            yield "type", type(value)
            yield "value", value.value
        elif isinstance(value, Mapping):
            # In their order, which a function can depend on.
            for n, (key, one) in enumerate(value.items()):
                label = repr(key) if isinstance(key, (str, int)) else f"key {n}"
                if not isinstance(key, (str, int)):
                    yield f"[{label}] is", key
                yield f"[{label}]", one
            yield "type", type(value)
            yield "length", _Text(str(len(value)))
        elif isinstance(value, (set, frozenset)):
            yield "type", type(value)
            yield "values", _Text(_digest("\n".join(sorted(_flat(one) for one in value))))
        elif isinstance(value, (list, tuple)):
            yield "type", type(value)
            yield "length", _Text(str(len(value)))
            yield from ((f"[{n}]", one) for n, one in enumerate(value))
        elif isinstance(value, np.ndarray):
            yield "shape", _Text(str(value.shape))
            yield "values", value.tolist()
        else:
            yield from self._of_object(place, value)

    def _of_object(self, place: str, value: Any) -> Iterator[tuple[str, Any]]:
        """Yield the class and the state of an object, as it would be copied or sent."""
        if hasattr(value, "__dask_tokenize__"):
            # Arrays that are computed later, and objects that say themselves what counts.
            from dask.base import tokenize

            yield "type", type(value)
            yield "token", _Text(tokenize(value))
            return
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:
            where = f"{place} is" if place else "it is"
            raise UnidentifiedError(
                f"{where} a {_name(type(value))}, which cannot be compared from one run to the next"
            ) from None
        if isinstance(reduced, str):  # a global of that name
            yield "type", _Text(f"{_name(type(value))} {reduced}")
            return
        yield "type", type(value)
        _, arguments, state, *items = (*reduced, None, None, None)[:5]
        for n, argument in enumerate(arguments):
            if argument is not type(value):
                yield f"made of {n}", argument
        if isinstance(state, Mapping):
            kept = {n for k in type(value).__mro__ for n, a in vars(k).items() if _is_cache(a)}
            yield from _state(state, kept)
        elif state is not None:
            yield "state", state
        for name, each in zip(("item", "entry"), items, strict=True):
            for n, one in enumerate(each or ()):
                yield f"{name} {n}", one


def _leaf(value: Any) -> str | None:
    """Return the text of a value that has no parts, else None."""
    if isinstance(value, _Text):
        return str(value)
    if value is Ellipsis or (isinstance(value, _SIMPLE) and _installed(type(value)) is not None):
        return repr(value)
    if isinstance(value, np.dtype | np.generic) or (
        isinstance(value, np.ndarray) and not value.dtype.hasobject
    ):
        return _numbers(value)
    if isinstance(value, np.ufunc):
        return f"numpy.{value.__name__} {np.__version__}"
    if isinstance(value, (MemberDescriptorType, GetSetDescriptorType, WrapperDescriptorType)):
        return value.__qualname__
    if isinstance(value, (ModuleType, type, FunctionType)):
        return None if _takes_along(value) else _installed(value)
    if isinstance(value, BuiltinFunctionType) and not _takes_along(value):
        return _installed(value)
    if isinstance(value, (tuple, list, set, frozenset, Mapping)):
        # Collections of the user have methods, too.
        return _plain(value) if _installed(type(value)) is not None else None
    return None


class _Text(str):
    """A fact that is known already."""

    __slots__ = ()


def _state(state: Mapping[str, Any], without: set[str] | None = None) -> Iterator[tuple[str, Any]]:
    for name, one in sorted(state.items(), key=lambda item: str(item[0])):
        if name not in (without or ()):
            yield f"attribute {name}", one


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    installed = _installed(function)
    yield "name", _Text(installed or _name(function))
    if installed is None:
        yield "code", code
    for n, one in enumerate(function.__defaults__ or ()):
        yield f"default {n}", one
    for name, one in sorted((function.__kwdefaults__ or {}).items()):
        yield f"default {name}", one
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"closure {name}", cell.cell_contents
        except ValueError:  # not filled yet
            yield f"closure {name}", _Text("nothing yet")
    yield from _state(vars(function))
    if installed is None:
        yield from _of_globals(code, function.__globals__)


def _takes_along(value: Any) -> bool:
    """Tell whether a function holds values of whoever made it, as decorators and methods do."""
    if isinstance(value, FunctionType):
        return bool(value.__closure__ or vars(value))
    owner = getattr(value, "__self__", None)
    return isinstance(value, BuiltinFunctionType) and not (
        owner is None or isinstance(owner, (ModuleType, type))
    )


def _of_code(code: CodeType) -> Iterator[tuple[str, Any]]:
    """Yield what the instructions are; those of functions inside come as constants."""
    constants = list(code.co_consts)
    has_text = constants and isinstance(constants[0], str) and code.co_flags & 0x2
    if has_text and not reads_constant(code, 0):
        constants[0] = None  # its documentation
    plain = [one for one in constants if not isinstance(one, CodeType)]
    facts = [
        code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
        code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount, code.co_flags,
        getattr(code, "co_exceptiontable", b"").hex(), [_constant(one) for one in plain],
    ]  # fmt: skip
    yield "instructions", _Text(_digest(repr(facts)))
    for n, one in enumerate(one for one in constants if isinstance(one, CodeType)):
        yield f"inside {n} {one.co_name}", one


def _constant(value: Any) -> str:
    # Sets have no order of their own.
    if isinstance(value, frozenset):
        return "frozenset " + repr(sorted(map(_constant, value)))
    return f"{type(value).__name__} {value!r}"


def _of_globals(code: CodeType, known: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the globals and modules that instructions read, also those of functions inside."""
    read: dict[str, Any] = {}
    for module in imports(code, known.get("__package__")):
        if is_users(origin_of(module)):
            read[f"module {module}"] = _Imported(module)
    for name, *attributes in globals_read(code):
        if name not in known:
            is_built_in = hasattr(builtins, name)
            if is_built_in and name in _UNSEEN:
                raise UnidentifiedError(
                    f"it calls {name}(), and what that makes is not known before it runs"
                )
            read.setdefault(f"global {name}", _Text("built in" if is_built_in else "not set"))
            continue
        value, path = known[name], [name]
        # helpers.scale.factor: of a module only what is read counts, not all that it holds.
        for attribute in attributes:
            if not isinstance(value, ModuleType) or not hasattr(value, attribute):
                break
            owner, value = _installed(value), getattr(value, attribute)
            path.append(attribute)
            # What a package keeps for itself, such as os.environ, belongs to the package.
            is_whole = callable(value) or isinstance(value, (ModuleType, *_SIMPLE))
            if owner is not None and not is_whole:
                value = _Text(f"{owner} {attribute}")
        read[f"global {'.'.join(path)}"] = value
    yield from sorted(read.items(), key=lambda item: item[0])


class _Imported:
    """A module that is imported while a function runs."""

    def __init__(self, name: str) -> None:
        self.name = name


def _of_module(name: str, file: str | None, seen: set[str]) -> Iterator[tuple[str, Any]]:
    """Yield the text of a module of the user, and of those of the user that it imports."""
    if file is None or file in seen or not Path(file).is_file():
        return
    seen.add(file)
    text = Path(file).read_bytes()
    yield f"file {name}", _Text(_digest(text))
    if not file.endswith(".py"):
        return
    package = name if Path(file).name == "__init__.py" else name.rpartition(".")[0]
    for imported in imports(compile(text, file, "exec", dont_inherit=True), package):
        origin = origin_of(imported)
        if is_users(origin):
            yield from _of_module(imported, origin, seen)


def _of_class(kind: type) -> Iterator[tuple[str, Any]]:
    yield "name", _Text(_name(kind))
    for n, base in enumerate(kind.__bases__):
        if base is not object:
            yield f"base {n}", base
    for name, one in sorted(vars(kind).items()):
        # Python keeps names, documentation and notes of its own in such attributes.
        is_note = name.startswith("__") and name != "__slots__" and not _runs(one)
        if not is_note and not name.startswith("_abc_"):
            yield name, one


def _is_cache(attribute: Any) -> bool:
    return isinstance(attribute, functools.cached_property)


def _runs(attribute: Any) -> bool:
    return isinstance(attribute, (FunctionType, staticmethod, classmethod, property))


def _numbers(value: Any) -> str:
    if isinstance(value, np.dtype):
        return f"dtype {value.str if value.names is None else value.descr}"
    if isinstance(value, np.generic) and not value.dtype.hasobject:
        return f"{value.dtype.name} {value!r}"
    # The same numbers are the same in every layout of memory.
    array = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    return f"array {array.dtype.str} {np.shape(value)} {_digest(array.tobytes())}"


def _installed(value: Any) -> str | None:
    """Return name and version of what scopeflow, Python or a package brings; None if a user's."""
    if isinstance(value, ModuleType):
        module, name = value.__name__, ""
    elif isinstance(value, FunctionType):
        # `functools.wraps` copies the name of a module, but not its globals.
        module, name = str(value.__globals__.get("__name__")), f" {value.__qualname__}"
    else:
        module, name = str(value.__module__ or "builtins"), f" {value.__qualname__}"
    top = module.partition(".")[0]
    if top == "scopeflow":
        # Not where it stands: that may change, and what it computes has a version of its own.
        return f"scopeflow{name or f' {module}'} (kernels {KERNEL_VERSION})"
    if top in ("__main__", "__mp_main__") or is_users(file_of(value, top)):
        return None
    return f"{module}{name}{package_version(top)}"


def _plain(value: Any) -> str | None:
    """Return the text of a collection of plain values; None if it holds anything else."""
    kind = type(value).__qualname__
    parts: list[str | None]
    if isinstance(value, Mapping):
        parts = [_plain([*value.keys()]), _plain([*value.values()])]
    else:
        parts = [
            repr(one) if isinstance(one, _SIMPLE)
            else _plain(one) if isinstance(one, (tuple, list, set, frozenset, Mapping)) else None
            for one in value
        ]  # fmt: skip
    if any(part is None for part in parts):
        return None
    if isinstance(value, (set, frozenset)):
        parts = [*sorted(map(str, parts))]
    return f"{kind}({', '.join(map(str, parts))})"


def _name(value: Any) -> str:
    """Return what people call a function; not its module, which is ``__main__`` in a script."""
    if isinstance(value, functools.partial):
        return _name(value.func)
    return str((value if hasattr(value, "__qualname__") else type(value)).__qualname__)


def _flat(value: Any) -> str:
    facts = _Facts()
    facts.add("", value)
    return repr(sorted(facts.found.items()))


def _digest(text: str | bytes) -> str:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return "#" + hashlib.blake2b(data, digest_size=12).hexdigest()
