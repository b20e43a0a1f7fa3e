"""Sums in 16 interleaved lanes: lane l takes elements l, l+16, ...; folded 8, 4, 2, 1.

The contract of every row reduction: any vector width of up to 16 gives these bits.
"""

import numpy as np

from loopnest.kernels.jit import block

LANES = 16
_U = np.uint64


@block
def add_lanes(lanes, x, start, count):
    """Add x[start : start + count] to the lanes."""
    x0, whole = _U(start), _U(count // LANES * LANES)
    for i in range(_U(0), whole, _U(LANES)):
        for lane in range(_U(LANES)):
            lanes[lane] += x[x0 + i + lane]
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
