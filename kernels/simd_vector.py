"""Single vectors as Numba values: loads, stores, + - *, and shuffles of two, in LLVM IR.

`Vector` is that of simd_tiles.py. Addresses are plain integers (uint64).
"""

import operator

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from loopnest.kernels.jit import OPTIONS
from loopnest.kernels.simd_tiles import (
    _I32,
    Vector,
    _at,
    _call,
    _first_lanes,
    _load,
    _load_some,
    _size,
    _splat,
    _store_some,
    _suffix,
)


@intrinsic
def spread(typingctx, number):
    """Vector of one number."""
    vector = Vector(number)

    def codegen(context, builder, signature, args):
        return _splat(builder, args[0], context.get_value_type(vector))

    return vector(number), codegen


@intrinsic
def load_number(typingctx, like, address):
    """The number of the type of ``like`` at an address."""

    def codegen(context, builder, signature, args):
        return builder.load(_at(builder, args[1], 0, args[0].type))

    return like(like, types.uint64), codegen


@intrinsic
def load(typingctx, like, address):
    """The vector of numbers of the type of ``like`` at an address."""
    vector = Vector(like)

    def codegen(context, builder, signature, args):
        return _load(builder, args[1], 0, vector, context.get_value_type(vector))

    return vector(like, types.uint64), codegen


@intrinsic
def load_within(typingctx, like, row, at, span):
    """The vector from number ``at`` of the row at an address on, zeros outside the span of it.

    Bit i of ``span`` is whether number i is inside; what is not is not read. at + lanes <= 64.
    """
    vector = Vector(like)

    def codegen(context, builder, signature, args):
        _, row, at, span = args
        llvm, lanes = context.get_value_type(vector), ir.IntType(vector.lanes)
        inside = builder.trunc(builder.lshr(span, at), lanes)
        inside = builder.bitcast(inside, ir.VectorType(ir.IntType(1), vector.lanes))
        address = builder.add(row, builder.mul(at, ir.Constant(at.type, _size(vector))))
        return _load_some(builder, address, vector, llvm, inside)

    return vector(like, types.uint64, types.uint64, types.uint64), codegen


@intrinsic
def fuse(typingctx, a, b, total):
    """a * b + total of vectors, rounded once."""

    def codegen(context, builder, signature, args):
        return _call(builder, f"llvm.fma.{_suffix(total)}", args[0].type, list(args))

    return total(total, total, total), codegen


@intrinsic
def store(typingctx, value, address):
    """Write a vector."""

    def codegen(context, builder, signature, args):
        pointer = _at(builder, args[1], 0, context.get_value_type(value))
        builder.store(args[0], pointer).align = _size(value)
        return context.get_dummy_value()

    return types.none(value, types.uint64), codegen


@intrinsic
def store_first(typingctx, value, address, count):
    """Write the first ``count`` numbers, none below 1, all from the number of lanes on."""

    def codegen(context, builder, signature, args):
        pointer = _at(builder, args[1], 0, context.get_value_type(value))
        _store_some(builder, args[0], pointer, value, _first_lanes(builder, args[2], value.lanes))
        return context.get_dummy_value()

    return types.none(value, types.uint64, types.int64), codegen


def _shuffle(doc, lanes_of):
    """Intrinsic of two vectors; ``lanes_of(n)`` tells which of their 2n lanes to take."""

    def shuffle(typingctx, a, b):
        def codegen(context, builder, signature, args):
            mask = ir.Constant(ir.VectorType(_I32, a.lanes), lanes_of(a.lanes))
            return builder.shuffle_vector(*args, mask)

        return a(a, b), codegen

    shuffle.__doc__ = doc
    return intrinsic(shuffle)


def _zip(first, n):
    return [lane for i in range(first, first + n // 2) for lane in (i, n + i)]


even = _shuffle("Numbers 0, 2, ... of two vectors in a row.", lambda n: list(range(0, 2 * n, 2)))
odd = _shuffle("Numbers 1, 3, ... of two vectors in a row.", lambda n: list(range(1, 2 * n, 2)))
zip_low = _shuffle("a0 b0 a1 b1 ..., the first half.", lambda n: _zip(0, n))
zip_high = _shuffle("The second half of a0 b0 a1 b1 ...", lambda n: _zip(n // 2, n))


def _register(function, instruction):
    """Let an operator take two vectors."""

    @intrinsic
    def emit(typingctx, a, b):
        def codegen(context, builder, signature, args):
            return getattr(builder, instruction)(*args)

        return a(a, b), codegen

    @overload(function, jit_options={**OPTIONS, "forceinline": True})
    def operation(a, b):
        if isinstance(a, Vector) and a == b:
            return lambda a, b: emit(a, b)
        return None


_register(operator.add, "fadd")
_register(operator.sub, "fsub")
_register(operator.mul, "fmul")
