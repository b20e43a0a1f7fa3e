"""Softmax and cross-entropy of rows of up to 16 classes, in blocks of 64 rows; part of loss.py.

A row of 10 would leave 6 lanes of 16 idle and spend most of its time on the folds. Here a block is
transposed, so that a lane is a row: the folds become sums of whole vectors. The order of every sum is
that of a row in 16 lanes, 8 + 4 + 2 + 1, so the bits are the same.
"""

import numpy as np

from loopnest.kernels import scalar
from loopnest.kernels.jit import block, inlined
from loopnest.kernels.simd import select
from loopnest.kernels.simd_lanes import BLOCK, LANES, load_block, store

ROWS = 64
LOGS = 8 * BLOCK  # where ``part`` holds logarithms, behind the partial sums
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
def folded(part, classes):
    """The sum of parts, one for each class up to 8, folded 4, 2, 1."""
    count, half = min(classes, 8), 4
    while half:
        for c in range(count - half):
            low, high = load_block(part, c * BLOCK), load_block(part, (c + half) * BLOCK)
            store(part, c * BLOCK, low + high)
        count, half = min(count, half), half // 2
    return load_block(part, 0)


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
        for c in range(min(classes, 8)):
            v = load_block(e, c * ROWS + g)
            if c + 8 < classes:
                v = v + load_block(e, (c + 8) * ROWS + g)
            store(part, c * BLOCK, v)
        store(total, g, folded(part, classes))


@block
def logs(columns, e, part, top, total, classes):
    """Logarithms of the sums to part[LOGS:], after `exponentials`."""
    small = False
    for r in range(ROWS):
        small |= scalar.is_small_sum(total[r])
    for g in range(0, ROWS, BLOCK):
        best, whole = load_block(top, g), load_block(total, g)
        log = scalar.log(whole)
        if small:
            for c in range(min(classes, 8)):
                v = others(columns, e, c, g, best)
                if c + 8 < classes:
                    v = v + others(columns, e, c + 8, g, best)
                store(part, c * BLOCK, v)
            few = scalar.log_one_plus(folded(part, classes))
            log = select(scalar.is_small_sum(whole), few, log)
        store(part, LOGS + g, log)


@inlined
def others(columns, e, c, g, best):
    """The exponentials of class c, 0 in place of those of the largest numbers."""
    zero = e.dtype.type(0)
    return select(load_block(columns, c * ROWS + g) == best, zero, load_block(e, c * ROWS + g))


@block
def scratch(dtype):
    """(columns, e, part, top, total) of a block."""
    size = LANES * ROWS
    return (
        np.empty(size, dtype), np.empty(size, dtype), np.empty(LOGS + ROWS, dtype),
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
        logs(columns, e, part, top, total, classes)
        for g in range(0, ROWS, BLOCK):
            rest, best = load_block(part, LOGS + g), load_block(top, g)
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
            logs(columns, e, part, top, total, classes)
            for r in range(rows):
                hit = target[n + r]
                if hit == ignore_index:
                    losses[n + r] = zero
                else:
                    losses[n + r] = part[LOGS + r] - (columns[hit * ROWS + r] - top[r])
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
