"""Averages of the usual pooling, 2x2 by strides of 2 without padding, and their gradient: rows follow
each other in whole cache lines, which go past the caches where those cannot keep the output.
"""

import numpy as np

from loopnest.kernels.jit import fragment
from loopnest.kernels.pooling_rows import (
    PARTS,
    SLACK,
    fetch,
    mean_of_2_by_2,
    move,
    rounded,
    stream,
    twice,
)
from loopnest.kernels.simd import prefer_wide
from loopnest.kernels.simd_copies import stream_fence
from loopnest.kernels.simd_tiles import address_of, size_of

_U = np.uint64


@fragment
def avg_by_parts(zero, x, height, width, out_h, out_w, divisor, work, first, last, y):
    """The usual pooling of more than caches hold: streamed, and PARTS of the rows by turns.

    Memory gives more where several of its pages are read at a time.
    """
    prefer_wide()
    size, rows = size_of(zero), (last - first + PARTS - 1) // PARTS
    from_x, to_y, space = _U(x.ctypes.data), address_of(y), address_of(work)
    end_of_x = ((last - 1) // out_h + 1) * height * width
    for i in range(rows):
        for part in range(PARTS):
            row = first + part * rows + i
            if row >= last:
                break
            plane = np.int64(_U(row) // _U(out_h))
            start = (plane * height + 2 * (row - plane * out_h)) * width
            to, buffer = to_y + row * out_w * size, part * (out_w + SLACK)
            held = to % 64 // size  # of a line that this part began
            held = held if held <= i * out_w else 0
            count = min(rounded(out_w, width), (end_of_x - start - width) >> 1)
            fetch(from_x + _U(start * size), 2 * width * size)
            mean_of_2_by_2(x, start, start + width, work, buffer + held, count, divisor)
            source, to, held = space + buffer * size, to - held * size, held + out_w
            if i == rows - 1 or row == last - 1:
                move(zero, source, to, held)
                continue
            written = stream(zero, source, to, held)
            move(zero, source + written * size, source, held - written)
    stream_fence()


@fragment
def write_twice(zero, work, buffer, held, out_w, width, to, streams):
    """Two rows of the usual pooling's gradient, from shares in work; (written to, held).

    Rows follow each other in the ``buffer``, a place in work, which holds what fills no line yet.
    """
    size, space = size_of(zero), address_of(work)
    for _ in range(2):
        twice(work, 0, work, buffer + held, out_w)
        if width > 2 * out_w:
            work[_U(buffer + held + 2 * out_w)] = zero
        held += width
        written, source = held, space + buffer * size
        if streams:
            written = stream(zero, source, to, held)
        else:
            move(zero, source, to, held)
        to += written * size
        held -= written
        move(zero, source + written * size, source, held)
    return to, held
