"""Sums in 16 interleaved lanes: lane l takes elements l, l+16, ...; folded 8, 4, 2, 1.

The contract of every row reduction: any vector width of up to 16 gives these bits.
"""

import numpy as np

from loopnest.kernels.jit import block
from loopnest.kernels.wide import add, load, store

LANES = 16
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
def fold(lanes):
    """Sum of the lanes; they are used up."""
    half = LANES // 2
    while half:
        for lane in range(half):
            lanes[lane] += lanes[lane + half]
        half //= 2
    return lanes[0]
