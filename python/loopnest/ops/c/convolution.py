"""C twins of ``loopnest.kernels.convolution``."""

from __future__ import annotations

import functools
from typing import Any

from loopnest._c import ffi
from loopnest.ops.c.call import kernel, or_null


@functools.lru_cache(maxsize=1024)
def shape_of(x: tuple, weight: tuple, y: tuple, *options: int) -> Any:
    """The sizes as C wants them; options from stride_h to groups."""
    k, _, r, s = weight
    return ffi.new("ln_conv2d_shape *", (*x, k, r, s, *y[2:], *options))


@kernel("conv2d")
def conv2d(x, weight, bias, *options):
    *options, first, last, y = options
    shape = shape_of(x.shape, weight.shape, y.shape, *options)
    return x, weight, or_null(bias), shape, first, last, y


@kernel("conv2d_backward_input")
def conv2d_backward_input(dy, weight, *options):
    *options, first, last, dx = options
    shape = shape_of(dx.shape, weight.shape, dy.shape, *options)
    return dy, weight, shape, first, last, dx


@kernel("conv2d_backward_weight")
def conv2d_backward_weight(x, dy, *options):
    *options, first, last, dweight = options
    shape = shape_of(x.shape, dweight.shape, dy.shape, *options)
    return x, dy, shape, first, last, dweight


@kernel("conv2d_backward_bias")
def conv2d_backward_bias(dy, first, last, dbias):
    n, k, oh, ow = dy.shape
    shape = shape_of((n, 1, 1, 1), (k, 1, 1, 1), dy.shape, 1, 1, 0, 0, 1, 1, 1)
    return dy, shape, first, last, dbias
