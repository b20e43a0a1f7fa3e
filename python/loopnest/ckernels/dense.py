"""C twins of ``loopnest.kernels.dense``."""

from __future__ import annotations

from loopnest._c import ffi
from loopnest.ckernels.call import by_dtype, pointer

_linear = by_dtype("linear")
_backward_input = by_dtype("linear_backward_input")
_backward_weight = by_dtype("linear_backward_weight")
_backward_bias = by_dtype("linear_backward_bias")


def linear(x, weight, bias, first, last, y):
    b = pointer(bias) if bias.size else ffi.NULL
    _linear[x.dtype](pointer(x), pointer(weight), b, *weight.shape, first, last, pointer(y))


def linear_backward_input(dy, weight, first, last, dx):
    _backward_input[dy.dtype](pointer(dy), pointer(weight), *weight.shape, first, last, pointer(dx))


def linear_backward_weight(x, dy, first, last, dweight):
    _backward_weight[x.dtype](
        pointer(x), pointer(dy), len(dy), *dweight.shape, first, last, pointer(dweight)
    )


def linear_backward_bias(dy, dbias):
    _backward_bias[dy.dtype](pointer(dy), *dy.shape, pointer(dbias))
