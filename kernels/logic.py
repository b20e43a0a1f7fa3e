"""Logic-gate networks in training: layers of neurons that mix all 16 gates.

A neuron's value on inputs a and b is c0 + c1 a + c2 b + c3 ab, whatever its shares of the 16
gates are: bilinear in the corners f(0,0) .. f(1,1). Values lie feature-major, one row of
CHUNK samples a neuron, so that all loops run along samples; a chunk of a whole layer
then fits into L2. ``left`` and ``right`` are rows of the layer before; ``starts`` (layers + 1)
says where each layer's neurons begin. All arrays are flat but for ``logits`` and ``shares``
(16, neurons). The twin is csrc/logic.c.

Order of sums: a sum over a chunk's samples runs in 16 lanes, folded 8, 4, 2, 1, and the chunks'
sums are added in ascending order, a run of sums.py at a time, whose totals are added pairwise; a
row's gradient adds its uses by ascending neuron, left before right; scores add rows in ascending
order, or more than a run of them as sums.py tells.
"""

import numpy as np

from loopnest.kernels import scalar, wide
from loopnest.kernels.jit import kernel
from loopnest.kernels.simd import fma, select
from loopnest.kernels.sums import LEVELS, RUN, sum_columns, take_run, tree_total

CHUNK = 32  # samples
_RUN = RUN // CHUNK  # chunks
_LANES = wide.LANES
_GATES = 16
_U = np.uint64
_BLOCK = 64  # neurons whose logits are worked on at a time


@kernel
def logic_coefficients(logits, first, last, shares, coefficients):
    """Softmax of each neuron's logits, and its coefficients; for neurons [first, last).

    Gate k gives 1 at corner (a, b) if bit 3 - 2a - b of k is set.
    """
    neurons = logits.shape[1]
    w, p = logits.reshape(logits.size), shares.reshape(shares.size)
    zero = w.dtype.type(0)
    corners, top = np.empty((4, _BLOCK), w.dtype), np.empty(_BLOCK, w.dtype)
    for begin in range(first, last, _BLOCK):
        count, start = _U(min(_BLOCK, last - begin)), _U(begin)
        for n in range(count):
            top[n] = w[start + n]
        for k in range(_U(1), _U(_GATES)):
            for n in range(count):
                top[n] = select(w[k * _U(neurons) + start + n] > top[n],
                                w[k * _U(neurons) + start + n], top[n])  # fmt: skip
        corners[:] = 0
        total = corners[0]
        for k in range(_U(_GATES)):
            for n in range(count):
                e = scalar.exp(w[k * _U(neurons) + start + n] - top[n])
                p[k * _U(neurons) + start + n] = e
                total[n] += e
        for n in range(count):
            top[n] = total[n]
            total[n] = zero
        for k in range(_U(_GATES)):
            for n in range(count):
                p[k * _U(neurons) + start + n] /= top[n]
            for corner in range(_U(4)):
                if (k >> (_U(3) - corner)) & _U(1):
                    for n in range(count):
                        corners[corner, n] += p[k * _U(neurons) + start + n]
        for n in range(count):
            c = _U(4) * (start + n)
            f00, f01, f10, f11 = corners[0, n], corners[1, n], corners[2, n], corners[3, n]
            coefficients[c] = f00
            coefficients[c + _U(1)] = f10 - f00
            coefficients[c + _U(2)] = f01 - f00
            coefficients[c + _U(3)] = (f11 - f10) - (f01 - f00)


@kernel
def logic_forward(x, left, right, coefficients, starts, y):
    """Values of all neurons on a chunk, layer by layer."""
    size = _U(CHUNK)
    for layer in range(starts.size - 1):
        source = x if layer == 0 else y
        offset = _U(0) if layer == 0 else _U(starts[layer - 1])
        for neuron in range(starts[layer], starts[layer + 1]):
            n = _U(neuron)
            a, b, out = (offset + _U(left[n])) * size, (offset + _U(right[n])) * size, n * size
            c0 = wide.splat(coefficients[_U(4) * n])
            c1 = wide.splat(coefficients[_U(4) * n + _U(1)])
            c2 = wide.splat(coefficients[_U(4) * n + _U(2)])
            c3 = wide.splat(coefficients[_U(4) * n + _U(3)])
            for i in range(_U(0), size, _U(_LANES)):
                va, vb = wide.load(source, a + i), wide.load(source, b + i)
                slope = wide.fma(c3, va, c2)
                wide.store(y, out + i, wide.fma(vb, slope, wide.fma(c1, va, c0)))


@kernel
def logic_backward(x, y, left, right, coefficients, starts, dy, dx, dcoefficients):
    """Gradients by the coefficients, from dy, the rows of the last layer's gradient.

    dy and dx are used up: work space for the widest layer.
    """
    size = _U(CHUNK)
    zero = wide.splat(x.dtype.type(0))
    for layer in range(starts.size - 2, -1, -1):
        begin = _U(starts[layer])
        source = x if layer == 0 else y
        offset = _U(0) if layer == 0 else _U(starts[layer - 1])
        if layer:
            dx[: (starts[layer] - starts[layer - 1]) * CHUNK] = 0
        for neuron in range(starts[layer], starts[layer + 1]):
            n = _U(neuron)
            row_a, row_b = _U(left[n]) * size, _U(right[n]) * size
            a, b, g = offset * size + row_a, offset * size + row_b, (n - begin) * size
            c1 = wide.splat(coefficients[_U(4) * n + _U(1)])
            c2 = wide.splat(coefficients[_U(4) * n + _U(2)])
            c3 = wide.splat(coefficients[_U(4) * n + _U(3)])
            d0, d1, d2, d3 = zero, zero, zero, zero
            for i in range(_U(0), size, _U(_LANES)):
                va, vb, vg = (
                    wide.load(source, a + i),
                    wide.load(source, b + i),
                    wide.load(dy, g + i),
                )
                d0, d1 = wide.add(d0, vg), wide.fma(vg, va, d1)
                d2, d3 = wide.fma(vg, vb, d2), wide.fma(wide.mul(vg, va), vb, d3)
                if layer:
                    da = wide.fma(vg, wide.fma(c3, vb, c1), wide.load(dx, row_a + i))
                    db = wide.fma(vg, wide.fma(c3, va, c2), wide.load(dx, row_b + i))
                    wide.store(dx, row_a + i, da)
                    wide.store(dx, row_b + i, db)
            wide.store_sums(d0, d1, d2, d3, dcoefficients, _U(4) * n)
        dy, dx = dx, dy


@kernel
def logic_scores(y, start, group, scale, scores):
    """scores (CHUNK, classes) = scale times the sum of each group of rows, from row ``start``."""
    size, classes = _U(CHUNK), _U(scores.shape[1])
    flat, total = scores.reshape(scores.size), np.empty(CHUNK, y.dtype)
    factor = y.dtype.type(scale)
    for k in range(classes):
        total[:] = 0
        row = (_U(start) + k * _U(group)) * size
        if group > RUN:
            sum_columns(y, row, CHUNK, group, CHUNK, total)
        else:
            for n in range(row, row + _U(group) * size, size):
                for i in range(_U(0), size, _U(_LANES)):
                    wide.store(total, i, wide.add(wide.load(total, i), wide.load(y, n + i)))
        for i in range(size):
            flat[i * classes + k] = factor * total[i]


@kernel
def logic_scores_backward(dscores, group, scale, dy):
    """dy, a gradient a row, from the gradient by the scores (CHUNK, classes)."""
    size, classes = _U(CHUNK), _U(dscores.shape[1])
    flat, factor = dscores.reshape(dscores.size), dy.dtype.type(scale)
    for k in range(classes):
        row = k * _U(group) * size
        for i in range(size):
            dy[row + i] = factor * flat[i * classes + k]
        for n in range(row + size, row + _U(group) * size, size):
            for i in range(_U(0), size, _U(_LANES)):
                wide.store(dy, n + i, wide.load(dy, row + i))


@kernel
def logic_coefficients_backward(dcoefficients, coefficients, first, last, shares):
    """Gradients by the logits of neurons [first, last), in place of their shares.

    dcoefficients (chunks, 4 neurons). With e the gradients by the corners, a gate's gradient g
    is the sum of e over the corners where it is 1, and that of its logit p (g - sum of p g).
    """
    chunks, neurons = dcoefficients.shape[0], _U(shares.shape[1])
    d, p = dcoefficients.reshape(dcoefficients.size), shares.reshape(shares.size)
    parts, mean = np.empty((8, _BLOCK), p.dtype), np.empty(_BLOCK, p.dtype)
    parts[:] = 0  # parts 0 and 4 stay 0
    runs, tree = (chunks + _RUN - 1) // _RUN, np.empty(4 * (1 + LEVELS), p.dtype)
    d0 = d1 = d2 = d3 = p.dtype.type(0)
    for begin in range(first, last, _BLOCK):
        count, start = _U(min(_BLOCK, last - begin)), _U(begin)
        for n in range(count):
            c = _U(4) * (start + n)
            for run in range(runs):
                at = _U(run * _RUN * 4) * neurons + c
                d0, d1, d2, d3 = d[at], d[at + _U(1)], d[at + _U(2)], d[at + _U(3)]
                for _ in range(run * _RUN + 1, min(chunks, (run + 1) * _RUN)):
                    at += _U(4) * neurons
                    d0 += d[at]
                    d1 += d[at + _U(1)]
                    d2 += d[at + _U(2)]
                    d3 += d[at + _U(3)]
                if runs > 1:
                    tree[0], tree[1], tree[2], tree[3] = d0, d1, d2, d3
                    take_run(tree, run, 4)
            if runs > 1:
                tree_total(tree, runs, 4)
                d0, d1, d2, d3 = tree[0], tree[1], tree[2], tree[3]
            c0, c1 = coefficients[c], coefficients[c + _U(1)]
            c2, c3 = coefficients[c + _U(2)], coefficients[c + _U(3)]
            mean[n] = fma(c3, d3, fma(c2, d2, fma(c1, d1, c0 * d0)))
            e01, e10, e11 = d2 - d3, d1 - d3, d3
            e00 = (d0 - d1) - e01
            parts[1, n], parts[2, n], parts[3, n] = e01, e00, e00 + e01
            parts[5, n], parts[6, n], parts[7, n] = e11, e10, e10 + e11
        for k in range(_U(_GATES)):
            high, low = parts[k >> _U(2)], parts[_U(4) + (k & _U(3))]
            for n in range(count):
                at = k * neurons + start + n
                p[at] *= (high[n] + low[n]) - mean[n]
