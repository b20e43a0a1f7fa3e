"""C twin of ``loopnest.kernels.convolution_stacked``."""

from __future__ import annotations

import functools
from typing import Any

from loopnest._c import ffi, lib
from loopnest.ckernels.call import kernel, or_null
from loopnest.ckernels.convolution import shape_of


@functools.lru_cache(maxsize=1024)
def _plan_of(block_h: int, block_w: int, work: int) -> Any:
    return ffi.new("ln_conv2d_plan *", (lib.LN_STACKED, 0, block_h, block_w, 0, work, 0))


@kernel("conv2d_tiled")
def conv2d_stacked(x, weight, bias, top, left, groups, block_h, first, last, work, y):
    shape = shape_of(x.shape, weight.shape, y.shape, 1, 1, top, left, 1, 1, groups)
    plan = _plan_of(block_h, y.shape[3], work.size)
    operands = x, weight, or_null(bias), shape, plan
    return *operands, ffi.NULL, ffi.NULL, 0, first, last, work, ffi.NULL, y
