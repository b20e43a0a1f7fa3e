"""Asking for cache lines before they are needed; their addresses need not exist."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from loopnest.kernels.simd_tiles import _I32, VECTOR_BYTES, _call, _integer


@intrinsic(prefer_literal=True)
def prefetch(typingctx, address, write):
    """Ask for the cache line at an address, to read or (1) to write."""
    for_write = _integer(write)

    def codegen(context, builder, signature, args):
        return _prefetch(context, builder, args[0], for_write, 3)

    return types.none(types.int64, write), codegen


@intrinsic(prefer_literal=True)
def prefetch_row(typingctx, address, write, vectors):
    """The same for some vectors from an address on, three lines of them at most."""
    for_write, lines = _integer(write), -(-_integer(vectors) * VECTOR_BYTES // 64)

    def codegen(context, builder, signature, args):
        for line in range(min(lines, 3)):
            place = builder.add(args[0], ir.Constant(args[0].type, 64 * line))
            _prefetch(context, builder, place, for_write, 3)
        return context.get_dummy_value()

    return types.none(types.int64, write, vectors), codegen


@intrinsic
def prefetch_to_l2(typingctx, address):
    """Ask for the cache line at an address, to read it later: L1 is spared."""

    def codegen(context, builder, signature, args):
        return _prefetch(context, builder, args[0], 0, 2)

    return types.none(types.int64), codegen


def _prefetch(context, builder, address, for_write, locality):
    pointer = builder.inttoptr(address, ir.PointerType())
    hints = [ir.Constant(_I32, hint) for hint in (for_write, locality, 1)]  # data
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *hints])
    return context.get_dummy_value()
