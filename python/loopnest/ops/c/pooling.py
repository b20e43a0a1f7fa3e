"""C twins of ``loopnest.kernels.pooling``."""

from __future__ import annotations

import functools
from typing import Any

from loopnest._c import ffi, lib
from loopnest.ops.c.call import kernel, pointer


@functools.lru_cache(maxsize=1024)
def _shape(x: tuple, y: tuple, *options: int) -> Any:
    """The sizes as C wants them; options: kernel, stride, padding, and for max dilation."""
    return ffi.new("ln_pool2d_shape *", (*x[2:], *y[2:], *options))


@kernel("avg_pool2d")
def avg_pool2d(x, *options):
    *options, include_pad, divisor, work, first, last, y = options
    return x, _shape(x.shape, y.shape, *options), include_pad, divisor, work, first, last, y


@kernel("avg_pool2d_backward")
def avg_pool2d_backward(dy, *options):
    *options, include_pad, divisor, work, first, last, dx = options
    return dy, _shape(dx.shape, dy.shape, *options), include_pad, divisor, work, first, last, dx


@kernel("max_pool2d")
def max_pool2d(x, *options):
    *options, work, first, last, y = options
    return x, _shape(x.shape, y.shape, *options), work, first, last, y


@kernel("max_pool2d_indices")
def max_pool2d_indices(x, *options):
    *options, first, last, indices, y = options
    return x, _shape(x.shape, y.shape, *options), first, last, indices, y


def indices_outside(indices, plane_size):
    outside = ffi.new("int64_t *")
    lib.ln_indices_outside_u64(pointer(indices), indices.size, plane_size, outside)
    return outside[0] != 0


@kernel("max_pool2d_backward")
def max_pool2d_backward(dy, indices, first, last, dx):
    plane_size, out_size = dx.shape[2] * dx.shape[3], dy.shape[2] * dy.shape[3]
    return dy, indices, plane_size, out_size, first, last, dx


@kernel("global_avg_pool2d")
def global_avg_pool2d(x, first, last, y):
    return x, x.shape[2] * x.shape[3], first, last, y


@kernel("global_max_pool2d")
def global_max_pool2d(x, work, first, last, y):
    return x, x.shape[2] * x.shape[3], work, first, last, y
