"""Maxima, and where they are, as Numba values: tiles of one vector, for pooling_rows.py."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from loopnest.kernels.simd_tiles import (
    Vector,
    _at,
    _call,
    _first_lanes,
    _load_some,
    _splat,
    _store_some,
)

_I32, _I64 = ir.IntType(32), ir.IntType(64)


@intrinsic
def load_some(typingctx, like, source, count):
    """Tile of one vector: the first ``count`` numbers at an address, zeros after; nothing else is read."""
    tile = types.UniTuple(Vector(like), 1)

    def codegen(context, builder, signature, args):
        vector, llvm = tile.dtype, context.get_value_type(tile.dtype)
        mask = _first_lanes(builder, args[2], vector.lanes)
        value = _load_some(builder, args[1], vector, llvm, mask)
        return builder.insert_value(context.get_constant_undef(tile), value, 0)

    return tile(like, types.uint64, types.int64), codegen


@intrinsic
def store_some(typingctx, tile, target, count):
    """Write the first ``count`` numbers of a tile of one vector."""

    def codegen(context, builder, signature, args):
        vector, value = tile.dtype, builder.extract_value(args[0], 0)
        pointer = _at(builder, args[1], 0, value.type)
        mask = _first_lanes(builder, args[2], vector.lanes)
        _store_some(builder, value, pointer, vector, mask)
        return context.get_dummy_value()

    return types.none(tile, types.uint64, types.int64), codegen


def _larger(or_nan):
    def typed(typingctx, best, other):
        if best != other:
            return None

        def codegen(context, builder, signature, args):
            tile = args[0]
            for at in range(best.count):
                old, new = (builder.extract_value(value, at) for value in args)
                take = builder.fcmp_ordered(">", new, old)
                if or_nan:
                    take = builder.or_(take, builder.fcmp_unordered("uno", new, new))
                tile = builder.insert_value(tile, builder.select(take, new, old), at)
            return tile

        return best(best, other), codegen

    typed.__name__ = "larger_or_nan" if or_nan else "larger"
    typed.__doc__ = "The other's numbers where they are larger" + (", or NaN." if or_nan else ".")
    return intrinsic(typed)


larger, larger_or_nan = _larger(False), _larger(True)


@intrinsic
def unordered(typingctx, a, b):
    """Bits of the lanes in which one of two tiles is NaN."""
    if a != b:
        return None

    def codegen(context, builder, signature, args):
        left, right = (builder.extract_value(value, 0) for value in args)
        lanes = builder.fcmp_unordered("uno", left, right)
        bits = builder.bitcast(lanes, ir.IntType(a.dtype.lanes))
        return builder.zext(bits, _I64)

    return types.int64(a, b), codegen


@intrinsic
def load_alternate(typingctx, like, source, count):
    """Tile of every second number at an address, ``count`` of them, zeros after."""
    tile = types.UniTuple(Vector(like), 1)

    def codegen(context, builder, signature, args):
        vector, llvm = tile.dtype, context.get_value_type(tile.dtype)
        _, source, count = args
        span, halves = builder.sub(builder.add(count, count), ir.Constant(_I64, 1)), []
        for first in (0, vector.lanes):
            mask = _first_lanes(builder, builder.sub(span, ir.Constant(_I64, first)), vector.lanes)
            address = builder.add(source, ir.Constant(_I64, first * like.bitwidth // 8))
            halves.append(_load_some(builder, address, vector, llvm, mask))
        even = ir.Constant(ir.VectorType(_I32, llvm.count), list(range(0, 2 * llvm.count, 2)))
        value = builder.shuffle_vector(*halves, even)
        return builder.insert_value(context.get_constant_undef(tile), value, 0)

    return tile(like, types.uint64, types.int64), codegen


def _places(like):
    """Type of a tile of places: integers as wide as the numbers."""
    return types.UniTuple(Vector(types.int32 if like.bitwidth == 32 else types.int64), 1)


@intrinsic
def no_places(typingctx, like):
    """Places 0 for a tile of numbers of this type."""
    places = _places(like)
    return places(like), lambda context, *_: ir.Constant(context.get_value_type(places), None)


@intrinsic
def larger_places(typingctx, best, places, other, place):
    """Maxima and their places, where the other's numbers, all at ``place``, are larger or NaN."""
    both = types.Tuple((best, places))

    def codegen(context, builder, signature, args):
        old, held, new = (builder.extract_value(value, 0) for value in args[:3])
        given = (
            _splat(builder, builder.trunc(args[3], held.type.element), held.type)
            if (held.type.element.width < 64)
            else _splat(builder, args[3], held.type)
        )
        take = builder.or_(
            builder.fcmp_ordered(">", new, old), builder.fcmp_unordered("uno", new, new)
        )
        values = builder.select(take, new, old), builder.select(take, given, held)
        tiles = [
            builder.insert_value(tile, value, 0)
            for tile, value in zip(args[:2], values, strict=True)
        ]
        return context.make_tuple(builder, both, tiles)

    return both(best, places, best, types.int64), codegen


@intrinsic
def store_places(typingctx, places, first, step, target, count):
    """Write int64s, the first ``count``: first + step lane + place."""

    def codegen(context, builder, signature, args):
        held, lanes = builder.extract_value(args[0], 0), places.dtype.lanes
        wide = ir.VectorType(_I64, lanes)
        if held.type != wide:
            held = builder.sext(held, wide)
        along = builder.mul(_splat(builder, args[2], wide), ir.Constant(wide, list(range(lanes))))
        value = builder.add(held, builder.add(along, _splat(builder, args[1], wide)))
        pointer = builder.inttoptr(args[3], ir.PointerType())
        mask = _first_lanes(builder, args[4], lanes)
        arguments = [value, pointer, ir.Constant(_I32, 8), mask]
        _call(builder, f"llvm.masked.store.v{lanes}i64.p0", ir.VoidType(), arguments)
        return context.get_dummy_value()

    i = types.int64
    return types.none(places, i, i, types.uint64, i), codegen
