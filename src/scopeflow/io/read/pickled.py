"""Plain values in pickles that others wrote, read without unpickling: no name is ever looked up.

A pickle is a program that may call any function. This reads its instructions one by one and knows
only those that make dictionaries, lists, texts, numbers and arrays of numbers; every other object
is a placeholder that is good for nothing.
"""

from __future__ import annotations

import math
import pickletools
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from numpy.lib import format as npy

__all__ = ["OTHER", "read_plain", "read_plain_npy"]

LARGEST = 1 << 30
"""Bytes of a file."""
INSTRUCTIONS = 1_000_000
"""Of one file; settings have a few thousand."""
_BITS = 64
_AXES = 32
_BYTES_AS_TEXT = 64


class _Other:
    """Stands for what is no plain value."""

    def __repr__(self) -> str:
        return "an object that is no plain value"


OTHER = _Other()
"""The placeholder."""


class _Name:
    """A function or class of the pickle that is known here; nothing else is kept of its name."""

    def __init__(self, meaning: str) -> None:
        self.meaning = meaning


class _Type:
    """A type of numbers, of objects (`dtype` None), or another one (`known` false)."""

    def __init__(self, code: object) -> None:
        self.code = code if isinstance(code, str) else ""
        self.dtype: np.dtype[Any] | None = _PLAIN.get(self.code)
        self.known = self.dtype is not None or self.code in ("O8", "O4", "O")

    def build(self, state: Any) -> None:
        # Version, byte order, and what only structures and forged types have.
        plain = isinstance(state, tuple) and len(state) >= 5 and state[2:5] == (None, None, None)
        order = state[1] if plain else None
        if not (isinstance(order, str) and order in ("<", ">", "|", "=")):
            self.known, self.dtype = False, None
        elif self.dtype is not None:
            self.dtype = self.dtype.newbyteorder(cast(Any, order))


class _Array:
    """An array; its value is there once its state was read."""

    value: Any = OTHER

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Type):
            return
        _, shape, kind, by_columns, data = state
        if not _is_shape(shape):
            return
        if kind.dtype is not None and isinstance(data, (bytes, bytearray)):
            if math.prod(shape) * kind.dtype.itemsize == len(data):
                order: Literal["F", "C"] = "F" if by_columns is True else "C"
                self.value = np.frombuffer(data, kind.dtype).reshape(shape, order=order)
        elif kind.known and isinstance(data, list) and math.prod(shape) == len(data):
            self.value = data[0] if shape == () else data


_PLAIN = {
    code: np.dtype(code)
    for code in (
        "b1",
        "i1",
        "i2",
        "i4",
        "i8",
        "u1",
        "u2",
        "u4",
        "u8",
        "f2",
        "f4",
        "f8",
        "c8",
        "c16",
    )
}
_KNOWN = {
    ("numpy", "dtype"): "type",
    ("numpy", "ndarray"): "array",
    ("numpy.core.multiarray", "_reconstruct"): "empty array",
    ("numpy._core.multiarray", "_reconstruct"): "empty array",
    ("numpy.core.multiarray", "scalar"): "number",
    ("numpy._core.multiarray", "scalar"): "number",
    ("numpy.core.numeric", "_frombuffer"): "whole array",
    ("numpy._core.numeric", "_frombuffer"): "whole array",
    # How pickles of protocol 2 hold bytes.
    ("_codecs", "encode"): "bytes",
    ("collections", "OrderedDict"): "dictionary",
}


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) <= _AXES
        and all(type(side) is int and 0 <= side < 1 << 40 for side in shape)
    )


def _bytes(value: Any) -> Any:
    # Old protocols have bytes as text of one byte a character. Only as long as a number needs: a
    # long text could be meant again and again.
    if isinstance(value, str) and len(value) <= _BYTES_AS_TEXT:
        return value.encode("latin-1", "replace")
    return value if isinstance(value, bytes) else OTHER


def _called(function: Any, arguments: Any) -> Any:
    """Return what a call would, for the few functions that are known."""
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        return OTHER
    match function.meaning, arguments:
        case "type", (code, *_):
            return _Type(code)
        case "empty array", _:
            return _Array()
        case "number", (_Type() as kind, data):
            data = _bytes(data)
            if kind.dtype is None or not isinstance(data, bytes):
                return OTHER
            return np.frombuffer(data, kind.dtype)[0] if len(data) == kind.dtype.itemsize else OTHER
        case "whole array", (data, kind, shape, order):
            array = _Array()
            array.build((1, shape, kind, order == "F", data))
            return array
        case "bytes", (str() as text, "latin1"):
            return _bytes(text)
        case "dictionary", ():
            return {}
    return OTHER


class _Machine:
    """The stack and the memo of a pickle, and what its instructions do to them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name in ("PROTO", "FRAME"):
            return
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _ARGUMENTS:
            self.stack.append(argument)
        elif name in ("INT", "LONG", "LONG1", "LONG4"):
            small = isinstance(argument, int) and argument.bit_length() <= _BITS
            self.stack.append(argument if small else OTHER)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("EXT1", "EXT2", "EXT4", "PERSID"):
            self.stack.append(OTHER)
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            self.name(module, attribute)
        else:
            _STEPS[name](self)

    def pop(self) -> Any:
        """Take the last value; those before a mark are out of reach."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("a value is missing")
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        """Take all values behind the last mark, and the mark."""
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def name(self, module: Any, attribute: Any) -> None:
        """Push a function or class."""
        known = isinstance(module, str) and isinstance(attribute, str)
        meaning = _KNOWN.get((module, attribute)) if known else None
        self.stack.append(OTHER if meaning is None else _Name(meaning))

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def gather(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def append(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(values[::2], values[1::2], strict=True):
                # Other keys could be nested, and hashing goes down into them.
                if isinstance(key, (str, bytes, int, float)):
                    target[key] = value

    def table(self, values: list[Any]) -> None:
        self.stack.append({})
        self.set_items(values)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        self.stack.append(_called(function, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, (_Array, _Type)):
            target.build(state)

    def other(self, taken: int) -> None:
        """Replace values by one that is no plain value."""
        for _ in range(taken):
            self.pop()
        self.stack.append(OTHER)

    def swap_names(self) -> None:
        attribute, module = self.pop(), self.pop()
        self.name(module, attribute)

    def pop_any(self) -> None:
        """Take a value, or the mark where that is the last."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: OTHER,
}
_ARGUMENTS = frozenset(
    ("BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
     "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
     "BINBYTES8", "BYTEARRAY8")
)  # fmt: skip
_STEPS: dict[str, Callable[[_Machine], object]] = {
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "POP": _Machine.pop_any,
    "POP_MARK": _Machine.since_mark,
    "DUP": lambda machine: machine.stack.append(machine.stack[-1]),
    "TUPLE": lambda machine: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine: machine.gather(1),
    "TUPLE2": lambda machine: machine.gather(2),
    "TUPLE3": lambda machine: machine.gather(3),
    "LIST": lambda machine: machine.stack.append(machine.since_mark()),
    "APPEND": lambda machine: machine.append([machine.pop()]),
    "APPENDS": lambda machine: machine.append(machine.since_mark()),
    "DICT": lambda machine: machine.table(machine.since_mark()),
    "SETITEM": lambda machine: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine: machine.set_items(machine.since_mark()),
    "ADDITEMS": lambda machine: machine.since_mark(),
    "FROZENSET": lambda machine: machine.stack.append((machine.since_mark(), OTHER)[1]),
    "STACK_GLOBAL": _Machine.swap_names,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "NEWOBJ": lambda machine: machine.other(2),
    "NEWOBJ_EX": lambda machine: machine.other(3),
    "BINPERSID": lambda machine: machine.other(1),
    "OBJ": lambda machine: machine.stack.append((machine.since_mark(), OTHER)[1]),
    "INST": lambda machine: machine.stack.append((machine.since_mark(), OTHER)[1]),
}


class _Rest:
    """The rest of a file, which never gives more than it has: sizes in a pickle are claims."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        return self._count(self._file.read(wanted))

    def readline(self) -> bytes:
        return self._count(self._file.readline(self._left))

    def _count(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data


def read_plain(file: BinaryIO, size: int) -> Any:
    """Return the plain values of a pickle of at most `size` bytes, which begins here.

    Returns: dictionaries, lists, tuples, text, bytes, numbers, None, arrays of numbers, and `OTHER`
        in the place of everything else. Values are not looked into: arrays within the outermost
        dictionary or list are arrays, deeper ones may be `OTHER`.
    Raises ValueError: it is no pickle, cut off, or has too many instructions.

    Examples
    --------
    >>> import io, pickle
    >>> data = pickle.dumps({"Ly": np.int64(5), "shift": np.arange(2), "path": print})
    >>> read_plain(io.BytesIO(data), len(data))
    {'Ly': np.int64(5), 'shift': array([0, 1]), 'path': an object that is no plain value}
    """
    machine = _Machine()
    steps = pickletools.genops(cast(BinaryIO, _Rest(file, size)))
    with warnings.catch_warnings():
        # Of escapes in old texts.
        warnings.simplefilter("ignore")
        for count, (instruction, argument, _) in enumerate(steps):
            if count >= INSTRUCTIONS:
                raise ValueError(f"it has more than {INSTRUCTIONS} instructions")
            if instruction.name == "STOP":
                return _outermost(machine.pop())
            try:
                machine.step(instruction.name, argument)
            except (IndexError, KeyError):
                raise ValueError(
                    f"the instruction {instruction.name} makes no sense there"
                ) from None
    raise ValueError("it is cut off")


def _outermost(value: Any) -> Any:
    value = _finished(value)
    if isinstance(value, dict):
        return {key: _finished(one) for key, one in value.items()}
    return [_finished(one) for one in value] if isinstance(value, list) else value


def _finished(value: Any) -> Any:
    if isinstance(value, _Array):
        value = value.value
    # What helps to make values is none; an array within one of no axes is looked at no more.
    return OTHER if isinstance(value, (_Array, _Name, _Type)) else value


def read_plain_npy(file: BinaryIO, size: int) -> Any:
    """Return the plain values of a ``.npy`` file of objects, `size` bytes long; see `read_plain`.

    Raises ValueError: it is none, is damaged, or larger than is sensible.
    """
    if size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST} bytes")
    if npy.read_magic(file) == (1, 0):
        npy.read_array_header_1_0(file)
    else:
        npy.read_array_header_2_0(file)
    return read_plain(file, size - file.tell())
