"""Softmax and cross-entropy on the rows of x (N,C); the twin is csrc/loss.c.

Sums over a row are those of sums.py. With m the row's maximum, softmax is
exp(x - m)/sum and log_softmax is (x - m) - log(sum): no overflow, and a row of all -inf
gives NaN. Where the sum is little more than the 1 of the maximum, its logarithm is log(1 + r) with r the
sum of the others: rounded beside the 1, r would be lost. Rows of up to 16 classes are worked on in
blocks of rows (few_classes.py), longer ones a few side by side (loss_rows.py).

Loss and gradient come from one pass: the kernels skip either if its array is empty. A target q
(one class, or probabilities; smoothed by e: (1 - e) q + e/C) with class weights w has the loss
-sum of w q log p and the gradient p sum(w q) - w q, p the softmax.
"""

import numpy as np

from loopnest.kernels import few_classes, loss_rows, scalar
from loopnest.kernels.jit import block, kernel
from loopnest.kernels.loss_rows import sum_of_others
from loopnest.kernels.simd import select
from loopnest.kernels.simd_lanes import (
    LANES,
    flattened,
    fold_max,
    fold_sum,
    keep_first,
    load,
    load_some,
    repeat,
    store,
    store_some,
)
from loopnest.kernels.sums import LEVELS, RUN, SIZE, sum_of, take_run, tree_total


@block
def row_max(x, start, count):
    """Largest of x[start : start + count], NaN left out."""
    low, whole = x.dtype.type(-np.inf), count - count % LANES
    best = repeat(low)
    for i in range(start, start + whole, LANES):
        v = load(x, i)
        best = select(v > best, v, best)
    if whole < count:
        v = load_some(x, start + whole, count - whole, low)
        best = select(v > best, v, best)
    return fold_max(best)


@block
def exponentials_of_run(x, start, count, top, y):
    """y = exp(x - top) on a run; returns the sum of y."""
    zero, whole = x.dtype.type(0), count - count % LANES
    total = repeat(zero)
    for i in range(start, start + whole, LANES):
        e = scalar.exp(load(x, i) - top)
        store(y, i, e)
        total = total + e
    if whole < count:
        at, rest = start + whole, count - whole
        e = scalar.exp(load_some(x, at, rest, zero) - top)
        store_some(y, at, rest, e)
        total = total + keep_first(e, rest, zero)
    return fold_sum(total)


@block
def exponentials(x, start, count, y):
    """y = exp(x - max) on a row; returns (max, sum of y)."""
    top = row_max(x, start, count)
    if count <= RUN:
        return top, exponentials_of_run(x, start, count, top, y)
    tree, runs = np.empty(1 + LEVELS, x.dtype), 0
    for first in range(0, count, RUN):
        tree[0] = exponentials_of_run(x, start + first, min(RUN, count - first), top, y)
        take_run(tree, runs, 1)
        runs += 1
    tree_total(tree, runs, 1)
    return top, tree[0]


@block
def exp_sum_of_run(x, start, count, top):
    """The same sum, without storing the exponentials."""
    zero, whole = x.dtype.type(0), count - count % LANES
    total = repeat(zero)
    for i in range(start, start + whole, LANES):
        total = total + scalar.exp(load(x, i) - top)
    if whole < count:
        e = scalar.exp(load_some(x, start + whole, count - whole, zero) - top)
        total = total + keep_first(e, count - whole, zero)
    return fold_sum(total)


@block
def exp_sum(x, start, count):
    """(max, sum of exp(x - max)) of a row."""
    top = row_max(x, start, count)
    if count <= RUN:
        return top, exp_sum_of_run(x, start, count, top)
    tree, runs = np.empty(1 + LEVELS, x.dtype), 0
    for first in range(0, count, RUN):
        tree[0] = exp_sum_of_run(x, start + first, min(RUN, count - first), top)
        take_run(tree, runs, 1)
        runs += 1
    tree_total(tree, runs, 1)
    return top, tree[0]


@block
def log_of_sum(total, x, start, count, top, e):
    """Logarithm of the sum of exp(x - top) over a row; ``e`` holds these, or nothing."""
    if scalar.is_small_sum(total):
        return scalar.log_one_plus(sum_of_others(x, start, count, top, e))
    return scalar.log(total)


@block
def scale_row(y, start, count, factor, less, scale):
    """y = (y factor - less) scale on a row."""
    zero, whole = y.dtype.type(0), count - count % LANES
    for i in range(start, start + whole, LANES):
        store(y, i, (load(y, i) * factor - less) * scale)
    if whole < count:
        at, rest = start + whole, count - whole
        store_some(y, at, rest, (load_some(y, at, rest, zero) * factor - less) * scale)


@kernel
def softmax(x, first, last, y):
    classes = x.shape[1]
    x1, y1 = flattened(x), flattened(y)
    if classes <= LANES:
        few_classes.softmax(x1, classes, first, last, y1)
        return
    zero, one = x1.dtype.type(0), x1.dtype.type(1)
    for n in range(loss_rows.softmax(x1, classes, first, last, y1), last):
        _, total = exponentials(x1, n * classes, classes, y1)
        scale_row(y1, n * classes, classes, one / total, zero, one)


@kernel
def log_softmax(x, first, last, y):
    classes = x.shape[1]
    x1, y1 = flattened(x), flattened(y)
    if classes <= LANES:
        few_classes.log_softmax(x1, classes, first, last, y1)
        return
    zero, whole, none = x1.dtype.type(0), classes - classes % LANES, y1[:0]
    for n in range(loss_rows.log_softmax(x1, classes, first, last, y1), last):
        start = n * classes
        top, total = exp_sum(x1, start, classes)
        rest = log_of_sum(total, x1, start, classes, top, none)
        for i in range(start, start + whole, LANES):
            store(y1, i, (load(x1, i) - top) - rest)
        if whole < classes:
            at, count = start + whole, classes - whole
            store_some(y1, at, count, (load_some(x1, at, count, zero) - top) - rest)


@block
def log_probability_of_run(x, start, weight, first, end, top, rest):
    """Sum over a run of a row of log-probabilities, times the classes' weights if there are any."""
    zero = x.dtype.type(0)
    total = repeat(zero)
    for c in range(first, end, LANES):
        left = min(LANES, end - c)
        v = (load_some(x, start + c, left, zero) - top) - rest
        if weight.size:
            v = scalar.share_of(load_some(weight, c, left, zero), v)
        total = total + keep_first(v, left, zero)
    return fold_sum(total)


@block
def log_probability_sum(x, start, count, top, rest, weight):
    """The same over the row."""
    if count <= RUN:
        return log_probability_of_run(x, start, weight, 0, count, top, rest)
    tree, runs = np.empty(1 + LEVELS, x.dtype), 0
    for first in range(0, count, RUN):
        end = min(count, first + RUN)
        tree[0] = log_probability_of_run(x, start, weight, first, end, top, rest)
        take_run(tree, runs, 1)
        runs += 1
    tree_total(tree, runs, 1)
    return tree[0]


@block
def shares_of_run(x, start, q1, weight, first, end, top, rest, keep, spread):
    """(sum of q log p, sum of q) over a run of a row, q smoothed and weighted."""
    zero = x.dtype.type(0)
    loss, share = repeat(zero), repeat(zero)
    for c in range(first, end, LANES):
        left = min(LANES, end - c)
        q = keep * load_some(q1, start + c, left, zero) + spread
        if weight.size:
            q = q * load_some(weight, c, left, zero)
        term = scalar.share_of(q, (load_some(x, start + c, left, zero) - top) - rest)
        loss = loss + keep_first(term, left, zero)
        share = share + keep_first(q, left, zero)
    return fold_sum(loss), fold_sum(share)


@block
def shares_sum(x, start, count, q1, weight, top, rest, keep, spread):
    """The same over the row."""
    if count <= RUN:
        return shares_of_run(x, start, q1, weight, 0, count, top, rest, keep, spread)
    losses, shares, runs = np.empty(1 + LEVELS, x.dtype), np.empty(1 + LEVELS, x.dtype), 0
    for first in range(0, count, RUN):
        end = min(count, first + RUN)
        losses[0], shares[0] = shares_of_run(
            x, start, q1, weight, first, end, top, rest, keep, spread
        )
        take_run(losses, runs, 1)
        take_run(shares, runs, 1)
        runs += 1
    tree_total(losses, runs, 1)
    tree_total(shares, runs, 1)
    return losses[0], shares[0]


@block
def one_class_gradient(d, start, classes, hit, keep, spread, total, weight, weights, scale):
    """From exponentials in d to the gradient for a target of one class.

    ``weights`` is the sum of all class weights.
    """
    one = d.dtype.type(1)
    inverse, e = one / total, d[start + hit]
    if weight.size == 0:
        scale_row(d, start, classes, inverse, spread, scale)
        d[start + hit] = (e * inverse - (keep + spread)) * scale
        return
    wanted = keep * weight[hit]
    factor = wanted + spread * weights
    for c in range(classes):
        d[start + c] = (d[start + c] * inverse * factor - spread * weight[c]) * scale
    d[start + hit] = (e * inverse * factor - (wanted + spread * weight[hit])) * scale


@kernel
def cross_entropy(
    logits, target, weight, ignore_index, smoothing, scale, first, last, losses, dlogits
):
    """Losses and gradients of rows [first, last) for class indices; 0 where one is ignored.

    ``weight`` (C,) may be empty for none; gradients are multiplied by ``scale`` (N,); empty ``losses``
    or ``dlogits`` are not computed.
    """
    classes = logits.shape[1]
    x, d = flattened(logits), flattened(dlogits)
    zero, one, e = x.dtype.type(0), x.dtype.type(1), x.dtype.type(smoothing)
    keep, spread = one - e, e / x.dtype.type(classes)
    if classes <= LANES and e == 0 and weight.size == 0:
        few_classes.cross_entropy(
            x, target, classes, ignore_index, scale, first, last, losses, d
        )  # fmt: skip
        return
    weights = sum_of(weight, 0, weight.size, np.empty(SIZE, x.dtype)) if weight.size else zero
    if e == 0 and weight.size == 0:
        first = loss_rows.cross_entropy(
            x, target, classes, ignore_index, scale, first, last, losses, d
        )  # fmt: skip
    for n in range(first, last):
        start, hit = n * classes, target[n]
        if hit == ignore_index:
            if losses.size:
                losses[n] = zero
            if d.size:
                d[start : start + classes] = zero
            continue
        if d.size:
            top, total = exponentials(x, start, classes, d)
            rest = log_of_sum(total, x, start, classes, top, d)
            scale_n = scale[n]
            one_class_gradient(
                d, start, classes, hit, keep, spread, total, weight, weights, scale_n
            )  # fmt: skip
        else:
            top, total = exp_sum(x, start, classes)
            rest = log_of_sum(total, x, start, classes, top, d)
        if losses.size:
            loss = rest - (x[start + hit] - top)
            if weight.size:
                loss = -scalar.share_of(weight[hit], -loss)
            if e != 0:
                every = log_probability_sum(x, start, classes, top, rest, weight)
                loss = -scalar.share_of(keep, -loss) - scalar.share_of(spread, every)
            losses[n] = loss


@kernel
def cross_entropy_probabilities(
    logits, target, weight, smoothing, scale, first, last, losses, dlogits
):
    """`cross_entropy` for target probabilities (N,C)."""
    classes = logits.shape[1]
    x, q1 = flattened(logits), flattened(target)
    d = flattened(dlogits)
    one, e = x.dtype.type(1), x.dtype.type(smoothing)
    keep, spread = one - e, e / x.dtype.type(classes)
    for n in range(first, last):
        start = n * classes
        if d.size:
            top, total = exponentials(x, start, classes, d)
        else:
            top, total = exp_sum(x, start, classes)
        rest = log_of_sum(total, x, start, classes, top, d)
        loss, share = shares_sum(x, start, classes, q1, weight, top, rest, keep, spread)
        if losses.size:
            losses[n] = -loss
        if d.size:
            inverse, factor, scale_n = one / total, share, scale[n]
            for c in range(classes):
                q = keep * q1[start + c] + spread
                if weight.size:
                    q = q * weight[c]
                d[start + c] = (d[start + c] * inverse * factor - q) * scale_n


@kernel
def total(values, result):
    """Sum of values into result[0]."""
    result[0] = sum_of(values, 0, values.size, np.empty(SIZE, values.dtype))
