"""C twins of ``loopnest.kernels.winograd``."""

from __future__ import annotations

import functools
from typing import Any

from loopnest._c import ffi, lib
from loopnest.ops.c.call import by_dtype, kernel, or_null, pointer
from loopnest.ops.c.convolution import shape_of

__all__ = ["FILTERS", "conv2d_winograd", "prepare_winograd", "transform_filters"]

FILTERS = 16

_filters = by_dtype("winograd_filters")
_PLAN = {4: lib.ln_winograd_plan_f32, 8: lib.ln_winograd_plan_f64}
_UNIT = 1, 1, 0, 0, 1, 1  # stride, padding, dilation


def prepare_winograd(n, channels, k, groups, out_h, out_w, itemsize):
    plan = ffi.new("ln_winograd_plan *")
    shape = shape_of((n, channels, 0, 0), (k, 0, 3, 3), (n, k, out_h, out_w), *_UNIT, groups)
    _PLAN[itemsize](shape, plan)
    return plan.strip, plan.columns, plan.part, plan.tasks, plan.filters, plan.work


def transform_filters(weight, groups, first, last, work, u):
    channels = weight.shape[1] * groups
    shape = shape_of((1, channels, 0, 0), weight.shape, (1, len(weight), 0, 0), *_UNIT, groups)
    _filters[weight.dtype](pointer(weight), shape, first, last, pointer(work), pointer(u))


@functools.lru_cache(maxsize=1024)
def _plan_of(strip: int, columns: int, filters: int) -> Any:
    """A plan as C wants it, without what only the caller needs."""
    return ffi.new("ln_winograd_plan *", (strip, columns, 0, 0, filters, 0))


@kernel("winograd")
def conv2d_winograd(
    x, u, bias, top, left, groups, strip, columns, first_block, blocks, first, last, work, y
):
    weight = y.shape[1], x.shape[1] // groups, 3, 3
    shape = shape_of(x.shape, weight, y.shape, 1, 1, top, left, 1, 1, groups)
    plan = _plan_of(strip, columns, 16 * weight[1] * FILTERS)
    return x, u, or_null(bias), shape, plan, first_block, blocks, first, last, work, y
