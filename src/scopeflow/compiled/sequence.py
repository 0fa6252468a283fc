"""Sequences of kernel calls that are recorded once and repeated as one call.

A frame goes through some hundred kernel calls whose arguments never change: the same scratch
memory, tables and numbers for every frame. Python needs 10 to 20 µs for each of them and holds the
GIL meanwhile, which costs 1.5 ms per frame and keeps a second thread from computing. Here the
calls are written down once, as addresses of compiled functions and of their arguments, and a small
compiled loop carries them out without Python.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from scopeflow.compiled.gateway import Kernel, NativeFunction, compile_module, recorded_calls, types

_SLOT = 8  # bytes of an argument in memory
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()
_CALLER = ir.FunctionType(_I32, [_BYTES])
_MOST_OWNERS = 5  # whose sequences a thread keeps


_caller_addresses: dict[Kernel, int] = {}
_building_callers = threading.Lock()


def _callers(kernels: Iterable[Kernel]) -> dict[Kernel, int]:
    """Addresses of functions that call these kernels with arguments which lie in memory.

    Those that are missing are compiled as one module: a module of its own for each would cost a
    third of a second when a program starts.
    """
    with _building_callers:
        missing = {each: each.native() for each in kernels if each not in _caller_addresses}
        if missing:
            names = [f"call.{native.name}" for native in missing.values()]

            def build(module: ir.Module) -> None:
                for name, native in zip(names, missing.values(), strict=True):
                    _add_caller(module, name, native)

            addresses = compile_module("scopeflow.callers", build, names)
            _caller_addresses.update(zip(missing, addresses, strict=True))
        return _caller_addresses


def _add_caller(module: ir.Module, name: str, native: NativeFunction) -> None:
    builder = ir.IRBuilder(ir.Function(module, _CALLER, name).append_basic_block())
    packed = builder.function.args[0]
    # numba's own convention: where results and errors go comes first.
    result, error, *rest = native.type.args
    arguments = [builder.alloca(result.pointee), builder.alloca(error.pointee)]
    for position, kind in enumerate(rest):
        place = builder.gep(packed, [ir.Constant(_I64, position * _SLOT)])
        arguments.append(builder.load(builder.bitcast(place, kind.as_pointer())))
    function = builder.inttoptr(ir.Constant(_I64, native.address), native.type.as_pointer())
    builder.ret(builder.call(function, arguments))


@functools.cache
def _loop() -> Any:
    """Return ``f(table, n)``: call ``n`` callers, each with its argument; nonzero is an error."""

    def build(module: ir.Module) -> None:
        function = ir.Function(
            module, ir.FunctionType(_I32, [_I64.as_pointer(), _I64]), "scopeflow.sequence"
        )
        start, body, end = (function.append_basic_block(name) for name in ("start", "body", "end"))
        ir.IRBuilder(start).branch(body)
        builder = ir.IRBuilder(body)
        position = builder.phi(_I64)
        places = [builder.add(position, ir.Constant(_I64, k)) for k in range(2)]
        at = [builder.load(builder.gep(function.args[0], [place])) for place in places]
        status = builder.call(
            builder.inttoptr(at[0], _CALLER.as_pointer()), [builder.inttoptr(at[1], _BYTES)]
        )
        following = builder.add(position, ir.Constant(_I64, 2))
        position.add_incoming(ir.Constant(_I64, 0), start)
        position.add_incoming(following, body)
        again = builder.and_(
            builder.icmp_signed("==", status, ir.Constant(_I32, 0)),
            builder.icmp_signed("<", following, function.args[1]),
        )
        builder.cbranch(again, body, end)
        ir.IRBuilder(end).ret(status)

    kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64)  # releases the GIL
    return kind(*compile_module("scopeflow.sequence", build, ["scopeflow.sequence"]))


def _slots(kind: Any, value: Any) -> list[int]:
    """One argument as numba's compiled functions take it."""
    if isinstance(kind, types.Array):
        if value.dtype.itemsize * 8 != kind.dtype.bitwidth or value.ndim != kind.ndim:
            raise TypeError(f"an array {value.dtype} of {value.ndim} axes does not fit {kind}")
        owner = parent = 0
        address = value.ctypes.data
        return [owner, parent, value.size, value.itemsize, address, *value.shape, *value.strides]
    if kind == types.float32:
        return [int(np.float32(value).view(np.uint32))]
    return [int(value)]


class KernelSequence:
    """Kernel calls with their arguments, to be repeated by the thread that recorded them.

    `run`: called once without arguments; the kernels that it calls are recorded. Everything it does
        must be done by kernels, none of which returns a value.
    `inputs`: arrays that will be others at each repetition, of the same shape and dtype.
    Raises TypeError: when a recorded kernel returns a value.
    """

    def __init__(self, run: Callable[[], Any], inputs: list[NDArray[Any]]) -> None:
        with recorded_calls() as calls:
            self.result = run()
        packed: list[int] = []
        first_slots: list[int] = []
        self._inputs: list[tuple[int, int]] = []
        # The arrays have to live as long as their addresses are used; the inputs are others then.
        self._memory: list[NDArray[Any]] = []
        addresses = {array.ctypes.data: number for number, array in enumerate(inputs)}
        for kernel, arguments in calls:
            if kernel.signature.return_type != types.void:
                raise TypeError(f"{kernel!r} returns a value and cannot be part of a sequence")
            first_slots.append(len(packed))
            for kind, value in zip(kernel.signature.args, arguments, strict=True):
                slots = _slots(kind, value)
                if isinstance(kind, types.Array):
                    if value.ctypes.data in addresses:
                        self._inputs.append((len(packed) + 4, addresses[value.ctypes.data]))
                    else:
                        self._memory.append(value)
                packed += slots
        callers = _callers(kernel for kernel, _ in calls)
        self._packed = np.array(packed, np.int64)
        base = self._packed.ctypes.data
        self._table = np.empty((len(calls), 2), np.int64)
        self._table[:, 0] = [callers[kernel] for kernel, _ in calls]
        self._table[:, 1] = base + np.array(first_slots, np.int64) * _SLOT

    def __call__(self, *inputs: NDArray[Any]) -> Any:
        """Repeat the calls.

        `inputs`: in place of those given first: C-contiguous, same shape and dtype.
        Returns: the object that `run` returned when it was recorded; arrays in it are written anew.
        """
        for slot, number in self._inputs:
            self._packed[slot] = inputs[number].ctypes.data
        if _loop()(self._table.ctypes.data, self._table.size):
            raise RuntimeError("a compiled kernel reported an error")
        return self.result


class _Kept(threading.local):
    """What a thread keeps for each owner: its sequences; None for what was run only once."""

    def __init__(self) -> None:
        self.owners: OrderedDict[int, tuple[Any, dict[Hashable, KernelSequence | None]]]
        self.owners = OrderedDict()


_kept = _Kept()


def repeated(owner: Any, key: Hashable, run: Callable[..., Any], inputs: list[NDArray[Any]]) -> Any:
    """Call ``run(*inputs)``; from the third time on as a recorded sequence.

    The first time lets scratch memory grow to its size, the second one is recorded.

    `owner`: what all constant arguments belong to. The sequences of the last few owners are kept.
    `key`: tells apart what `run` does for one owner.
    `run`: see `KernelSequence`; its arguments are the inputs.
    `inputs`: c-contiguous arrays, of the same shapes and dtypes each time.
    Returns: what `run` returned, with arrays that the next call with this key overwrites.
    """
    _, sequences = _kept.owners.setdefault(id(owner), (owner, {}))
    _kept.owners.move_to_end(id(owner))
    while len(_kept.owners) > _MOST_OWNERS:
        _kept.owners.popitem(last=False)
    if key not in sequences:
        sequences[key] = None
        return run(*inputs)
    sequence = sequences[key]
    if sequence is not None:
        return sequence(*inputs)
    sequence = sequences[key] = KernelSequence(lambda: run(*inputs), inputs)
    return sequence.result
