"""Vector building blocks as Numba values; the only file with LLVM IR."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_INTEGER = {types.float32: types.int32, types.float64: types.int64}
_FLOAT = {integer: real for real, integer in _INTEGER.items()}


@intrinsic
def fma(typingctx, a, b, c):
    """``a*b + c`` rounded once (LLVM's ``llvm.fma``); all three of one float type."""
    if not (isinstance(a, types.Float) and a == b == c):
        return None

    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return a(a, a, a), codegen


@intrinsic
def bits_of(typingctx, x):
    """The bits of a float as a signed integer of its size."""
    if x not in _INTEGER:
        return None

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(signature.return_type.bitwidth))

    return _INTEGER[x](x), codegen


@intrinsic
def float_of(typingctx, bits):
    """The float that has these bits."""
    if bits not in _FLOAT:
        return None

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return _FLOAT[bits](bits), codegen


@intrinsic
def horner(typingctx, x, coefficients):
    """Polynomial with these coefficients (a constant tuple, lowest power first) at x."""
    if not (isinstance(coefficients, types.UniTuple) and coefficients.dtype == x):
        return None

    def codegen(context, builder, signature, args):
        value, tuple_ = args
        result = builder.extract_value(tuple_, coefficients.count - 1)
        for power in reversed(range(coefficients.count - 1)):
            result = builder.fma(result, value, builder.extract_value(tuple_, power))
        return result

    return x(x, coefficients), codegen


@intrinsic
def select(typingctx, condition, a, b):
    """``a`` where the condition holds, else ``b``; both are computed, no branch.

    A Python conditional becomes a branch, and a loop with one that LLVM does not fold
    is not vectorised.
    """
    if condition != types.boolean or a != b:
        return None

    def codegen(context, builder, signature, args):
        flag = context.cast(builder, args[0], types.boolean, types.boolean)
        return builder.select(flag, args[1], args[2])

    return a(condition, a, b), codegen
