"""C twin of ``loopnest.kernels.convolution_pointwise``."""

from __future__ import annotations

from loopnest._c import ffi, lib
from loopnest.ckernels.call import kernel, or_null
from loopnest.ckernels.convolution import shape_of

_PLAN = ffi.new("ln_conv2d_plan *", (lib.LN_POINTWISE, 0, 0, 0, 0, 0, 0))


@kernel("conv2d_tiled")
def conv2d_pointwise(x, weight, bias, groups, first, last, more, rectify, work, y):
    shape = shape_of(x.shape, weight.shape, y.shape, 1, 1, 0, 0, 1, 1, groups)
    operands = x, weight, or_null(bias), shape, _PLAN, ffi.NULL, or_null(more), rectify
    return *operands, first, last, work, ffi.NULL, y
