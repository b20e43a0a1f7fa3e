"""C twins of ``loopnest.kernels.dense_tiled``."""

from __future__ import annotations

import functools

from loopnest._c import ffi, lib
from loopnest.ckernels.call import kernel, or_null

_PLAN = {4: lib.ln_linear_plan_f32, 8: lib.ln_linear_plan_f64}
_PACKED_SIZE = {4: lib.ln_pack_linear_size_f32, 8: lib.ln_pack_linear_size_f64}


@functools.lru_cache(maxsize=4096)
def prepare(samples, inputs, outputs, itemsize):
    plan = ffi.new("ln_linear_plan *")
    _PLAN[itemsize](samples, inputs, outputs, plan)
    return plan.tasks, plan.work


def packed_size(inputs, outputs, itemsize):
    size = ffi.new("int64_t *")
    _PACKED_SIZE[itemsize](inputs, outputs, size)
    return size[0]


@kernel("linear_tiled")
def linear_tiled(x, weight, bias, packed, first, last, work, y):
    sizes = len(x), *weight.shape, first, last
    return x, weight, or_null(bias), or_null(packed), *sizes, work, y


@kernel("pack_linear")
def pack_linear(weight, packed):
    return weight, *weight.shape, packed


@kernel("transpose")
def transpose(matrix, first, last, out):
    return matrix, *matrix.shape, first, last, out
