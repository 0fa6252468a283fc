"""What plain numba cannot say: pointers, rows that never overlap, and bits of a float.

For `inner` functions and kernels; explicit vectors are in `_simd`.
"""

from __future__ import annotations

from typing import Any

import numba.extending
from llvmlite import ir
from numba import types
from numba.core import cgutils


@numba.extending.intrinsic
def pointer(typing_context, array, offset):  # noqa: ARG001 - numba's calling convention
    """Address of the element ``offset`` of a C-contiguous array, in elements from its start.

    Rows passed as pointers cost nothing, are indexed without numba's test for negative indices,
    and can be declared `disjoint`; that is what lets LLVM vectorise the loops over them.
    """
    signature = types.CPointer(array.dtype)(array, types.intp)

    def generate(context, builder, signature, arguments):
        structure = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.gep(structure.data, [arguments[1]])

    return signature, generate


@numba.extending.intrinsic
def disjoint(typing_context):  # noqa: ARG001
    """State, as first line of an `inner` function, that its pointers never overlap in the loop.

    The elements written through one pointer argument must not be touched through another one
    within one call. LLVM then needs no overlap tests at run time, which cost more than short rows.
    """
    signature = types.void()

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        # The first two arguments are numba's own: the result and the error slot.
        for argument in builder.function.args[2:]:
            if isinstance(argument.type, ir.PointerType):
                argument.add_attribute("noalias")
        return context.get_dummy_value()

    return signature, generate


_I32 = ir.IntType(32)
_F32 = ir.FloatType()
_SQRT_HALF_BITS = 0x3F3504F3
_MANTISSA_BITS = 0x007FFFFF


def _like(kind: ir.Type, element: ir.Type) -> ir.Type:
    """Return the LLVM type `element`, or a vector of them when `kind` is a vector."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _constant(kind: ir.Type, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


@numba.extending.intrinsic
def split_float(typing_context, value):  # noqa: ARG001
    """Exponent and mantissa of a positive float32: ``value = mantissa * 2 ** exponent``.

    Both are float32, the mantissa lies in ``[sqrt(1/2), sqrt(2))``. Pure bit operations, so loops
    that use it vectorise. Works on vectors as well.
    """
    signature = types.UniTuple(value, 2)(value)

    def generate(context, builder, signature, arguments):
        floats = arguments[0].type
        integers = _like(floats, _I32)
        offset = _constant(integers, _SQRT_HALF_BITS)
        bits = builder.sub(builder.bitcast(arguments[0], integers), offset)
        exponent = builder.sitofp(builder.ashr(bits, _constant(integers, 23)), floats)
        mantissa = builder.add(builder.and_(bits, _constant(integers, _MANTISSA_BITS)), offset)
        parts = (exponent, builder.bitcast(mantissa, floats))
        return context.make_tuple(builder, signature.return_type, parts)

    return signature, generate


@numba.extending.intrinsic
def scale_by_power_of_two(typing_context, value, exponent):  # noqa: ARG001
    """``value * 2 ** exponent`` for a float32 near 1 and a whole float32 exponent within ±120."""
    signature = value(value, value)

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        floats = arguments[0].type
        integers = _like(floats, _I32)
        shift = builder.shl(builder.fptosi(arguments[1], integers), _constant(integers, 23))
        return builder.bitcast(builder.add(builder.bitcast(arguments[0], integers), shift), floats)

    return signature, generate


def _rounding_intrinsic(name: str) -> Any:
    def rounding(typing_context, value):  # noqa: ARG001
        signature = value(value)

        def generate(context, builder, signature, arguments):  # noqa: ARG001
            kind = arguments[0].type
            suffix = f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(kind, [kind]), f"llvm.{name}.{suffix}"
            )
            return builder.call(function, arguments)

        return signature, generate

    rounding.__doc__ = f"LLVM's {name} of a float32 or of a vector, one instruction."
    return numba.extending.intrinsic(rounding)


round_half_even = _rounding_intrinsic("rint")
round_down = _rounding_intrinsic("floor")
