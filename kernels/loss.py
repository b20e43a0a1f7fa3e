"""Softmax and cross-entropy on the rows of x (N,C); the twin is csrc/loss.c.

Sums over a row run in 16 lanes (lanes.py). With m the row's maximum, softmax is
exp(x - m)/sum and log_softmax is (x - m) - log(sum): no overflow, and a row of all -inf
gives NaN.
"""

import numpy as np

from loopnest.kernels import scalar
from loopnest.kernels.jit import block, kernel
from loopnest.kernels.lanes import LANES, add_lanes, fold

_U = np.uint64


@block
def row_max(x, start, count):
    """Largest of x[start : start + count]; NaN if there is one."""
    best = x[_U(start)]
    for i in range(_U(start), _U(start + count)):
        if x[i] > best or x[i] != x[i]:
            best = x[i]
    return best


@block
def exponentials(x, start, count, lanes, y):
    """y = exp(x - max) on a row; returns (max, sum of y)."""
    top = row_max(x, start, count)
    for i in range(_U(start), _U(start + count)):
        y[i] = scalar.exp(x[i] - top)
    lanes[:] = 0
    add_lanes(lanes, y, start, count)
    return top, fold(lanes)


@block
def log_sum(x, start, count, lanes):
    """(max, log of the sum of exp(x - max)) of a row, without storing the exponentials."""
    top = row_max(x, start, count)
    lanes[:] = 0
    for i in range(count):
        lanes[_U(i % LANES)] += scalar.exp(x[_U(start + i)] - top)
    return top, scalar.log(fold(lanes))


@kernel
def softmax(x, first, last, y):
    classes = x.shape[1]
    x1, y1 = x.reshape(x.size), y.reshape(y.size)
    lanes = np.empty(LANES, x.dtype)
    for n in range(first, last):
        start = n * classes
        _, total = exponentials(x1, start, classes, lanes, y1)
        for i in range(_U(start), _U(start + classes)):
            y1[i] /= total


@kernel
def log_softmax(x, first, last, y):
    classes = x.shape[1]
    x1, y1 = x.reshape(x.size), y.reshape(y.size)
    lanes = np.empty(LANES, x.dtype)
    for n in range(first, last):
        start = n * classes
        top, rest = log_sum(x1, start, classes, lanes)
        for i in range(_U(start), _U(start + classes)):
            y1[i] = (x1[i] - top) - rest


@kernel
def cross_entropy(logits, target, ignore_index, smoothing, first, last, losses):
    """Losses of rows [first, last) for class indices; 0 where the target is ignored.

    With smoothing e over C classes: -(1 - e) log p[target] - e/C sum of log p.
    """
    classes = logits.shape[1]
    x1 = logits.reshape(logits.size)
    e = x1.dtype.type(smoothing)
    keep, spread = x1.dtype.type(1) - e, e / x1.dtype.type(classes)
    lanes = np.empty(LANES, logits.dtype)
    for n in range(first, last):
        if target[n] == ignore_index:
            losses[n] = 0
            continue
        start = n * classes
        top, rest = log_sum(x1, start, classes, lanes)
        loss = rest - (x1[_U(start + target[n])] - top)
        if smoothing != 0:
            lanes[:] = 0
            for i in range(classes):
                lanes[_U(i % LANES)] += (x1[_U(start + i)] - top) - rest
            loss = keep * loss - spread * fold(lanes)
        losses[n] = loss


@kernel
def cross_entropy_probabilities(logits, target, smoothing, first, last, losses):
    """Losses of rows [first, last) for target probabilities (N,C)."""
    classes = logits.shape[1]
    x1, target1 = logits.reshape(logits.size), target.reshape(target.size)
    e = x1.dtype.type(smoothing)
    keep, spread = x1.dtype.type(1) - e, e / x1.dtype.type(classes)
    lanes = np.empty(LANES, logits.dtype)
    for n in range(first, last):
        start = n * classes
        top, rest = log_sum(x1, start, classes, lanes)
        lanes[:] = 0
        for i in range(classes):
            at = _U(start + i)
            q = keep * target1[at] + spread
            lanes[_U(i % LANES)] += q * ((x1[at] - top) - rest)
        losses[n] = -fold(lanes)


@kernel
def cross_entropy_backward(logits, target, ignore_index, smoothing, scale, first, last, dlogits):
    """Rows [first, last) of (softmax - target) scale[n] for class indices."""
    classes = logits.shape[1]
    x1, d1 = logits.reshape(logits.size), dlogits.reshape(dlogits.size)
    e = x1.dtype.type(smoothing)
    keep, spread = x1.dtype.type(1) - e, e / x1.dtype.type(classes)
    lanes = np.empty(LANES, logits.dtype)
    for n in range(first, last):
        start = n * classes
        if target[n] == ignore_index:
            for i in range(_U(start), _U(start + classes)):
                d1[i] = 0
            continue
        _, total = exponentials(x1, start, classes, lanes, d1)
        hit = _U(start + target[n])
        for i in range(_U(start), _U(start + classes)):
            q = keep + spread if i == hit else spread
            d1[i] = (d1[i] / total - q) * scale[n]


@kernel
def cross_entropy_probabilities_backward(logits, target, smoothing, scale, first, last, dlogits):
    """Rows [first, last) of (softmax sum(q) - q) scale[n] for target probabilities q."""
    classes = logits.shape[1]
    x1, target1, d1 = (
        logits.reshape(logits.size), target.reshape(target.size), dlogits.reshape(dlogits.size)
    )  # fmt: skip
    e = x1.dtype.type(smoothing)
    keep, spread = x1.dtype.type(1) - e, e / x1.dtype.type(classes)
    lanes = np.empty(LANES, logits.dtype)
    for n in range(first, last):
        start = n * classes
        _, total = exponentials(x1, start, classes, lanes, d1)
        lanes[:] = 0
        for i in range(classes):
            lanes[_U(i % LANES)] += keep * target1[_U(start + i)] + spread
        weight = fold(lanes)
        for i in range(_U(start), _U(start + classes)):
            q = keep * target1[i] + spread
            d1[i] = (d1[i] / total * weight - q) * scale[n]


@kernel
def total(values, result):
    """Sum of values into result[0]."""
    lanes = np.empty(LANES, values.dtype)
    lanes[:] = 0
    add_lanes(lanes, values, 0, values.size)
    result[0] = fold(lanes)
