"""Vector building blocks as Numba values; LLVM IR is here and in simd_lanes.py only."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from loopnest.kernels.simd_lanes import (
    Lanes,
    call_llvm,
    element_of,
    has_scalef,
    joined,
    part,
    spread,
    widest,
)

_INTEGER = {types.float32: types.int32, types.float64: types.int64}
_MANTISSA = {types.float32: 23, types.float64: 52}
_FLOAT = {integer: real for real, integer in _INTEGER.items()}


@intrinsic
def fma(typingctx, a, b, c):
    """``a*b + c`` rounded once (LLVM's ``llvm.fma``); all three of one float type."""
    kind = widest(a, b, c)
    if not isinstance(element_of(kind), types.Float):
        return None

    def codegen(context, builder, sig, args):
        pairs = zip(args, sig.args, strict=True)
        values = [spread(context, builder, *pair, kind) for pair in pairs]
        return call_llvm(builder, "fma", values[0].type, values)

    return kind(a, b, c), codegen


@intrinsic
def peek(typingctx, numbers):
    """The first of an array of int64, read from memory anew: another thread may have changed it."""
    if not (isinstance(numbers, types.Array) and numbers.dtype == types.int64):
        return None

    def codegen(context, builder, signature, args):
        array = context.make_array(numbers)(context, builder, args[0])
        return builder.load_atomic(array.data, "monotonic", 8)

    return types.int64(numbers), codegen


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


def _like(llvm, value):
    """Integer constant of a type, a vector of it for a vector type."""
    vector = isinstance(llvm, ir.VectorType)
    return ir.Constant(llvm, [value] * llvm.count if vector else value)


def _integer_type(llvm):
    """The integer type of a float type's size, or vectors of both."""
    if isinstance(llvm, ir.VectorType):
        return ir.VectorType(_integer_type(llvm.element), llvm.count)
    return ir.IntType(64 if isinstance(llvm, ir.DoubleType) else 32)


@intrinsic
def shifted_to_exponent(typingctx, x):
    """The float whose bits are those of x, shifted left by a mantissa's length."""
    element = element_of(x)
    if element not in _INTEGER:
        return None
    length = _MANTISSA[element]

    def codegen(context, builder, sig, args):
        integer = _integer_type(args[0].type)
        bits = builder.shl(builder.bitcast(args[0], integer), _like(integer, length))
        return builder.bitcast(bits, args[0].type)

    return x(x), codegen


@intrinsic
def less_least_normal(typingctx, x):
    """x less the least normal number of its sign, from which x differs by a subnormal one."""
    element = element_of(x)
    if element not in _INTEGER:
        return None

    def codegen(context, builder, sig, args):
        integer = _integer_type(args[0].type)
        lowest = _like(integer, ~(1 << _MANTISSA[element]))  # of the exponent's bits
        bits = builder.and_(builder.bitcast(args[0], integer), lowest)
        return builder.bitcast(bits, args[0].type)

    return x(x), codegen


# 2 - x/2 or so on each octave: the exponent negated, the mantissa on a straight line. Of such lines
# this one stays nearest to 1/x: 5.05% above and below.
_RECIPROCAL = {types.float32: 0x7EF30FF0, types.float64: 0x7FDE61FE00000000}


@intrinsic
def reciprocal_seed(typingctx, x):
    """1/x to 5.05%, from the bits alone; x positive and normal, 1/x too."""
    element = element_of(x)
    if element not in _RECIPROCAL:
        return None

    def codegen(context, builder, sig, args):
        integer = _integer_type(args[0].type)
        magic = _like(integer, _RECIPROCAL[element])
        return builder.bitcast(builder.sub(magic, builder.bitcast(args[0], integer)), args[0].type)

    return x(x), codegen


@intrinsic
def scalef(typingctx, x, n):
    """x 2^n, n whole, rounded once: AVX-512's instruction, for Lanes where `has_scalef`."""
    if not (isinstance(x, Lanes) and x == n and has_scalef):
        return None

    def codegen(context, builder, sig, args):
        bits = 64 if isinstance(args[0].type.element, ir.DoubleType) else 32
        count, suffix = 512 // bits, "pd" if bits == 64 else "ps"
        vector, mask = ir.VectorType(args[0].type.element, count), ir.IntType(count)
        kind = ir.FunctionType(vector, [vector, vector, vector, mask, ir.IntType(32)])
        name = f"llvm.x86.avx512.mask.scalef.{suffix}.512"
        function = cgutils.get_or_insert_function(builder.module, kind, name)

        def piece(first):
            a, b = (part(builder, value, first, count) for value in args)
            every = ir.Constant(mask, -1)
            return builder.call(function, [a, b, a, every, ir.Constant(ir.IntType(32), 4)])

        return joined(builder, [piece(first) for first in range(0, x.count, count)])

    return x(x, n), codegen


@intrinsic
def copysign(typingctx, size, sign):
    """The first number with the sign of the second."""
    if element_of(size) not in _INTEGER or size != sign:
        return None

    def codegen(context, builder, sig, args):
        return call_llvm(builder, "copysign", args[0].type, args)

    return size(size, sign), codegen


@intrinsic
def split_exponent(typingctx, x, low):
    """(n, m) with x = 2^n m, low <= m < 2 low; x a positive normal number."""
    element = element_of(x)
    if element not in _INTEGER or low != element:
        return None
    length = _MANTISSA[element]

    def codegen(context, builder, sig, args):
        x, low = args[0], spread(context, builder, args[1], low_type, x_type)
        integer = _integer_type(x.type)
        bits, lowest = builder.bitcast(x, integer), builder.bitcast(low, integer)
        shift = _like(integer, length)
        n = builder.ashr(builder.sub(bits, lowest), shift)
        m = builder.bitcast(builder.sub(bits, builder.shl(n, shift)), x.type)
        return context.make_tuple(builder, sig.return_type, [builder.sitofp(n, x.type), m])

    x_type, low_type = x, low
    return types.UniTuple(x, 2)(x, low), codegen


@intrinsic
def horner(typingctx, x, coefficients):
    """Polynomial with these coefficients (a constant tuple, lowest power first) at x."""
    if not (isinstance(coefficients, types.UniTuple) and coefficients.dtype == element_of(x)):
        return None

    def codegen(context, builder, signature, args):
        value, tuple_ = args

        def coefficient(power):
            number = builder.extract_value(tuple_, power)
            return spread(context, builder, number, coefficients.dtype, x)

        result = coefficient(coefficients.count - 1)
        for power in reversed(range(coefficients.count - 1)):
            terms = [result, value, coefficient(power)]
            result = call_llvm(builder, "fma", value.type, terms)
        return result

    return x(x, coefficients), codegen


@intrinsic
def select(typingctx, condition, a, b):
    """``a`` where the condition holds, else ``b``; both are computed, no branch.

    A Python conditional becomes a branch, and a loop with one that LLVM does not fold
    is not vectorised.
    """
    kind = widest(a, b)
    if element_of(condition) != types.boolean or kind is None:
        return None
    if isinstance(condition, Lanes) and not isinstance(kind, Lanes):
        kind = Lanes(kind, condition.count)

    def codegen(context, builder, sig, args):
        flag = args[0]
        if not isinstance(condition, Lanes):
            flag = context.cast(builder, flag, types.boolean, types.boolean)
        values = [
            spread(context, builder, value, given, kind)
            for value, given in zip(args[1:], sig.args[1:], strict=True)
        ]
        return builder.select(flag, *values)

    return kind(condition, a, b), codegen


@intrinsic
def prefer_wide(typingctx):
    """Let LLVM use the widest vectors that there are in the function that holds this call.

    On CPUs of Intel it keeps to 256 of the 512 bits otherwise, for the sake of early ones
    that lowered their clock for the wide ones.
    """

    def codegen(context, builder, signature, args):
        # The attributes of llvmlite are a set that lets through the ones it knows.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen
