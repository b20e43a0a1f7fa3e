"""Memory that compiled functions hold by address, as Numba values.

Weights and work space of a compiled network live outside of it: as constants in the machine
code they would have to be compiled, hundreds of megabytes of them. An address is marked as
belonging to this process, so that Numba refuses to cache what uses it.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

# Numba keeps machine code until the process ends, and says nothing of who may still call it; so
# the arrays that it knows by address stay as long.
_KEPT: list[np.ndarray] = []


def keep(array: np.ndarray) -> int:
    """Keep an array for ever; its address."""
    _KEPT.append(array)
    return array.ctypes.data


@intrinsic(prefer_literal=True)
def bound(typingctx, address):
    """An address of this process, a literal, as an integer."""
    if not isinstance(address, types.IntegerLiteral):
        return None
    number = address.literal_value

    def codegen(context, builder, signature, args):
        pointer = context.add_dynamic_addr(builder, number, info="loopnest")
        return builder.ptrtoint(pointer, ir.IntType(64))

    return types.int64(address), codegen


@intrinsic
def array_at(typingctx, address, shape, like):
    """C-contiguous array of this shape at an address, of the type of the number ``like``."""
    if not (
        isinstance(shape, types.BaseTuple) and all(isinstance(s, types.Integer) for s in shape)
    ):
        return None
    array = types.Array(types.unliteral(like), len(shape), "C")

    def codegen(context, builder, signature, args):
        target = make_array(array)(context, builder)
        sizes = [
            context.cast(builder, size, kind, types.intp)
            for kind, size in zip(shape, cgutils.unpack_tuple(builder, args[1]), strict=True)
        ]
        element = context.get_data_type(array.dtype)
        item = context.get_constant(types.intp, context.get_abi_sizeof(element))
        strides, step = [], item
        for size in reversed(sizes):
            strides.insert(0, step)
            step = builder.mul(step, size)
        populate_array(
            target,
            data=builder.inttoptr(args[0], element.as_pointer()),
            shape=sizes,
            strides=strides,
            itemsize=item,
            meminfo=None,
        )
        return target._getvalue()

    return array(types.int64, shape, like), codegen


@intrinsic(prefer_literal=True)
def stack_block(typingctx, size):
    """Address of ``size`` bytes (a literal) on the caller's stack, at a cache line."""
    if not isinstance(size, types.IntegerLiteral):
        return None
    count = size.literal_value

    def codegen(context, builder, signature, args):
        # In the entry block, so that a loop does not take it again and again; not Numba's own
        # alloca_once, which stores zeros, one by one.
        with builder.goto_entry_block():
            block = builder.alloca(ir.IntType(8), size=ir.IntType(64)(count))
            block.align = 64
        return builder.ptrtoint(block, ir.IntType(64))

    return types.int64(size), codegen


@intrinsic
def take(typingctx, flag):
    """Set the integer at an address from 0 to 1; False if it was 1: someone else has it."""

    def codegen(context, builder, signature, args):
        word = ir.IntType(64)
        pointer = builder.inttoptr(args[0], word.as_pointer())
        result = builder.cmpxchg(pointer, word(0), word(1), "acq_rel", "acquire")
        return builder.extract_value(result, 1)

    return types.boolean(types.int64), codegen


@intrinsic
def release(typingctx, flag):
    """Set the integer at an address to 0."""

    def codegen(context, builder, signature, args):
        word = ir.IntType(64)
        pointer = builder.inttoptr(args[0], word.as_pointer())
        builder.atomic_rmw("xchg", pointer, word(0), "release")
        return context.get_dummy_value()

    return types.none(types.int64), codegen
