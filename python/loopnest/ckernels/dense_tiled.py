"""C twins of ``loopnest.kernels.dense_tiled``."""

from __future__ import annotations

import functools

from loopnest._c import ffi, lib
from loopnest.ckernels.call import by_dtype, pointer

_tiled = by_dtype("linear_tiled")
_pack = by_dtype("pack_linear")
_transpose = by_dtype("transpose")
_PLAN = {4: lib.ln_linear_plan_f32, 8: lib.ln_linear_plan_f64}
_PACKED_SIZE = {4: lib.ln_pack_linear_size_f32, 8: lib.ln_pack_linear_size_f64}


@functools.lru_cache(maxsize=4096)
def prepare(samples, inputs, outputs, itemsize):
    plan = ffi.new("ln_linear_plan *")
    _PLAN[itemsize](samples, inputs, outputs, plan)
    return plan.tasks, plan.work, plan.taps


def packed_size(inputs, outputs, itemsize):
    size = ffi.new("int64_t *")
    _PACKED_SIZE[itemsize](inputs, outputs, size)
    return size[0]


def linear_tiled(x, weight, bias, packed, first, last, work, taps, y):
    _tiled[x.dtype](
        pointer(x),
        pointer(weight),
        pointer(bias) if bias.size else ffi.NULL,
        pointer(packed) if packed.size else ffi.NULL,
        len(x),
        *weight.shape,
        first,
        last,
        pointer(work),
        pointer(taps),
        pointer(y),
    )


def pack_linear(weight, packed):
    _pack[weight.dtype](pointer(weight), *weight.shape, pointer(packed))


def transpose(matrix, first, last, out):
    _transpose[matrix.dtype](pointer(matrix), *matrix.shape, first, last, pointer(out))
