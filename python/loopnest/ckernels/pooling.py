"""C twins of ``loopnest.kernels.pooling``."""

from __future__ import annotations

import functools
from typing import Any

from loopnest._c import ffi
from loopnest.ckernels.call import by_dtype, pointer

_avg_pool2d = by_dtype("avg_pool2d")
_avg_pool2d_backward = by_dtype("avg_pool2d_backward")
_max_pool2d = by_dtype("max_pool2d")
_max_pool2d_indices = by_dtype("max_pool2d_indices")
_max_pool2d_backward = by_dtype("max_pool2d_backward")
_global_avg_pool2d = by_dtype("global_avg_pool2d")
_global_max_pool2d = by_dtype("global_max_pool2d")


@functools.lru_cache(maxsize=1024)
def _shape(x: tuple, y: tuple, *options: int) -> Any:
    """The sizes as C wants them; options: kernel, stride, padding, and for max dilation."""
    return ffi.new("ln_pool2d_shape *", (*x[2:], *y[2:], *options))


def avg_pool2d(x, *options):
    *options, include_pad, divisor, work, first, last, y = options
    shape = _shape(x.shape, y.shape, *options)
    _avg_pool2d[x.dtype](
        pointer(x), shape, include_pad, divisor, pointer(work), first, last, pointer(y)
    )


def avg_pool2d_backward(dy, *options):
    *options, include_pad, divisor, work, first, last, dx = options
    shape = _shape(dx.shape, dy.shape, *options)
    _avg_pool2d_backward[dy.dtype](
        pointer(dy), shape, include_pad, divisor, pointer(work), first, last, pointer(dx)
    )


def max_pool2d(x, *options):
    *options, work, first, last, y = options
    shape = _shape(x.shape, y.shape, *options)
    _max_pool2d[x.dtype](pointer(x), shape, pointer(work), first, last, pointer(y))


def max_pool2d_indices(x, *options):
    *options, first, last, indices, y = options
    shape = _shape(x.shape, y.shape, *options)
    _max_pool2d_indices[x.dtype](pointer(x), shape, first, last, pointer(indices), pointer(y))


def max_pool2d_backward(dy, indices, first, last, dx):
    plane_size, out_size = dx.shape[2] * dx.shape[3], dy.shape[2] * dy.shape[3]
    _max_pool2d_backward[dy.dtype](
        pointer(dy), pointer(indices), plane_size, out_size, first, last, pointer(dx)
    )


def global_avg_pool2d(x, first, last, y):
    size = x.shape[2] * x.shape[3]
    _global_avg_pool2d[x.dtype](pointer(x), size, first, last, pointer(y))


def global_max_pool2d(x, work, first, last, y):
    size = x.shape[2] * x.shape[3]
    _global_max_pool2d[x.dtype](pointer(x), size, pointer(work), first, last, pointer(y))
