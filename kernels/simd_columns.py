"""Tiles written transposed, their columns along the lines of memory."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from loopnest.kernels.simd_tiles import (
    _I32,
    _at,
    _first_lanes,
    _first_of_row,
    _integer,
    _load_some,
    _rectify,
    _size,
    _steps,
    _store_some,
)


def _columns_mask(builder, width, first, rows, lanes):
    """Mask of the rows from ``first`` on that a transposed tile has, and that are to be written."""
    tile = ir.Constant(width.type, rows)
    width = builder.select(builder.icmp_signed("<", width, tile), width, tile)
    return _first_lanes(builder, builder.sub(width, ir.Constant(width.type, first)), lanes)


def _transpose(builder, values, llvm):
    """Transpose of ``count`` vectors of ``count`` lanes: log2(count) rounds of two-way shuffles."""
    count = llvm.count
    half = count // 2
    even = [k for i in range(half) for k in (i, i + count)]
    odd = [k for i in range(half, count) for k in (i, i + count)]
    masks = [ir.Constant(ir.VectorType(_I32, count), m) for m in (even, odd)]
    for _ in range(count.bit_length() - 1):
        pairs = zip(values[:half], values[half:], strict=True)
        values = [builder.shuffle_vector(a, b, mask) for a, b in pairs for mask in masks]
    return values


def _each_column(context, builder, tile, acc, y, y_step, height, width, mr, nv, write):
    """Call ``write(value, address, mask)`` for each column of the tile, transposed in registers."""
    vector, lanes = tile.dtype, tile.dtype.lanes
    llvm = context.get_value_type(vector)
    none = ir.Constant(llvm, ir.Undefined)
    steps = _steps(builder, y_step, nv * lanes)
    for first in range(0, mr, lanes):  # as many rows as a vector has lanes, at a time
        mask = _columns_mask(builder, width, first, mr, lanes)
        offset = ir.Constant(y.type, first * _size(vector))
        for j in range(nv):
            block = [
                builder.extract_value(acc, i * nv + j) if i < mr else none
                for i in range(first, first + lanes)
            ]
            for column, value in enumerate(_transpose(builder, block, llvm), j * lanes):
                address = builder.add(builder.add(y, steps[column]), offset)
                write(value, address, _first_of_row(builder, mask, height, column))


@intrinsic(prefer_literal=True)
def store_columns(typingctx, tile, y, y_step, height, width, rows, vectors):
    """Write the tile transposed: y[j][i] = tile[i][j] for j < height, i < width."""
    vector, mr, nv = tile.dtype, _integer(rows), _integer(vectors)

    def codegen(context, builder, signature, args):
        llvm = context.get_value_type(vector)

        def write(value, address, some):
            _store_some(builder, value, _at(builder, address, 0, llvm), vector, some)

        _each_column(context, builder, tile, *args[:5], mr, nv, write)
        return context.get_dummy_value()

    return types.none(tile, y, y_step, height, width, rows, vectors), codegen


@intrinsic(prefer_literal=True)
def finish_columns(
    typingctx, tile, y, y_step, height, width, more, add, rectify, rows, vectors
):  # fmt: skip
    """The same, after what lies ``more`` bytes from y is added, and negative numbers are made
    zeros, where ``add`` and ``rectify`` are not 0.

    By selection: branches would give a transposition for each.
    """
    vector, mr, nv = tile.dtype, _integer(rows), _integer(vectors)

    def codegen(context, builder, signature, args):
        llvm, (more, add, rectify) = context.get_value_type(vector), args[5:8]
        adds, rectifies = (
            builder.icmp_signed("!=", flag, ir.Constant(flag.type, 0)) for flag in (add, rectify)
        )

        def write(value, address, some):
            read = builder.select(adds, some, ir.Constant(some.type, None))
            terms = _load_some(builder, builder.add(address, more), vector, llvm, read)
            value = builder.select(adds, builder.fadd(value, terms), value)
            value = builder.select(rectifies, _rectify(builder, value), value)
            _store_some(builder, value, _at(builder, address, 0, llvm), vector, some)

        _each_column(context, builder, tile, *args[:5], mr, nv, write)
        return context.get_dummy_value()

    return types.none(tile, y, y_step, height, width, more, add, rectify, rows, vectors), codegen
