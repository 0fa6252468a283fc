"""Settings of suite2p, which are pickles, with forged opcodes, types, states and calls."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.cases import MARKER, Case, damaged
from tests.fuzz.mutate_bytes import changes
from tests.fuzz.seeds import HEIGHT, WIDTH, Seeds, suite2p_settings, write_ops

GROUP = "pickles of suite2p"


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments, *(() if state is None else (state,)))

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def _named(module: str, name: str, argument: bytes) -> bytes:
    """Return a pickle that calls a function by its name, which need not exist here."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + argument + b"\x85R."


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _payloads(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield pickles by name; those that run code would leave the marker in the folder."""
    import os
    import subprocess

    from numpy._core.multiarray import _reconstruct, scalar

    marker = str(folder / MARKER)
    touch = f"touch '{marker}'"
    base = suite2p_settings()

    def with_(value: Any, protocol: int = 4) -> bytes:
        return pickle.dumps({**base, "x": value}, protocol=protocol)

    for protocol in (0, 2, 4, 5):
        yield f"os.system, protocol {protocol}", with_(Call(os.system, touch), protocol)
        yield (
            f"Popen, protocol {protocol}",
            with_(Call(subprocess.Popen, ["touch", marker]), protocol),
        )
        yield f"eval, protocol {protocol}", with_(Call(eval, f"open({marker!r}, 'w')"), protocol)
        yield f"open, protocol {protocol}", with_(Call(open, marker, "w"), protocol)
    yield "the whole is a call", pickle.dumps(Call(os.system, touch))
    for module, name in (
        *(("os", "system"), ("posix", "system"), ("nt", "system"), ("builtins", "exec")),
        *(("builtins", "eval"), ("__builtin__", "eval"), ("numpy", "os.system")),
        *(("numpy.core.multiarray", "os"), ("numpy.testing._private.utils", "runstring")),
        *(("numpy", "load"), ("numpy.f2py.crackfortran", "myeval"), ("importlib", "import_module")),
        *(("numpy", "memmap"), ("numpy", "fromfile"), ("numpy", "save"), ("shutil", "rmtree")),
        *(("numpy.dtype", "__init__"), ("numpy", "ndarray.tofile"), ("pickle", "loads")),
    ):
        argument = marker if module == "numpy" else touch
        yield f"{module}.{name}", _named(module, name, _text(argument))
        stack = b"\x80\x04" + b"\x8c" + bytes([len(module)]) + module.encode()
        stack += b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93" + _text(argument)
        yield f"{module}.{name}, from the stack", stack + b"\x85R."
    address = (0x414141414140).to_bytes(8, "little")
    for flags in (1, 2, 4, 8, 16, 63, 255, -1, 2**31, 2**63):
        for kind in ("O8", "V8", "S8", "i8", "U2", "M8[s]"):
            state: tuple[Any, ...] = (3, "|", None, None, None, 8, 8, flags)
            forged = Call(np.dtype, kind, False, True, state=state)
            array = Call(
                _reconstruct,
                *(np.ndarray, (0,), b"b"),
                state=(1, (4,), forged, False, address * 4),
            )
            try:
                yield f"{kind} with flags {flags}", with_(array)
            except OverflowError:
                continue
    for version in (0, 1, 3, 4, 5, 99, -1):
        forged = Call(
            np.dtype, "i8", False, True, state=(version, "<", None, None, None, -1, -1, 0)
        )
        yield f"state of a dtype, version {version}", with_(forged)
    for fields in ({"a": 1}, {"a": ("i8", -8)}, {"a": (np.dtype("i8"), 2**40)}, "abc", 5):
        state = (3, "|", None, ("a",), fields, 8, 1, 16)
        yield f"fields {fields!r}", with_(Call(np.dtype, "V8", False, True, state=state))
    for size in (10**9, 10**11, 10**15, 2**62, -1):
        yield f"ndarray of {size} bytes", with_(Call(np.ndarray, (size,), "u1"))
        yield f"ndarray of {size} objects", with_(Call(np.ndarray, (size,), "O"))
        state = (1, (size,), np.dtype("u1"), False, b"abc")
        forged_array = Call(_reconstruct, np.ndarray, (0,), b"b", state=state)
        yield f"array of {size} bytes in 3", with_(forged_array)
    yield "scalar of an object", with_(Call(scalar, np.dtype("O"), b"12345678"))
    yield "scalar too short", with_(Call(scalar, np.dtype("f8"), b"1"))
    yield "scalar of text", with_(Call(scalar, np.dtype("U1000000"), b"1"))
    yield "dtype of 2 GB", with_(Call(np.dtype, "V2147483647"))
    yield "dtype by comma", with_(Call(np.dtype, ",".join(["f8"] * 5000)))
    yield "deep lists", b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b"."
    yield "deep tuples", b"\x80\x04" + b")" + b"\x85" * 200_000 + b"."
    yield "a list in itself", b"\x80\x04]\x94h\x00a."
    yield "memo far away", b"\x80\x04]r" + struct.pack("<I", 2**31 - 1) + b"."
    yield (
        "memo without end",
        b"\x80\x04" + b"".join(b"]r" + struct.pack("<I", 2**k) for k in range(31)),
    )
    yield "text of 4 GB", b"\x80\x04X" + struct.pack("<I", 2**32 - 1) + b"abc."
    yield "bytes of 2**62", b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc."
    yield "bytearray of 2**40", b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc."
    yield "frame of 2**60", b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N."
    yield "long of 2**31", b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b"1."
    yield "long of -1", b"\x80\x04\x8b" + struct.pack("<i", -1) + b"1."
    yield "integer of 5000 digits", b"I" + b"9" * 5000 + b"\n."
    yield "laughs", b"\x80\x04]\x94" + b"".join(b"](h%cebh" % n for n in range(9)) + b"."
    doubling = b"\x80\x04U\x04aaaa\x94" + b"\x94".join(b"h\x00h\x00\x86" for _ in range(60)) + b"."
    yield "doubling", doubling
    yield "persistent", b"\x80\x04U\x03abcQ."
    yield "extension", b"\x80\x02\x82\x01."
    yield "buffer outside", b"\x80\x05\x97."
    yield "read-only buffer", b"\x80\x05\x97\x98."
    yield "build on a list", b"\x80\x04]}U\x01ab."
    yield "only stop", b"\x80\x04."
    yield "nothing", b""
    yield "no stop", pickle.dumps(base)[:-1]
    for protocol in (6, 99, 255):
        yield f"protocol {protocol}", bytes([0x80, protocol]) + pickle.dumps(base)[2:]
    for wrong in (None, [], "text", 5, np.zeros(3), {"a": 1}):
        yield f"no settings: {type(wrong).__name__}", pickle.dumps(wrong)
    values: tuple[Any, ...] = (
        *(None, -1, 0, 0.5, float("nan"), float("inf"), "32", "abc", b"32", [], [32], {}, 2**63),
        *(10**5000, True, np.array([32]), np.array(32), np.array([1, 2]), np.zeros(0), 1j),
    )
    for key in ("Ly", "Lx", "fs"):
        for value in values:
            shown = repr(value)[:20] if not isinstance(value, int) or value < 2**70 else "long"
            yield f"{key} = {shown}", pickle.dumps({**base, key: value})
        yield f"no {key}", pickle.dumps({k: v for k, v in base.items() if k != key})
    yield "frame of 2**31 squared", pickle.dumps({**base, "Ly": 2**31, "Lx": 2**31})
    yield "frame of -32 x -40", pickle.dumps({**base, "Ly": -HEIGHT, "Lx": -WIDTH})


def _payload_names() -> list[str]:
    return [name for name, _ in _payloads(Path("/nowhere"))]


def cases(seeds: Seeds) -> Iterator[Case]:
    """Yield every payload, and mutated bytes of a good one."""
    if "plane0" not in seeds.paths:
        return
    for name in _payload_names():

        def damage(folder: Path, rng: np.random.Generator, name: str = name) -> None:
            write_ops(folder / "ops.npy", dict(_payloads(folder.parent))[name])

        yield damaged(GROUP, name, "plane0", damage)
    for turn in range(4):
        for name, change in changes():

            def flip(folder: Path, rng: np.random.Generator, change: Any = change) -> None:
                path = folder / "ops.npy"
                data = path.read_bytes()
                head = 128 if rng.random() < 0.8 else 0  # mostly the pickle, not the header
                path.write_bytes(data[:head] + change(bytearray(data[head:]), rng))

            yield damaged(GROUP, f"{name}, {turn}", "plane0", flip)
