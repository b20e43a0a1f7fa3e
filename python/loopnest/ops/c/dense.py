"""C twins of ``loopnest.kernels.dense``."""

from __future__ import annotations

from loopnest.ops.c.call import kernel, or_null


@kernel("linear")
def linear(x, weight, bias, first, last, y):
    return x, weight, or_null(bias), *weight.shape, first, last, y


@kernel("linear_backward_input")
def linear_backward_input(dy, weight, first, last, dx):
    return dy, weight, *weight.shape, first, last, dx


@kernel("linear_backward_weight")
def linear_backward_weight(x, dy, first, last, dweight):
    return x, dy, len(dy), *dweight.shape, first, last, dweight


@kernel("linear_backward_bias")
def linear_backward_bias(dy, dbias):
    return dy, *dy.shape, dbias
