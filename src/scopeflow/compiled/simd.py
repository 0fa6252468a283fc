"""Explicit vectors of float32 for the few kernels that LLVM does not vectorise by itself.

Loops over independent elements need none of this: LLVM vectorises them. The level solver works on
values that move from lane to lane between two steps, which no loop vectoriser finds. A `vector`
holds `LANES` numbers in one register (LLVM splits it where registers are narrower), is written
with the usual operators, mixes with float32 scalars, and goes through `inner` functions like any
number. Each pixel goes through the same operations for every `LANES`, so results do not depend on
it.
"""

from __future__ import annotations

import operator
from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils, typing
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

_F32 = ir.FloatType()
_I32 = ir.IntType(32)
_FLAGS = (
    "contract",
    "nsz",
)  # as in the gateway: fused multiply-add, NaN keeps its meaning


def _register_lanes() -> int:
    """Lanes of one register: 16 with AVX-512, else 8 (AVX2; two registers with SSE and NEON)."""
    named = numba.config.CPU_NAME
    if named not in (None, "", "host"):
        return 8
    return 16 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 8


LANES = _register_lanes()
"""Numbers in a `vector`, a power of two."""

_VECTOR = ir.VectorType(_F32, LANES)


class _Vector(types.Type):
    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"float32x{lanes}")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.VectorType(_F32, kind.lanes))


vector = _Vector(LANES)
"""numba's type of a register of `LANES` float32 numbers."""

WIDE = 4
"""Vectors in a `wide`."""

wide = _Vector(WIDE * LANES)
"""Several vectors that are worked on in turn: the processor waits less for long calculations."""


def _indices(numbers: list[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(_I32, len(numbers)), numbers)


def _address(builder: Any, start: Any, offset: Any) -> Any:
    return builder.bitcast(builder.gep(start, [offset]), _VECTOR.as_pointer())


@intrinsic
def load(typing_context, start, offset):  # noqa: ARG001 - numba's calling convention
    """`LANES` numbers from a float32 pointer plus an offset in elements; no alignment needed."""
    signature = vector(start, types.intp)

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        return builder.load(_address(builder, *arguments), align=4)

    return signature, generate


@intrinsic
def store(typing_context, start, offset, value):  # noqa: ARG001
    """Write a vector to a float32 pointer plus an offset in elements; no alignment needed."""
    signature = types.void(start, types.intp, vector)

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        builder.store(arguments[2], _address(builder, *arguments[:2]), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def load_wide(typing_context, start, offset, step):  # noqa: ARG001
    """`WIDE` vectors that lie ``step`` elements apart."""
    signature = wide(start, types.intp, types.intp)

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        start, offset, step = arguments
        parts = []
        for _ in range(WIDE):
            parts.append(builder.load(_address(builder, start, offset), align=4))
            offset = builder.add(offset, step)
        while len(parts) > 1:
            order = _indices(list(range(2 * parts[0].type.count)))
            parts = [
                builder.shuffle_vector(first, second, order)
                for first, second in zip(parts[::2], parts[1::2], strict=True)
            ]
        return parts[0]

    return signature, generate


@intrinsic
def store_wide(typing_context, start, offset, step, value):  # noqa: ARG001
    """Write the vectors of a `wide` ``step`` elements apart."""
    signature = types.void(start, types.intp, types.intp, wide)

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        start, offset, step, value = arguments
        for part in range(WIDE):
            order = _indices(list(range(part * LANES, (part + 1) * LANES)))
            piece = builder.shuffle_vector(value, value, order)
            builder.store(piece, _address(builder, start, offset), align=4)
            offset = builder.add(offset, step)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def prefetch(typing_context, start, offset):  # noqa: ARG001
    """Ask for the cache line of an element that is read soon."""
    signature = types.void(start, types.intp)

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        byte = ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32]),
            "llvm.prefetch.p0i8",
        )
        place = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), byte)
        reading, keep, data = (ir.Constant(_I32, number) for number in (0, 3, 1))
        builder.call(function, [place, reading, keep, data])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def equal_lanes(typing_context, first, second):  # noqa: ARG001
    """Bit mask of the lanes in which two vectors are equal, lane 0 in bit 0."""
    signature = types.int64(vector, vector)

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        test = builder.fcmp_ordered("==", *arguments)
        bits = builder.bitcast(test, ir.IntType(LANES))
        return builder.zext(bits, ir.IntType(64))

    return signature, generate


@intrinsic
def lowest_bit(typing_context, bits):  # noqa: ARG001
    """Return the number of the lowest bit that is set, of an int64 that is not 0."""
    signature = types.int64(types.int64)

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        integer = ir.IntType(64)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(integer, [integer, ir.IntType(1)]), "llvm.cttz.i64"
        )
        return builder.call(function, [arguments[0], ir.Constant(ir.IntType(1), 1)])

    return signature, generate


def _splat(kind: Any, description: str) -> Any:
    def splat(typing_context, value):  # noqa: ARG001
        signature = kind(types.float32)

        def generate(context, builder, signature, arguments):  # noqa: ARG001
            return _spread(builder, kind, arguments[0], types.float32)

        return signature, generate

    splat.__doc__ = description
    return intrinsic(splat)


splat = _splat(vector, "Vector of one float32 number.")
splat_wide = _splat(wide, "`wide` of one float32 number.")


@intrinsic
def lane_numbers(typing_context):  # noqa: ARG001
    """Return the vector 0, 1, 2, …."""
    return vector(), lambda *_: ir.Constant(_VECTOR, [float(i) for i in range(LANES)])


def _shuffle(numbers: list[int], description: str) -> Any:
    def shuffle(typing_context, first, second):  # noqa: ARG001
        signature = vector(vector, vector)

        def generate(context, builder, signature, arguments):  # noqa: ARG001
            return builder.shuffle_vector(arguments[0], arguments[1], _indices(numbers))

        return signature, generate

    shuffle.__doc__ = description
    return intrinsic(shuffle)


@intrinsic
def shift_up(typing_context, value, first):  # noqa: ARG001
    """Each lane takes the number of the lane below it, lane 0 takes a float32."""
    signature = vector(vector, types.float32)

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        # Shift first, then insert: the scalar is then off the critical path.
        moved = builder.shuffle_vector(arguments[0], arguments[0], _indices([0, *range(LANES - 1)]))
        return builder.insert_element(moved, arguments[1], ir.Constant(_I32, 0))

    return signature, generate


@intrinsic
def shift_down(typing_context, value, last):  # noqa: ARG001
    """Each lane takes the number of the lane above it, the last lane takes a float32."""
    signature = vector(vector, types.float32)

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        order = _indices([*range(1, LANES), LANES - 1])
        moved = builder.shuffle_vector(arguments[0], arguments[0], order)
        return builder.insert_element(moved, arguments[1], ir.Constant(_I32, LANES - 1))

    return signature, generate


@intrinsic
def store_last_lanes(typing_context, start, offset, first, second):  # noqa: ARG001
    """Write the last lanes of two vectors side by side."""
    signature = types.void(start, types.intp, vector, vector)

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        start, offset, first, second = arguments
        pair = builder.shuffle_vector(first, second, _indices([LANES - 1, 2 * LANES - 1]))
        place = builder.gep(start, [offset])
        builder.store(pair, builder.bitcast(place, pair.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transpose_tile(typing_context, source, start, source_step, target, place, target_step):  # noqa: ARG001
    """Transpose `LANES` by `LANES` numbers from one float32 pointer to another, in registers.

    Row ``i`` is read at ``start + i * source_step``, column ``j`` is written at
    ``place + j * target_step``, all in elements.
    """
    integer = types.intp
    signature = types.void(source, integer, integer, target, integer, integer)

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        source, start, source_step, target, place, target_step = arguments
        rows = []
        for _ in range(LANES):
            rows.append(builder.load(_address(builder, source, start), align=4))
            start = builder.add(start, source_step)
        # Exchange off-diagonal blocks of half the size, then of a quarter, …
        step = LANES // 2
        while step:
            lower = _indices([i if not i & step else LANES + i - step for i in range(LANES)])
            upper = _indices([i + step if not i & step else LANES + i for i in range(LANES)])
            for i in range(LANES):
                if not i & step:
                    first, second = rows[i], rows[i + step]
                    rows[i] = builder.shuffle_vector(first, second, lower)
                    rows[i + step] = builder.shuffle_vector(first, second, upper)
            step //= 2
        for row in rows:
            builder.store(row, _address(builder, target, place), align=4)
            place = builder.add(place, target_step)
        return context.get_dummy_value()

    return signature, generate


def _where(comparison: str, description: str) -> Any:
    def where(typing_context, first, second, chosen, other):  # noqa: ARG001
        signature = first(first, first, first, first)

        def generate(context, builder, signature, arguments):  # noqa: ARG001
            test = builder.fcmp_ordered(comparison, arguments[0], arguments[1])
            return builder.select(test, arguments[2], arguments[3])

        return signature, generate

    where.__doc__ = description
    return intrinsic(where)


where_equal = _where("==", "``chosen`` in lanes where ``first == second``, else ``other``.")
where_less = _where("<", "``chosen`` in lanes where ``first < second``, else ``other``.")


def _spread(builder: Any, kind: Any, value: Any, operand: Any) -> Any:
    """Make a vector of a scalar operand, return a vector as it is."""
    if isinstance(operand, _Vector):
        return value
    undefined = ir.Constant(ir.VectorType(_F32, kind.lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, _indices([0] * kind.lanes))


def _declare(function: Any, build: Any) -> None:
    """Let an operator or builtin work on vectors, and on a vector and a float32.

    Lowered directly: as an `overload`, each use would be a function to type, compile and inline,
    which took half of the time of the first call.
    """
    cases = [
        (kind, first, second)
        for kind in (vector, wide)
        for first, second in ((kind, kind), (kind, types.float32), (types.float32, kind))
    ]
    signatures = [typing.signature(*case) for case in cases]
    template = type(f"Vector_{function.__name__}", (ConcreteTemplate,), {"cases": signatures})
    infer_global(function)(template)
    for _, first, second in cases:

        @lower_builtin(function, first, second)
        def lower(context, builder, signature, arguments):  # noqa: ARG001
            kind = signature.return_type
            values = [
                _spread(builder, kind, value, operand)
                for value, operand in zip(arguments, signature.args, strict=True)
            ]
            return build(builder, *values)


def _arithmetic(instruction: str) -> Any:
    return lambda builder, *values: getattr(builder, instruction)(*values, flags=_FLAGS)


def _extreme(comparison: str) -> Any:
    # The first where the comparison holds, else (NaN included) the second: one instruction on x86.
    return lambda builder, *values: builder.select(
        builder.fcmp_ordered(comparison, *values), *values
    )


_declare(operator.add, _arithmetic("fadd"))
_declare(operator.sub, _arithmetic("fsub"))
_declare(operator.mul, _arithmetic("fmul"))
_declare(operator.truediv, _arithmetic("fdiv"))
_declare(min, _extreme("<"))
_declare(max, _extreme(">"))
