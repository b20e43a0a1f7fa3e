"""Sixteen floats, or eight 64-bit words, as one Numba value: a vector that stays in registers.

A `wide` is an LLVM vector; narrower machines use several registers for it, with the same
bits. What LLVM's vectoriser does by itself is left to it; this is for loops that it may not
vectorise: sums whose lanes are the contract (see lanes.py), rows of one array that might overlap.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16
WORDS = 8

_ELEMENTS = {
    types.float32: (ir.FloatType(), LANES),
    types.float64: (ir.DoubleType(), LANES),
    types.uint64: (ir.IntType(64), WORDS),
}


class Wide(types.Type):
    """Numba type of 16 numbers of a float type, or of 8 words."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"wide({dtype})")


@register_model(Wide)
class _WideModel(models.PrimitiveModel):
    def __init__(self, manager, wide):
        super().__init__(manager, wide, ir.VectorType(*_ELEMENTS[wide.dtype]))


def _address(context, builder, array_type, array, index):
    """Pointer to the element, and its size; no wraparound, no check."""
    data = context.make_array(array_type)(context, builder, array).data
    size = context.get_abi_sizeof(context.get_data_type(array_type.dtype))
    return cgutils.gep(builder, data, index), size


@intrinsic
def load(typingctx, array, index):
    """The elements of a flat array from ``index`` on."""
    wide = Wide(array.dtype)

    def codegen(context, builder, signature, args):
        place, size = _address(context, builder, signature.args[0], *args)
        vector = context.get_value_type(wide)
        return builder.load(builder.bitcast(place, vector.as_pointer()), align=size, typ=vector)

    return wide(array, types.uintp), codegen


@intrinsic
def store(typingctx, array, index, value):
    """Write a wide to the elements of a flat array from ``index`` on."""
    if not isinstance(value, Wide):
        return None

    def codegen(context, builder, signature, args):
        place, size = _address(context, builder, signature.args[0], *args[:2])
        vector = context.get_value_type(value)
        builder.store(args[2], builder.bitcast(place, vector.as_pointer()), align=size)
        return context.get_dummy_value()

    return types.void(array, types.uintp, value), codegen


@intrinsic
def splat(typingctx, x):
    """The number in every lane."""
    if x not in _ELEMENTS:
        return None
    wide = Wide(x)

    def codegen(context, builder, signature, args):
        vector = context.get_value_type(wide)
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), args[0], _i32(0))
        return builder.shuffle_vector(one, one, _mask([0] * vector.count))

    return wide(x), codegen


def _binary(name, operation):
    def typed(typingctx, a, b):
        if not (isinstance(a, Wide) and a == b):
            return None
        return a(a, b), lambda context, builder, signature, args: operation(builder, *args)

    typed.__name__ = name
    return intrinsic(typed)


add = _binary("add", lambda builder, a, b: builder.fadd(a, b))
mul = _binary("mul", lambda builder, a, b: builder.fmul(a, b))
both = _binary("both", lambda builder, a, b: builder.and_(a, b))
either = _binary("either", lambda builder, a, b: builder.or_(a, b))
differ = _binary("differ", lambda builder, a, b: builder.xor(a, b))


def _alternate(name, first):
    """Every second number of two wides that follow each other."""

    def typed(typingctx, a, b):
        if not (isinstance(a, Wide) and a == b):
            return None
        return a(a, b), lambda context, builder, signature, args: builder.shuffle_vector(
            *args, _mask(range(first, 2 * args[0].type.count, 2))
        )

    typed.__name__ = name
    return intrinsic(typed)


evens = _alternate("evens", 0)
odds = _alternate("odds", 1)


def _twice(name, half):
    """Each number of half a wide twice."""

    def typed(typingctx, a):
        if not isinstance(a, Wide):
            return None

        def codegen(context, builder, signature, args):
            lanes = args[0].type.count
            return builder.shuffle_vector(
                args[0], args[0], _mask((half * lanes + i) // 2 for i in range(lanes))
            )

        return a(a), codegen

    typed.__name__ = name
    return intrinsic(typed)


low_twice = _twice("low_twice", 0)
high_twice = _twice("high_twice", 1)


@intrinsic
def fma(typingctx, a, b, c):
    """``a*b + c`` in every lane, rounded once."""
    if not (isinstance(a, Wide) and a == b == c):
        return None

    def codegen(context, builder, signature, args):
        vector = args[0].type
        name = "llvm.fma.v16f32" if a.dtype == types.float32 else "llvm.fma.v16f64"
        signature = ir.FunctionType(vector, [vector] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)

    return a(a, b, c), codegen


@intrinsic
def store_sums(typingctx, a, b, c, d, array, index):
    """Write the sums of four wides, lanes folded 8, 4, 2, 1, to four elements of an array."""
    if not (isinstance(a, Wide) and a == b == c == d):
        return None

    def codegen(context, builder, signature, args):
        *wides, array_value, at = args
        low, high = [*range(8), *range(16, 24)], [*range(8, 16), *range(24, 32)]
        ab, cd = (_fold(builder, x, y, low, high) for x, y in (wides[:2], wides[2:]))
        low = [k + i for k in (0, 8, 16, 24) for i in range(4)]
        abcd = _fold(builder, ab, cd, low, [i + 4 for i in low])  # four lanes of each
        for step in (2, 1):
            abcd = _fold(builder, abcd, abcd, range(LANES), [(i + step) % 16 for i in range(16)])
        sums = builder.shuffle_vector(abcd, abcd, _mask([0, 4, 8, 12]))
        place, size = _address(context, builder, array, array_value, at)
        builder.store(sums, builder.bitcast(place, sums.type.as_pointer()), align=size)
        return context.get_dummy_value()

    return types.void(a, b, c, d, array, types.uintp), codegen


def _fold(builder, x, y, left, right):
    """Sum of two selections from the 32 lanes of x and y."""
    return builder.fadd(
        builder.shuffle_vector(x, y, _mask(left)), builder.shuffle_vector(x, y, _mask(right))
    )


def _i32(value):
    return ir.Constant(ir.IntType(32), value)


def _mask(lanes):
    lanes = list(lanes)
    return ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), [_i32(lane) for lane in lanes])
