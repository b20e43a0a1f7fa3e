"""Rows side by side as one Numba value: 16 lanes of each of ROWS rows; part of simd_lanes.py."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from loopnest.kernels.simd_lanes import (
    BLOCK,
    LANES,
    Lanes,
    address,
    first_lanes,
    is_real_array,
    joined,
    larger,
    masked,
    part,
    splat,
)

I32, I64 = ir.IntType(32), ir.IntType(64)
ROWS = BLOCK // LANES


def _row_pointers(context, builder, array_type, array, index, stride):
    """Addresses of array[index], array[index + stride], ..., one for each row."""
    for row in range(ROWS):
        at = builder.add(index, builder.mul(stride, ir.Constant(I64, row)))
        yield address(context, builder, array_type, array, at)


@intrinsic
def load_rows(typingctx, x, i, stride):
    """x[i : i + 16], x[i + stride : i + stride + 16], ..."""
    if not is_real_array(x):
        return None
    kind, row = Lanes(x.dtype, BLOCK), Lanes(x.dtype)

    def codegen(context, builder, sig, args):
        llvm, parts = context.get_value_type(row), []
        for pointer in _row_pointers(context, builder, x, *args):
            parts.append(builder.load(builder.bitcast(pointer, llvm.as_pointer())))
            parts[-1].align = x.dtype.bitwidth // 8
        return joined(builder, parts)

    return kind(x, types.int64, types.int64), codegen


@intrinsic(prefer_literal=True)
def fetch_rows(typingctx, x, i, stride, write):
    """Ask for what `load_rows` would load (write: 1 to store there); it need not exist."""
    if not (is_real_array(x) and isinstance(write, types.IntegerLiteral)):
        return None
    hints = [ir.Constant(I32, hint) for hint in (write.literal_value, 3, 1)]  # keep, data

    def codegen(context, builder, sig, args):
        array, index, stride, _ = args
        kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), *(h.type for h in hints)])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        for pointer in _row_pointers(context, builder, x, array, index, stride):
            builder.call(function, [builder.bitcast(pointer, ir.PointerType()), *hints])
        return context.get_dummy_value()

    return types.none(x, types.int64, types.int64, write), codegen


@intrinsic
def load_rows_some(typingctx, x, i, stride, count, rest):
    """The first ``count`` of each row's 16, ``rest`` in the other lanes."""
    if not (is_real_array(x) and rest == x.dtype):
        return None
    kind, row = Lanes(x.dtype, BLOCK), Lanes(x.dtype)

    def codegen(context, builder, sig, args):
        *where, count, rest = args
        llvm, parts = context.get_value_type(row), []
        align = ir.Constant(I32, x.dtype.bitwidth // 8)
        mask, rest = first_lanes(builder, count), splat(builder, rest, llvm)
        for pointer in _row_pointers(context, builder, x, *where):
            pointer = builder.bitcast(pointer, ir.PointerType())
            parts.append(masked(builder, "load", llvm, llvm, [pointer, align, mask, rest]))
        return joined(builder, parts)

    return kind(x, types.int64, types.int64, types.int64, rest), codegen


@intrinsic
def store_rows(typingctx, y, i, stride, value):
    """The opposite of `load_rows`."""
    if not (is_real_array(y) and value == Lanes(y.dtype, BLOCK)):
        return None

    def codegen(context, builder, sig, args):
        *where, value = args
        for row, pointer in enumerate(_row_pointers(context, builder, y, *where)):
            piece = part(builder, value, row * LANES, LANES)
            done = builder.store(piece, builder.bitcast(pointer, piece.type.as_pointer()))
            done.align = y.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.none(y, types.int64, types.int64, value), codegen


@intrinsic
def store_rows_some(typingctx, y, i, stride, count, value):
    """The first ``count`` lanes of each row; nothing else is written."""
    if not (is_real_array(y) and value == Lanes(y.dtype, BLOCK)):
        return None

    def codegen(context, builder, sig, args):
        *where, count, value = args
        align, mask = ir.Constant(I32, y.dtype.bitwidth // 8), first_lanes(builder, count)
        for row, pointer in enumerate(_row_pointers(context, builder, y, *where)):
            piece = part(builder, value, row * LANES, LANES)
            pointer = builder.bitcast(pointer, ir.PointerType())
            masked(builder, "store", ir.VoidType(), piece.type, [piece, pointer, align, mask])
        return context.get_dummy_value()

    return types.none(y, types.int64, types.int64, types.int64, value), codegen


@intrinsic
def repeat_rows(typingctx, x, i):
    """x[i] in the 16 lanes of the first row, x[i + 1] in those of the second, ..."""
    if not is_real_array(x):
        return None
    kind, row = Lanes(x.dtype, BLOCK), Lanes(x.dtype)

    def codegen(context, builder, sig, args):
        one = ir.Constant(I64, 1)
        pointers = _row_pointers(context, builder, x, *args, one)
        llvm = context.get_value_type(row)
        return joined(builder, [splat(builder, builder.load(p), llvm) for p in pointers])

    return kind(x, types.int64), codegen


@intrinsic
def repeat_block(typingctx, number):
    """A number in all lanes of all rows."""
    kind = Lanes(number, BLOCK)

    def codegen(context, builder, sig, args):
        return splat(builder, args[0], context.get_value_type(kind))

    return kind(number), codegen


def _folded_rows(builder, value, combine):
    """Each row's lanes combined 8, 4, 2, 1, in all of them: lane l with lane l XOR 8, ..."""
    half = LANES // 2
    while half:
        other = ir.Constant(
            ir.VectorType(I32, value.type.count), [i ^ half for i in range(value.type.count)]
        )
        none = ir.Constant(value.type, ir.Undefined)
        value = combine(builder, value, builder.shuffle_vector(value, none, other))
        half //= 2
    return value


@intrinsic
def fold_rows_sum(typingctx, value):
    """Each row's sum, folded 8, 4, 2, 1, in all its lanes."""

    def codegen(context, builder, sig, args):
        return _folded_rows(builder, args[0], lambda builder, a, b: builder.fadd(a, b))

    return value(value), codegen


@intrinsic
def fold_rows_max(typingctx, value):
    """Each row's largest lane, where none is NaN, in all its lanes."""

    def codegen(context, builder, sig, args):
        return _folded_rows(builder, args[0], larger)

    return value(value), codegen


@intrinsic
def store_each(typingctx, y, i, value):
    """The first lane of each row to y[i], y[i + 1], ..."""
    if not (is_real_array(y) and value == Lanes(y.dtype, BLOCK)):
        return None

    def codegen(context, builder, sig, args):
        array, index, value = args
        one = ir.Constant(I64, 1)
        for row, pointer in enumerate(_row_pointers(context, builder, y, array, index, one)):
            builder.store(builder.extract_element(value, ir.Constant(I32, row * LANES)), pointer)
        return context.get_dummy_value()

    return types.none(y, types.int64, value), codegen
