"""C twins of ``loopnest.kernels.convolution_tiled``."""

from __future__ import annotations

from typing import Any

from loopnest._c import ffi, lib
from loopnest.ops.c.call import by_dtype, pointer
from loopnest.ops.c.convolution import shape_of

__all__ = ["pack_conv2d", "packed_size"]

_pack = by_dtype("pack_conv2d")
_PACKED_SIZE = {4: lib.ln_pack_conv2d_size_f32, 8: lib.ln_pack_conv2d_size_f64}


def _filters(k: int, groups: int, terms: int) -> Any:
    """The sizes of a weight, as much as packing needs."""
    return shape_of((1, terms * groups, 0, 0), (k, terms, 1, 1), (1, k, 0, 0), *[1] * 6, groups)


def packed_size(k, groups, terms, itemsize):
    size = ffi.new("int64_t *")
    _PACKED_SIZE[itemsize](_filters(k, groups, terms), size)
    return size[0]


def pack_conv2d(weight, groups, packed):
    k = len(weight)
    filters = _filters(k, groups, weight.size // k if k else 0)
    _pack[weight.dtype](pointer(weight), filters, pointer(packed))
