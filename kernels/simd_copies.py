"""Copies of numbers between addresses, in vectors: whole, every second, transposed, past the caches."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from loopnest.kernels.simd_columns import _transpose
from loopnest.kernels.simd_tiles import (
    _I32,
    Vector,
    _at,
    _first_lanes,
    _first_of_row,
    _load_some,
    _size,
    _steps,
    _store_some,
)


@intrinsic
def copy_lanes(typingctx, like, source, target, count):
    """Copy up to a vector of numbers of the type of ``like``, the first ``count``."""
    return types.none(like, types.int64, types.int64, types.int64), _copy_lanes


@intrinsic
def copy_padded(typingctx, like, source, target, count, written):
    """The same, with zeros up to the number ``written``."""
    u, i = types.int64, types.int64
    return types.none(like, u, u, i, i), _copy_lanes


def _copy_lanes(context, builder, signature, args):
    _, source, target, count = args[:4]
    vector = Vector(signature.args[0])
    llvm, mask = context.get_value_type(vector), _first_lanes(builder, count, vector.lanes)
    value = _load_some(builder, source, vector, llvm, mask)
    if len(args) > 4:
        mask = _first_lanes(builder, args[4], vector.lanes)
    _store_some(builder, value, _at(builder, target, 0, llvm), vector, mask)
    return context.get_dummy_value()


@intrinsic
def copy_alternate(typingctx, like, source, target, count):
    """Copy every second number, up to a vector of them: target[i] = source[2 i], i < count."""
    vector = Vector(like)

    def codegen(context, builder, signature, args):
        _, source, target, count = args
        llvm, lanes = context.get_value_type(vector), vector.lanes
        span = builder.sub(builder.add(count, count), ir.Constant(count.type, 1))
        halves = []
        for first in (0, lanes):
            left = builder.sub(span, ir.Constant(span.type, first))
            address = builder.add(source, ir.Constant(source.type, first * _size(vector)))
            mask = _first_lanes(builder, left, lanes)
            halves.append(_load_some(builder, address, vector, llvm, mask))
        even = ir.Constant(ir.VectorType(_I32, lanes), list(range(0, 2 * lanes, 2)))
        value = builder.shuffle_vector(*halves, even)
        mask = _first_lanes(builder, count, lanes)
        _store_some(builder, value, _at(builder, target, 0, llvm), vector, mask)
        return context.get_dummy_value()

    return types.none(like, types.int64, types.int64, types.int64), codegen


@intrinsic
def copy_transposed(
    typingctx, like, source, source_step, target, target_step, height, width, written
):
    """Square block of lanes x lanes numbers, transposed; ``height`` rows of ``width`` are read.

    target[j][i] = source[i][j] for j < width and i < written, zeros where i >= height.
    """
    vector = Vector(like)

    def codegen(context, builder, signature, args):
        _, source, source_step, target, target_step, height, width, written = args
        llvm, lanes = context.get_value_type(vector), vector.lanes
        mask = _first_lanes(builder, width, lanes)
        out_mask = _first_lanes(builder, written, lanes)
        values = []
        for i, step in enumerate(_steps(builder, source_step, lanes)):
            some = _first_of_row(builder, mask, height, i)
            values.append(_load_some(builder, builder.add(source, step), vector, llvm, some))
        steps = _steps(builder, target_step, lanes)
        for j, value in enumerate(_transpose(builder, values, llvm)):
            pointer = _at(builder, builder.add(target, steps[j]), 0, llvm)
            some = _first_of_row(builder, out_mask, width, j)
            _store_some(builder, value, pointer, vector, some)
        return context.get_dummy_value()

    u, i = types.int64, types.int64
    return types.none(like, u, u, u, u, i, i, i), codegen


@intrinsic
def stream_line(typingctx, source, target):
    """Copy 64 bytes to a cache line that is not read for it, nor kept in a cache.

    Other threads may see it late: `stream_fence` when all is written.
    """
    line = ir.VectorType(ir.IntType(64), 8)

    def codegen(context, builder, signature, args):
        source, target = (builder.inttoptr(a, ir.PointerType()) for a in args)
        value = builder.load(source, align=1, typ=line)
        store = builder.store(value, target, align=64)
        store.set_metadata("nontemporal", builder.module.add_metadata([_I32(1)]))
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), codegen


@intrinsic
def stream_fence(typingctx):
    """Wait until lines that were streamed can be seen."""

    def codegen(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), codegen
