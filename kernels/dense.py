"""Dense layers: y = x weight + bias on rows; plain loops, the reference kernels.

x (M,I), weight (I,O), bias (O) or empty, y (M,O). One accumulator per output, fused
multiply-adds in ascending order of the summed index. The twin is csrc/dense.c.
"""

import numpy as np

from loopnest.kernels.jit import kernel
from loopnest.kernels.simd import fma
from loopnest.kernels.simd_lanes import flattened
from loopnest.kernels.sums import RUN, sum_columns

_U = np.uint64


@kernel
def linear(x, weight, bias, first, last, y):
    """Rows [first, last) of y; sums over i."""
    inputs, outputs = weight.shape
    x1, weight1, y1 = flattened(x), flattened(weight), flattened(y)
    for m in range(first, last):
        out = _U(m * outputs)
        for o in range(_U(outputs)):
            y1[out + o] = 0
        for i in range(inputs):
            value, row = x1[_U(m * inputs + i)], _U(i * outputs)
            for o in range(_U(outputs)):
                y1[out + o] = fma(value, weight1[row + o], y1[out + o])
        if bias.size:
            for o in range(_U(outputs)):
                y1[out + o] += bias[o]


@kernel
def linear_backward_input(dy, weight, first, last, dx):
    """Rows [first, last) of dx = dy weight^T; sums over o."""
    inputs, outputs = weight.shape
    dy1, weight1, dx1 = flattened(dy), flattened(weight), flattened(dx)
    for m in range(first, last):
        out = _U(m * inputs)
        for i in range(_U(inputs)):
            dx1[out + i] = 0
        for o in range(outputs):
            slope, column, step = dy1[_U(m * outputs + o)], _U(o), _U(outputs)
            for i in range(_U(inputs)):
                dx1[out + i] = fma(slope, weight1[column + i * step], dx1[out + i])


@kernel
def linear_backward_weight(x, dy, first, last, dweight):
    """Rows [first, last) of dweight = x^T dy; sums over m."""
    inputs, outputs = dweight.shape
    rows = dy.shape[0]
    x1, dy1, dw1 = flattened(x), flattened(dy), flattened(dweight)
    for i in range(first, last):
        out = _U(i * outputs)
        for o in range(_U(outputs)):
            dw1[out + o] = 0
        for m in range(rows):
            value, slopes = x1[_U(m * inputs + i)], _U(m * outputs)
            for o in range(_U(outputs)):
                dw1[out + o] = fma(value, dy1[slopes + o], dw1[out + o])


@kernel
def linear_backward_bias(dy, dbias):
    """dbias = sum of dy over m: in that order, or of more than RUN rows as sums.py tells."""
    rows, outputs = dy.shape
    dy1 = flattened(dy)
    if rows > RUN:
        sum_columns(dy1, 0, outputs, rows, outputs, dbias)
        return
    for o in range(_U(outputs)):
        dbias[o] = 0
    for m in range(rows):
        slopes = _U(m * outputs)
        for o in range(_U(outputs)):
            dbias[o] += dy1[slopes + o]
