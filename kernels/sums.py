"""Long sums: how every sum over a row, a plane or a batch is added up. The twin is csrc/sums.h.

The rule. A sum is cut into runs of RUN terms. A run is added in 16 interleaved partial sums, its lanes:
lane l takes terms l, l + 16, ...; the lanes are folded 8, 4, 2, 1. The totals of the runs are added
pairwise, in a tree whose shape depends on their number alone. So the bits depend neither on
blocks nor on threads nor on the width of vectors, of up to 16.

The reason. In one accumulator of float32 the terms of a large mean vanish in the rounding of their
sum: 10^7 equal numbers are off by a percent. Here each term goes through at most 128 + 4 additions of
its run and one for each doubling of their number.

The tree is counted like a binary number. Bit k of the number of runs tells whether level k holds a
total, of 2^k runs: one run more is counted, and a carry is an addition. In the end the levels are added
from the lowest on.

A sum is an array of numbers, for ``width`` sums side by side: its 16 lanes, then the tree, which is the
total in hand and LEVELS levels; each of these parts has ``width`` numbers.
"""

import numpy as np

from loopnest.kernels.jit import block
from loopnest.kernels.wide import add, load, store

LANES = 16
RUN = 2048  # terms
LEVELS = 32  # of the tree: 2^32 runs are more than memory holds
SIZE = LANES + 1 + LEVELS  # numbers of one sum
COLUMNS = 256  # that are summed together: their lanes stay in the L1 cache
_ROWS = 64  # rows that are added at a time: four to each lane
_U = np.uint64


@block
def add_lanes(lanes, x, start, count):
    """Add x[start : start + count] to the lanes, which are in registers in between."""
    x0, whole = _U(start), _U(count // LANES * LANES)
    sums = load(lanes, _U(0))
    for i in range(_U(0), whole, _U(LANES)):
        sums = add(sums, load(x, x0 + i))
    store(lanes, _U(0), sums)
    for lane in range(_U(count) - whole):
        lanes[lane] += x[x0 + whole + lane]


@block
def fold(lanes, width):
    """Totals of the lanes, folded 8, 4, 2, 1, in the first one; they are used up."""
    half = _U(LANES // 2 * width)
    while half >= _U(width):
        for i in range(half):
            lanes[i] += lanes[i + half]
        half >>= _U(1)


@block
def take_run(tree, runs, width):
    """Take the total in hand, of a run, into a tree of ``runs`` others."""
    level = _U(width)
    while runs & 1:
        for i in range(_U(width)):
            tree[i] = tree[level + i] + tree[i]
        level += _U(width)
        runs >>= 1
    for i in range(_U(width)):
        tree[level + i] = tree[i]


@block
def tree_total(tree, runs, width):
    """Put the total of a tree of some runs in hand."""
    level, begun = _U(width), False
    while runs:
        if runs & 1:
            for i in range(_U(width)):
                tree[i] = tree[level + i] + tree[i] if begun else tree[level + i]
            begun = True
        level += _U(width)
        runs >>= 1


@block
def end_run(total, runs, width):
    """The run in the lanes has come to its end; ``runs`` others came before."""
    fold(total, width)
    tree = total[LANES * width :]
    for i in range(_U(width)):
        tree[i] = total[i]
    take_run(tree, runs, width)
    total[: LANES * width] = 0


@block
def add_to_sum(total, terms, x, start, count):
    """Add x[start : start + count], from lane 0 on, to a sum of ``terms``; their number then.

    Two whole runs are added side by side: neither waits for itself then.
    """
    while terms % RUN + count >= RUN:
        now = RUN - terms % RUN
        if now == RUN and count >= 2 * RUN:
            now = 2 * RUN
            x0, first, second = _U(start), load(total, _U(0)), load(total, _U(0))
            for i in range(x0, x0 + _U(RUN), _U(LANES)):
                first = add(first, load(x, i))
                second = add(second, load(x, i + _U(RUN)))
            store(total, _U(0), first)
            end_run(total, terms // RUN, 1)
            store(total, _U(0), second)
            end_run(total, terms // RUN + 1, 1)
        else:
            add_lanes(total, x, start, now)
            end_run(total, terms // RUN, 1)
        terms += now
        start += now
        count -= now
    add_lanes(total, x, start, count)
    return terms + count


@block
def sum_total(total, terms, width):
    """Where in the array of some sums, each of ``terms``, their totals are; the sums are used up."""
    if terms < RUN:
        fold(total, width)
        return 0
    if terms % RUN:
        end_run(total, terms // RUN, width)
    tree_total(total[LANES * width :], (terms + RUN - 1) // RUN, width)
    return LANES * width


@block
def sum_of(x, start, count, space):
    """Sum of x[start : start + count]; ``space`` has SIZE numbers."""
    space[:LANES] = 0
    return space[sum_total(space, add_to_sum(space, 0, x, start, count), 1)]


@block
def add_rows(lanes, x, start, pitch, width):
    """Add _ROWS rows to the lanes, ``pitch`` apart: each lane is loaded once for its four."""
    step = _U(LANES * pitch)
    for lane in range(LANES):
        here, a = _U(lane * width), _U(start + lane * pitch)
        b, c, d = a + step, a + step + step, a + step + step + step
        for i in range(_U(width)):
            lanes[here + i] = (((lanes[here + i] + x[a + i]) + x[b + i]) + x[c + i]) + x[d + i]


@block
def sum_columns(x, start, pitch, rows, columns, y):
    """Sums down columns of x from ``start`` on, whose rows are ``pitch`` apart, to y[:columns].

    Row r is in lane r % 16.
    """
    space = np.empty(SIZE * min(columns, COLUMNS), x.dtype)
    for first in range(0, columns, COLUMNS):
        width, r = min(columns - first, COLUMNS), 0
        space[: LANES * width] = 0
        while r + _ROWS <= rows:
            add_rows(space, x, start + r * pitch + first, pitch, width)
            r += _ROWS
            if r % RUN == 0:
                end_run(space, r // RUN - 1, width)
        while r < rows:
            here, row = _U(r % LANES * width), _U(start + r * pitch + first)
            for i in range(_U(width)):
                space[here + i] += x[row + i]
            r += 1
        totals = sum_total(space, rows, width)
        for i in range(width):
            y[first + i] = space[totals + i]
