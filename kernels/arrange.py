"""Moving and combining numbers between contiguous arrays: what a network does beside its kernels.

All arrays are flat. Each result is one rounded operation, so the bits are those of NumPy.
"""

import numpy as np

from loopnest.kernels import scalar
from loopnest.kernels.jit import kernel
from loopnest.kernels.sums import RUN, SIZE, sum_of

_U = np.uint64


@kernel
def add(a, b, y):
    for i in range(y.size):
        y[i] = a[i] + b[i]


@kernel
def add_relu(a, b, y):
    for i in range(y.size):
        y[i] = scalar.relu(a[i] + b[i])


@kernel
def sub(a, b, y):
    for i in range(y.size):
        y[i] = a[i] - b[i]


@kernel
def sub_relu(a, b, y):
    for i in range(y.size):
        y[i] = scalar.relu(a[i] - b[i])


@kernel
def mul(a, b, y):
    for i in range(y.size):
        y[i] = a[i] * b[i]


@kernel
def mul_relu(a, b, y):
    for i in range(y.size):
        y[i] = scalar.relu(a[i] * b[i])


@kernel
def div(a, b, y):
    for i in range(y.size):
        y[i] = a[i] / b[i]


@kernel
def div_relu(a, b, y):
    for i in range(y.size):
        y[i] = scalar.relu(a[i] / b[i])


@kernel
def square_root(x, y):
    for i in range(y.size):
        y[i] = np.sqrt(x[i])


@kernel
def affine(x, scale, shift, y):
    """x scale + shift; a shift of 0 is left out."""
    by, plus = y.dtype.type(scale), y.dtype.type(shift)
    if plus == 0:
        for i in range(y.size):
            y[i] = x[i] * by
    else:
        for i in range(y.size):
            y[i] = x[i] * by + plus


@kernel
def batch_norm(weight, bias, mean, variance, epsilon, scale, shift):
    """Scale and shift of each channel that a normalisation amounts to, computed in float64."""
    for i in range(shift.size):
        factor = np.float64(weight[i]) / np.sqrt(np.float64(variance[i]) + epsilon)
        scale[i] = factor
        shift[i] = np.float64(bias[i]) - np.float64(mean[i]) * factor


@kernel
def fill(value, y):
    number = y.dtype.type(value)
    for i in range(y.size):
        y[i] = number


@kernel
def softmax_backward(dy, y, classes, log, dx):
    """Gradient of softmax rows, or with ``log`` of log-softmax rows, from their results y.

    y (dy - sum of dy y), or dy - exp(y) sum of dy; sums from the left, or of more than RUN classes
    as sums.py tells.
    """
    long = classes > RUN
    terms, space = np.empty(classes if long else 0, y.dtype), np.empty(SIZE, y.dtype)
    for row in range(y.size // classes):
        start, total = _U(row * classes), y.dtype.type(0)
        if long:
            for i in range(_U(classes)):
                terms[i] = dy[start + i] if log else dy[start + i] * y[start + i]
            total = sum_of(terms, 0, classes, space)
        else:
            for i in range(_U(classes)):
                total += dy[start + i] if log else dy[start + i] * y[start + i]
        for i in range(_U(classes)):
            at = start + i
            dx[at] = dy[at] - scalar.exp(y[at]) * total if log else y[at] * (dy[at] - total)


@kernel
def move(x, x_offset, x_strides, y, y_offset, y_strides, shape, how):
    """y[at] = x[at], or with ``how`` 1 y[at] += x[at], over strided elements in five axes."""
    n0, n1, n2, n3, n4 = shape
    a0, a1, a2, a3, a4 = x_strides
    b0, b1, b2, b3, b4 = y_strides
    for i0 in range(n0):
        for i1 in range(n1):
            for i2 in range(n2):
                for i3 in range(n3):
                    p = _U(x_offset + i0 * a0 + i1 * a1 + i2 * a2 + i3 * a3)
                    q = _U(y_offset + i0 * b0 + i1 * b1 + i2 * b2 + i3 * b3)
                    if how == 0 and a4 == 1 and b4 == 1:
                        for i in range(_U(n4)):
                            y[q + i] = x[p + i]
                    elif how == 1 and a4 == 1 and b4 == 1:
                        for i in range(_U(n4)):
                            y[q + i] += x[p + i]
                    else:
                        for i4 in range(n4):
                            value, at = x[_U(np.int64(p) + i4 * a4)], _U(np.int64(q) + i4 * b4)
                            if how == 0:
                                y[at] = value
                            else:
                                y[at] += value
