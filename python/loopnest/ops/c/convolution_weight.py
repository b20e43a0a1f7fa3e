"""C twins of ``loopnest.kernels.convolution_weight``."""

from __future__ import annotations

import functools
from typing import Any

from loopnest._c import ffi, lib
from loopnest.ops.c.call import kernel
from loopnest.ops.c.convolution import shape_of

__all__ = ["backward_weight", "prepare_weight"]

_PLAN = {4: lib.ln_conv2d_weight_plan_f32, 8: lib.ln_conv2d_weight_plan_f64}


@functools.lru_cache(maxsize=1024)
def _plan_of(flat: int, block_h: int, block_c: int) -> Any:
    """A plan as C wants it, without what only the caller needs."""
    return ffi.new("ln_conv2d_weight_plan *", (flat, block_h, block_c, 0, 0, 0))


def prepare_weight(
    n, channels, k, groups, r, s, oh, ow, stride_h, stride_w, dilation_h, dilation_w, itemsize
):
    options = stride_h, stride_w, 0, 0, dilation_h, dilation_w, groups
    plan = ffi.new("ln_conv2d_weight_plan *")
    _PLAN[itemsize](shape_of((n, channels, 0, 0), (k, 0, r, s), (n, k, oh, ow), *options), plan)
    return plan.flat, plan.block_h, plan.block_c, plan.tasks, plan.work, plan.taps


@kernel("conv2d_backward_weight_tiled")
def backward_weight(x, dy, *options):
    *options, flat, block_h, block_c, first, last, work, taps, dweight = options
    shape = shape_of(x.shape, dweight.shape, dy.shape, *options)
    plan = _plan_of(flat, block_h, block_c)
    return x, dy, shape, plan, first, last, work, taps, dweight
