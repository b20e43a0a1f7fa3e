"""C twins of ``loopnest.kernels.dense_tiled``."""

from __future__ import annotations

import functools

from loopnest._c import ffi, lib
from loopnest.ops.c.call import kernel, or_null

_SUFFIX = {4: "f32", 8: "f64"}

FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT = 0, 1, 2


@functools.lru_cache(maxsize=4096)
def prepare(form, samples, inputs, outputs, itemsize):
    plan = ffi.new("ln_linear_plan *")
    planner = getattr(lib, f"ln_linear_plan_{_SUFFIX[itemsize]}")
    planner(form, samples, inputs, outputs, plan)
    return plan.tasks, plan.work


def packed_size(inputs, outputs, itemsize):
    size = ffi.new("int64_t *")
    getattr(lib, f"ln_pack_linear_size_{_SUFFIX[itemsize]}")(inputs, outputs, size)
    return size[0]


@kernel("linear_tiled")
def linear_tiled(a, b, bias, packed, form, first, last, work, y):
    sizes = len(a), *(y if form == BACKWARD_WEIGHT else b).shape
    return form, a, b, or_null(bias), or_null(packed), *sizes, first, last, work, y


@kernel("pack_linear")
def pack_linear(weight, packed):
    return weight, *weight.shape, packed
