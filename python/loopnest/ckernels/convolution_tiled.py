"""C twins of ``loopnest.kernels.convolution_tiled``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from loopnest._c import ffi, lib
from loopnest.ckernels.call import by_dtype, kernel, or_null, pointer
from loopnest.ckernels.convolution import shape_of

__all__ = ["conv2d_channels", "conv2d_pixels", "pack_conv2d", "packed_size", "prepare"]

_pack = by_dtype("pack_conv2d")
_PLAN = {4: lib.ln_conv2d_plan_f32, 8: lib.ln_conv2d_plan_f64}
_PACKED_SIZE = {4: lib.ln_pack_conv2d_size_f32, 8: lib.ln_pack_conv2d_size_f64}


@functools.lru_cache(maxsize=1024)
def _plan_of(method: int, flat: int, block_h: int, block_w: int) -> Any:
    """A plan as C wants it, without what only the caller needs."""
    return ffi.new("ln_conv2d_plan *", (method, flat, block_h, block_w, 0, 0, 0))


def prepare(
    n, channels, h, w, k, groups, r, s, oh, ow, stride_h, stride_w, dilation_h, dilation_w,
    itemsize,
):  # fmt: skip
    options = stride_h, stride_w, 0, 0, dilation_h, dilation_w, groups
    plan = ffi.new("ln_conv2d_plan *")
    _PLAN[itemsize](shape_of((n, channels, h, w), (k, 0, r, s), (n, k, oh, ow), *options), plan)
    blocks = plan.method, plan.flat, plan.block_h, plan.block_w
    return *blocks, plan.tasks, plan.work, plan.taps


def _conv2d(method: int) -> Callable:
    def arrange(x, weight, bias, *options):
        *options, flat, block_h, block_w, first, last, packed, more, rectify, work, taps, y = (
            options
        )
        shape = shape_of(x.shape, weight.shape, y.shape, *options)
        plan = _plan_of(method, flat, block_h, block_w)
        operands = x, weight, or_null(bias), shape, plan, or_null(packed), or_null(more), rectify
        return *operands, first, last, work, taps, y

    return kernel("conv2d_tiled")(arrange)


conv2d_pixels = _conv2d(lib.LN_PIXELS)
conv2d_channels = _conv2d(lib.LN_CHANNELS)


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
