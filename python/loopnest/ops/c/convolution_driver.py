"""C twin of ``loopnest.kernels.convolution_driver``."""

from __future__ import annotations

import functools
from typing import Any

from loopnest._c import ffi, lib
from loopnest.ops.c.call import kernel, or_null
from loopnest.ops.c.convolution import shape_of

__all__ = ["conv2d_tasks", "prepare"]

_PLAN = {4: lib.ln_conv2d_plan_f32, 8: lib.ln_conv2d_plan_f64}


@functools.lru_cache(maxsize=1024)
def _plan_of(method: int, flat: int, block_h: int, block_w: int, work: int) -> Any:
    """A plan as C wants it, without what only the caller needs."""
    return ffi.new("ln_conv2d_plan *", (method, flat, block_h, block_w, 0, work, 0))


def prepare(
    n, channels, h, w, k, groups, r, s, oh, ow, stride_h, stride_w, dilation_h, dilation_w,
    itemsize,
):  # fmt: skip
    options = stride_h, stride_w, 0, 0, dilation_h, dilation_w, groups
    plan = ffi.new("ln_conv2d_plan *")
    _PLAN[itemsize](shape_of((n, channels, h, w), (k, 0, r, s), (n, k, oh, ow), *options), plan)
    blocks = plan.method, plan.flat, plan.block_h, plan.block_w
    return *blocks, plan.tasks, plan.work, plan.taps


@kernel("conv2d_tiled")
def conv2d_tasks(x, weight, packed, bias, *options):
    *options, method, flat, block_h, block_w, first, last, more, rectify, work, taps, y = options
    shape = shape_of(x.shape, weight.shape, y.shape, *options)
    plan = _plan_of(method, flat, block_h, block_w, work.size)
    packed = or_null(packed if method == lib.LN_PIXELS else packed[:0])
    operands = x, weight, or_null(bias), shape, plan, packed, or_null(more), rectify
    return *operands, first, last, work, taps, y
