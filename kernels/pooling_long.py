"""Averages over windows of more terms than a run of sums.py; part of pooling.py."""

import numpy as np

from loopnest.kernels.jit import block
from loopnest.kernels.pooling_rows import window
from loopnest.kernels.sums import RUN, SIZE, sum_columns, sum_of


@block
def average_long(
    x, start, rows, padded_h, width, kernel_w, stride_w, pad_w, include_pad, divisor, out_w, work,
    y, to,
):  # fmt: skip
    """A row of averages, of the windows that have more terms than a run.

    The columns of ``rows`` numbers begin at x[start], the averages at y[to]. work: W elements.
    """
    space = np.empty(SIZE, x.dtype)
    sum_columns(x, start, width, rows, width, work)
    for ow in range(out_w):
        left, right, padded_w = window(ow, stride_w, pad_w, width, kernel_w)
        if rows * (right - left) > RUN:
            size = padded_h * padded_w if include_pad else rows * (right - left)
            total = sum_of(work, left, right - left, space)
            y[to + ow] = total / x.dtype.type(divisor if divisor else size)
