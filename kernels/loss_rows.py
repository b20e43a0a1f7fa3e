"""Rows of more than 16 classes, a few at a time (ROWS of them side by side); part of loss.py.

A row alone waits most of its time: for its maximum, folded from 16 lanes, then for the exponentials
of its last numbers, then for their folded sum. Side by side, one row's waiting is another's
work. Logarithms and reciprocals of the sums are those of a set of up to 16 rows at once. Each row's
results are those of a row alone, bit for bit.
"""

import numpy as np

from loopnest.kernels import scalar
from loopnest.kernels.jit import block
from loopnest.kernels.jit import scalar as inlined
from loopnest.kernels.simd import select
from loopnest.kernels.simd_lanes import (
    LANES,
    fold_sum,
    keep_first,
    load,
    load_some,
    repeat,
    store,
)
from loopnest.kernels.simd_rows import (
    ROWS,
    fetch_rows,
    fold_rows_max,
    fold_rows_sum,
    load_rows,
    load_rows_some,
    repeat_block,
    repeat_rows,
    store_each,
    store_rows,
    store_rows_some,
)
from loopnest.kernels.sums import LEVELS, RUN, take_run, tree_total

LONG = 4096  # classes: 16 such rows take 256 KB


SHORT = 512  # classes: up to here rows are asked for before their turn


@inlined
def fetch_next(x, i, classes, write):
    """Ask for the same place in the next ROWS rows (why: `fetch_to_read` of simd_lanes.py).

    128 classes gain a tenth to a fifth; in long rows the CPU itself is early enough.
    """
    if classes <= SHORT:
        fetch_rows(x, i + ROWS * classes, classes, write)


@inlined
def row_max(x, start, classes):
    """Largest number of each row, NaN left out."""
    low, whole = x.dtype.type(-np.inf), classes - classes % LANES
    best = repeat_block(low)
    for i in range(start, start + whole, LANES):
        fetch_next(x, i, classes, 0)
        v = load_rows(x, i, classes)
        best = select(v > best, v, best)
    if whole < classes:
        v = load_rows_some(x, start + whole, classes, classes - whole, low)
        best = select(v > best, v, best)
    return fold_rows_max(best)


@inlined
def end_of_runs(tree, runs, total, begin, classes):
    """The sums of rows after a run of each that began at ``begin``; ``total`` holds those of the run.

    They are whole after the last run. ``tree`` is not used where rows have one run.
    """
    if classes > RUN:
        store_each(tree, 0, total)
        take_run(tree, runs, ROWS)
        if begin + RUN >= classes:
            tree_total(tree, runs + 1, ROWS)
            total = repeat_rows(tree, 0)
    return total


@inlined
def exponentials(x, start, classes, y, tree):
    """y = exp(x - max); returns (max, sum of y) of each row."""
    zero = x.dtype.type(0)
    top, total = row_max(x, start, classes), repeat_block(zero)
    for begin in range(0, classes, RUN):
        count, total = min(RUN, classes - begin), repeat_block(zero)
        rest = count % LANES
        at = start + begin + count - rest
        for i in range(start + begin, at, LANES):
            fetch_next(y, i, classes, 1)
            e = scalar.exp(load_rows(x, i, classes) - top)
            store_rows(y, i, classes, e)
            total = total + e
        if rest:
            e = scalar.exp(load_rows_some(x, at, classes, rest, zero) - top)
            store_rows_some(y, at, classes, rest, e)
            total = total + keep_first(e, rest, zero)
        total = end_of_runs(tree, begin // RUN, fold_rows_sum(total), begin, classes)
    return top, total


@inlined
def sums(x, start, classes, tree):
    """(max, sum of exp(x - max)) of each row, without storing the exponentials."""
    zero = x.dtype.type(0)
    top, total = row_max(x, start, classes), repeat_block(zero)
    for begin in range(0, classes, RUN):
        count, total = min(RUN, classes - begin), repeat_block(zero)
        rest = count % LANES
        at = start + begin + count - rest
        for i in range(start + begin, at, LANES):
            total = total + scalar.exp(load_rows(x, i, classes) - top)
        if rest:
            e = scalar.exp(load_rows_some(x, at, classes, rest, zero) - top)
            total = total + keep_first(e, rest, zero)
        total = end_of_runs(tree, begin // RUN, fold_rows_sum(total), begin, classes)
    return top, total


@block
def others_of_run(x, start, count, top, e):
    """`sum_of_others` over a run."""
    zero = x.dtype.type(0)
    total = repeat(zero)
    for i in range(start, start + count, LANES):
        left = min(LANES, start + count - i)
        v = load_some(x, i, left, top)  # the top counts nothing
        if e.size:
            term = load_some(e, i, left, zero)
        else:
            term = scalar.exp(v - top)
        total = total + select(v == top, zero, term)
    return fold_sum(total)


@block
def sum_of_others(x, start, count, top, e):
    """Sum of exp(x - top) over a row without those that are 1, the largest.

    ``e`` holds the exponentials, or nothing.
    """
    if count <= RUN:
        return others_of_run(x, start, count, top, e)
    tree, runs = np.empty(1 + LEVELS, x.dtype), 0
    for first in range(0, count, RUN):
        tree[0] = others_of_run(x, start + first, min(RUN, count - first), top, e)
        take_run(tree, runs, 1)
        runs += 1
    tree_total(tree, runs, 1)
    return tree[0]


@inlined
def space_for(classes, like):
    """Twice LANES ones, for a set's sums and logarithms, and the tree of rows of so many classes."""
    return np.ones(2 * LANES + (ROWS * (1 + LEVELS) if classes > RUN else 0), like)


@inlined
def set_of(first, last, classes):
    """(n, end) of the next set of rows: a multiple of ROWS, of long rows as few as that."""
    count = last - first
    most = LANES if classes <= LONG else ROWS
    return first, first + min(count - count % ROWS, most)


@block
def softmax(x, classes, first, last, y):
    """Rows from ``first`` on, but for the last few; where it ended."""
    zero, one, whole = x.dtype.type(0), x.dtype.type(1), classes - classes % LANES
    totals = space_for(classes, x.dtype)
    tree = totals[2 * LANES :]
    n, end = set_of(first, last, classes)
    while n < end:
        for r in range(n, end, ROWS):
            store_each(totals, r - n, exponentials(x, r * classes, classes, y, tree)[1])
        store(totals, 0, one / load(totals, 0))
        for r in range(n, end, ROWS):
            start, factor = r * classes, repeat_rows(totals, r - n)
            for i in range(start, start + whole, LANES):
                store_rows(y, i, classes, load_rows(y, i, classes) * factor)
            if whole < classes:
                at, rest = start + whole, classes - whole
                e = load_rows_some(y, at, classes, rest, zero)
                store_rows_some(y, at, classes, rest, e * factor)
        n, end = set_of(end, last, classes)
    return n


@inlined
def differences(x, start, classes, y, tree):
    """y = x - max; returns the sum of exp(y) of each row."""
    zero = x.dtype.type(0)
    top, total = row_max(x, start, classes), repeat_block(zero)
    for begin in range(0, classes, RUN):
        count, total = min(RUN, classes - begin), repeat_block(zero)
        rest = count % LANES
        at = start + begin + count - rest
        for i in range(start + begin, at, LANES):
            fetch_next(y, i, classes, 1)
            v = load_rows(x, i, classes) - top
            store_rows(y, i, classes, v)
            total = total + scalar.exp(v)
        if rest:
            v = load_rows_some(x, at, classes, rest, zero) - top
            store_rows_some(y, at, classes, rest, v)
            total = total + keep_first(scalar.exp(v), rest, zero)
        total = end_of_runs(tree, begin // RUN, fold_rows_sum(total), begin, classes)
    return total


@block
def log_softmax(x, classes, first, last, y):
    """As `softmax`; y holds x - max in between, as memory is best written while computing."""
    zero, whole = x.dtype.type(0), classes - classes % LANES
    totals, none = space_for(classes, x.dtype), x[:0]
    logs, tree = totals[LANES:], totals[2 * LANES :]
    n, end = set_of(first, last, classes)
    while n < end:
        for r in range(n, end, ROWS):
            store_each(totals, r - n, differences(x, r * classes, classes, y, tree))
        store(logs, 0, scalar.log(load(totals, 0)))
        for r in range(n, end):
            if scalar.is_small_sum(totals[r - n]):
                others = sum_of_others(y, r * classes, classes, zero, none)
                logs[r - n] = scalar.log_one_plus(others)
        for r in range(n, end, ROWS):
            start, log = r * classes, repeat_rows(logs, r - n)
            for i in range(start, start + whole, LANES):
                store_rows(y, i, classes, load_rows(y, i, classes) - log)
            if whole < classes:
                at, rest = start + whole, classes - whole
                v = load_rows_some(y, at, classes, rest, zero)
                store_rows_some(y, at, classes, rest, v - log)
        n, end = set_of(end, last, classes)
    return n


@inlined
def share(d, start, classes, inverse, factor):
    """From exponentials to (d inverse) factor in each row."""
    zero, whole = d.dtype.type(0), classes - classes % LANES
    for i in range(start, start + whole, LANES):
        store_rows(d, i, classes, (load_rows(d, i, classes) * inverse) * factor)
    if whole < classes:
        at, rest = start + whole, classes - whole
        e = load_rows_some(d, at, classes, rest, zero)
        store_rows_some(d, at, classes, rest, (e * inverse) * factor)


@block
def cross_entropy(x, target, classes, ignore_index, scale, first, last, losses, d):
    """Losses and gradients for class indices, neither weighted nor smoothed; as `softmax`."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    tops, totals = np.zeros(LANES, x.dtype), space_for(classes, x.dtype)
    logs, tree = totals[LANES:], totals[2 * LANES :]
    n, end = set_of(first, last, classes)
    while n < end:
        for r in range(n, end, ROWS):
            if d.size:
                top, total = exponentials(x, r * classes, classes, d, tree)
            else:
                top, total = sums(x, r * classes, classes, tree)
            store_each(tops, r - n, top)
            store_each(totals, r - n, total)
        store(logs, 0, scalar.log(load(totals, 0)))
        if losses.size:
            for r in range(n, end):
                if scalar.is_small_sum(totals[r - n]):
                    others = sum_of_others(x, r * classes, classes, tops[r - n], d)
                    logs[r - n] = scalar.log_one_plus(others)
        store(totals, 0, one / load(totals, 0))
        if losses.size:
            for r in range(n, end):
                hit = target[r]
                if hit == ignore_index:
                    losses[r] = zero
                else:
                    losses[r] = logs[r - n] - (x[r * classes + hit] - tops[r - n])
        if d.size:
            for r in range(n, end):  # of the class that was hit; the maxima have served
                if target[r] != ignore_index:
                    tops[r - n] = (d[r * classes + target[r]] * totals[r - n] - one) * scale[r]
            for r in range(n, end, ROWS):
                inverse, factor = repeat_rows(totals, r - n), repeat_rows(scale, r)
                share(d, r * classes, classes, inverse, factor)
            for r in range(n, end):
                if target[r] != ignore_index:
                    d[r * classes + target[r]] = tops[r - n]
                else:
                    d[r * classes : (r + 1) * classes] = zero
        n, end = set_of(end, last, classes)
    return n
