"""Softmax and cross-entropy of rows of up to 16 classes, in blocks of 64 rows; part of loss.py.

A row of 10 would leave 6 lanes of 16 idle and spend most of its time on the folds. Here a block is
transposed, so that a lane is a row: the folds become sums of whole vectors. The order of every sum is
that of a row in 16 lanes, 8 + 4 + 2 + 1, so the bits are the same.
"""

import numpy as np

from loopnest.kernels import scalar
from loopnest.kernels.jit import block
from loopnest.kernels.simd import select
from loopnest.kernels.simd_lanes import BLOCK, LANES, load_block, store

ROWS = 64
_U = np.uint64  # an index that may be negative costs a test


@block
def to_columns(x, start, rows, classes, columns):
    """columns[c][r] = x[start + r][c]; zeros beyond the last row."""
    at = _U(start)
    for r in range(_U(rows)):
        for c in range(_U(classes)):
            columns[c * _U(ROWS) + r] = x[at]
            at += _U(1)
    if rows < ROWS:
        for c in range(classes):
            columns[c * ROWS + rows : (c + 1) * ROWS] = 0


@block
def from_columns(columns, start, rows, classes, y):
    """y[start + r][c] = columns[c][r]"""
    at = _U(start)
    for r in range(_U(rows)):
        for c in range(_U(classes)):
            y[at] = columns[c * _U(ROWS) + r]
            at += _U(1)


@block
def exponentials(columns, classes, e, part, top, total):
    """e = exp(x - max) of 64 rows, their maxima, and the sums of e."""
    for g in range(0, ROWS, BLOCK):
        best = load_block(columns, g)
        for c in range(1, classes):
            v = load_block(columns, c * ROWS + g)
            best = select(v > best, v, best)
        store(top, g, best)
        for c in range(classes):
            store(e, c * ROWS + g, scalar.exp(load_block(columns, c * ROWS + g) - best))
        # The fold of 16 lanes: 8 above onto 8 below, then 4, 2, 1; classes that are not there add 0.
        count = min(classes, 8)
        for c in range(count):
            v = load_block(e, c * ROWS + g)
            if c + 8 < classes:
                v = v + load_block(e, (c + 8) * ROWS + g)
            store(part, c * BLOCK, v)
        half = 4
        while half:
            for c in range(count - half):
                store(
                    part,
                    c * BLOCK,
                    load_block(part, c * BLOCK) + load_block(part, (c + half) * BLOCK),
                )
            count, half = min(count, half), half // 2
        store(total, g, load_block(part, 0))


@block
def scratch(dtype):
    """(columns, e, part, top, total) of a block."""
    size = LANES * ROWS
    return (
        np.empty(size, dtype), np.empty(size, dtype), np.empty(8 * BLOCK, dtype),
        np.empty(ROWS, dtype), np.empty(ROWS, dtype),
    )  # fmt: skip


@block
def softmax(x, classes, first, last, y):
    columns, e, part, top, total = scratch(x.dtype)
    one = x.dtype.type(1)
    for n in range(first, last, ROWS):
        rows = min(ROWS, last - n)
        to_columns(x, n * classes, rows, classes, columns)
        exponentials(columns, classes, e, part, top, total)
        for g in range(0, ROWS, BLOCK):
            inverse = one / load_block(total, g)
            for c in range(classes):
                store(e, c * ROWS + g, load_block(e, c * ROWS + g) * inverse)
        from_columns(e, n * classes, rows, classes, y)


@block
def log_softmax(x, classes, first, last, y):
    columns, e, part, top, total = scratch(x.dtype)
    for n in range(first, last, ROWS):
        rows = min(ROWS, last - n)
        to_columns(x, n * classes, rows, classes, columns)
        exponentials(columns, classes, e, part, top, total)
        for g in range(0, ROWS, BLOCK):
            rest, best = scalar.log(load_block(total, g)), load_block(top, g)
            for c in range(classes):
                store(columns, c * ROWS + g, (load_block(columns, c * ROWS + g) - best) - rest)
        from_columns(columns, n * classes, rows, classes, y)


@block
def cross_entropy(x, target, classes, ignore_index, scale, first, last, losses, d):
    """loss.cross_entropy without weights and smoothing."""
    columns, e, part, top, total = scratch(x.dtype)
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for n in range(first, last, ROWS):
        rows = min(ROWS, last - n)
        to_columns(x, n * classes, rows, classes, columns)
        exponentials(columns, classes, e, part, top, total)
        if losses.size:
            for g in range(0, ROWS, BLOCK):
                store(part, g, scalar.log(load_block(total, g)))
            for r in range(rows):
                hit = target[n + r]
                if hit == ignore_index:
                    losses[n + r] = zero
                else:
                    losses[n + r] = part[r] - (columns[hit * ROWS + r] - top[r])
        if d.size:
            for r in range(ROWS):
                inside = r < rows and target[n + r] != ignore_index
                top[r] = scale[n + r] if inside else zero
            for g in range(0, ROWS, BLOCK):
                inverse, factor = one / load_block(total, g), load_block(top, g)
                for c in range(classes):
                    p = load_block(e, c * ROWS + g) * inverse
                    store(columns, c * ROWS + g, (p - zero) * factor)
                store(total, g, inverse)
            for r in range(rows):
                hit = target[n + r]
                if hit != ignore_index:
                    p = e[hit * ROWS + r] * total[r]
                    columns[hit * ROWS + r] = (p - one) * top[r]
            from_columns(columns, n * classes, rows, classes, d)
            for r in range(rows):
                if target[n + r] == ignore_index:  # 0 even where the row holds NaN
                    at = (n + r) * classes
                    d[at : at + classes] = zero
